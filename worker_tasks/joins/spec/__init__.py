"""The description of a join: its parts, their rules, its canonical form."""

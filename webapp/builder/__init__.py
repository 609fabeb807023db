"""The forms that describe a join."""

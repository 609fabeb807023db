"""A run of a join, from its start to its outcome."""

"""Joins that people saved, to run them again with other values."""

"""Joins that people saved, run again with other values."""

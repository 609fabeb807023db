"""Saved joins, which people can run again with other values."""

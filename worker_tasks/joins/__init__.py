"""Joins as native MongoDB aggregations."""

"""Joins: described, planned, checked before they run, and run."""

"""Samples and checks before a join runs."""

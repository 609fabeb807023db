"""Samples of collections, and checks of a join before it runs."""

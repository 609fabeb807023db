"""Submits, runs and records tasks. Does not depend on the web application."""

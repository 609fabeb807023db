"""Writes, publishes and reads the results of joins in Redis, and controls their expiry."""

"""Joined documents in Redis: written part by part, published in one step, read row by row."""

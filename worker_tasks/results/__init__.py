"""Joined documents in Redis: written in parts, published in one atomic step, read by rows."""

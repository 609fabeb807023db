"""Matching documents outside MongoDB: keys, casts, projections and sort orders that agree with it."""

"""Measurements side by side with what Dovetail came from: ``python -m benchmarks``, and docs/performance.md."""

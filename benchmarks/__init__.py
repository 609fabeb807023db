"""Benchmarks against the original tutorials: ``python -m benchmarks``. docs/performance.md explains the results."""

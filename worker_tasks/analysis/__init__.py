"""Artifacts computed from a result: statistics, row orders, exports, comparisons."""

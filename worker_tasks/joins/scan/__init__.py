"""The scan method: reads each side once and lets DuckDB join the lines by their keys."""

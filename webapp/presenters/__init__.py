"""Documents to words. Pure: no I/O."""

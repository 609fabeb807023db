"""Text for pages, made from documents. Pure: no I/O."""

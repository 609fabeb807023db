"""Pages and files of a result."""

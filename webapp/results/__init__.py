"""Pages and files of results."""

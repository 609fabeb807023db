"""Pages that follow, find and cancel tasks."""

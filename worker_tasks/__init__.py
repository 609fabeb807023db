"""The worker's side: what is asked, how it runs, where it is recorded. Knows nothing of the web."""

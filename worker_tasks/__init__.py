"""The worker's side: requests, their execution and their records. Knows nothing of the web."""

"""Task documents in MongoDB, and the live state of tasks in Redis."""

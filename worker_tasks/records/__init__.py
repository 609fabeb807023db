"""Task documents and saved joins in MongoDB, and their live state in Redis."""

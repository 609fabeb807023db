"""The results of joins in Redis: writing, publishing, reading and expiry."""

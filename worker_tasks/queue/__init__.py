"""The Celery application, its broker connection and its result backend."""

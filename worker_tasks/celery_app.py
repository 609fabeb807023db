"""The Celery application under the name that command lines use: ``celery --app worker_tasks.celery_app``."""

from worker_tasks.queue.celery_app import app

__all__ = ["app"]

"""A Dovetail task that does nothing; the worker loads it with ``--include``."""

from worker_tasks.queue.celery_app import app


@app.task
def nothing() -> None:
    pass

"""A task of ours that does nothing, loaded by the worker with ``--include``."""

from worker_tasks.queue.celery_app import app


@app.task
def nothing() -> None:
    pass

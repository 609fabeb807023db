"""The one way in: record, then publish."""

from typing import Any

from celery import Task

from worker_tasks import ledger
from worker_tasks import metadata as metadata_rules
from worker_tasks.celery_app import app
from worker_tasks.errors import MONGODB_FAILURES, REDIS_FAILURES, InvalidInput, unavailable


def submit(task: Task, *args: Any, metadata: dict[str, Any] | None = None, requested_by: str | None = None) -> str:
    """Records a task with its metadata, then publishes it; returns without waiting for it.

    Returns:
        The task id.

    Raises:
        InvalidInput: the metadata can not be kept; nothing was recorded.
        ServiceUnavailable: MongoDB is away and nothing was recorded; or Redis is away, and the record says
            that the task was not published.
    """
    metadata = {} if metadata is None else metadata
    if errors := metadata_rules.errors_in(metadata):
        raise InvalidInput(errors)
    try:
        return task.apply_async(args, metadata=metadata, requested_by=requested_by).id
    except (*MONGODB_FAILURES, *REDIS_FAILURES) as error:
        raise unavailable(error) from error


def submit_again(task_id: str) -> str:
    """Submits anew what this task asked for, with its metadata.

    Returns:
        The new task's id.

    Raises:
        TaskNotFound: no task document has this id.
        InvalidInput: nothing says what the task was to do.
        ServiceUnavailable: as for :func:`submit`.
    """
    try:
        asked = ledger.find(task_id)
        if asked["name"] is None:
            raise InvalidInput({"task_id": "names a task of which nothing says what it was to do."})
        return app.send_task(
            asked["name"], asked["args"], asked["kwargs"], queue=asked["queue"], metadata=asked["metadata"]
        ).id
    except (*MONGODB_FAILURES, *REDIS_FAILURES) as error:
        raise unavailable(error) from error

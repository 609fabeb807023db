"""Changes task documents without changing the state of their tasks."""

from datetime import datetime

from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger
from worker_tasks.records.metadata import labels_of


def amend(task_id: str, fields: Document, note: str | None = None) -> bool:
    """Sets fields of an unfinished task without changing its state.

    Returns:
        False if the task is finished.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    unfinished = {"_id": task_id, "status": {"$in": sorted(ledger.UNFINISHED_STATES)}}
    return ledger.write(unfinished, {"$set": fields}, ledger.timeline_event(ledger.find_task(task_id)["status"], note))


def set_metadata(task_id: str, metadata: Document, version: int) -> bool:
    """Replaces the metadata of a task, finished or not.

    Returns:
        False if the task has changed since this version.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    unchanged = {"_id": task_id, "version": version}
    event = ledger.timeline_event(ledger.find_task(task_id)["status"], "metadata changed")
    return ledger.write(unchanged, {"$set": {"metadata": metadata, "labels": labels_of(metadata)}}, event)


def set_expiry(task_id: str, expires_at: datetime, *, discarded: bool = False) -> None:
    """Records a new expiry time for the result shared by a task and its followers.

    Args:
        discarded: whether a person discarded the result.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    sharing = {"$or": [{"_id": task_id}, {"shares": task_id}]}
    connections().tasks.update_many(
        sharing, {"$set": {"result_expires_at": expires_at, "result_discarded": discarded}, "$inc": {"version": 1}}
    )

"""The task documents in MongoDB: their fields, their allowed transitions, and single-document queries.

Every change of state is one update, and its filter matches only if the transition is allowed. Check and write are
therefore one atomic step, and a late write cannot overwrite a final state.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pymongo
from bson.errors import InvalidDocument
from celery import states
from kombu.exceptions import EncodeError
from pymongo.errors import DuplicateKeyError

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import TaskNotFound
from worker_tasks.infra.settings import settings
from worker_tasks.records import live
from worker_tasks.records.metadata import labels_of
from worker_tasks.records.old_documents import complete_document

FINAL_STATES = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED})
UNFINISHED_STATES = frozenset({states.PENDING, states.RECEIVED, states.STARTED, states.RETRY})
#: The final states that are never overwritten. A failure can still become a success if the task runs again.
IMMUTABLE_STATES = frozenset({states.SUCCESS, states.REVOKED})
#: The result of a cancelled task: an exception in Celery's format, which ``AsyncResult.get()`` raises.
CANCELLED = json.dumps(
    {"exc_type": "TaskRevokedError", "exc_message": ["cancelled"], "exc_module": "celery.exceptions"}
)
#: The fields that are reset when a finished task is submitted again.
RESUBMITTED_FIELDS = (
    "status",
    "queued_at",
    "date_done",
    "result",
    "traceback",
    "cancel_requested",
    "expires_at",
    "crashes",
)
#: The sort order of every list of tasks.
NEWEST_FIRST = [("queued_at", -1), ("_id", -1)]
#: A timeline keeps this many events, the newest ones.
TIMELINE_LENGTH = 50


class AlreadyLed(Exception):
    """Another unfinished task already leads the same join."""


class Claimed(NamedTuple):
    """A granted claim.

    ``attempt`` is the number of the new attempt. ``crashes`` is the number of consecutive attempts that did not end
    properly, including the new one.
    """

    attempt: int
    crashes: int


class Refused(NamedTuple):
    """A refused claim: the task is already in the final state ``status``."""

    status: str


def now() -> datetime:
    """The current time in UTC, cut to milliseconds as MongoDB stores it."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def new_document(
    task_id: str,
    name: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    queue: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    requested_by: str | None = None,
    join: Document | None = None,
    fingerprint: str | None = None,
) -> Document:
    """The document of a new, waiting task, with all fields that this application and Celery expect.

    One more field, ``leads``, exists only while the task leads the run of a join. It holds the fingerprint of the join.

    Args:
        queue: None for the default queue.
    """
    queued_at = now()
    return {
        "_id": task_id,
        "name": name,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "queue": queue,
        "metadata": dict(metadata or {}),
        # The metadata in a form that MongoDB can index: see metadata.py.
        "labels": labels_of(metadata or {}),
        "requested_by": requested_by,
        "join": join,
        "fingerprint": fingerprint,
        # The leader whose run this task follows.
        "shares": None,
        "plan": None,
        "status": states.PENDING,
        "queued_at": queued_at,
        "started_at": None,
        "date_done": None,
        "changed_at": queued_at,
        "attempt": 0,
        # Consecutive attempts that did not end properly, including the current one.
        "crashes": 0,
        # Celery's count of retries at the last attempt.
        "retries": 0,
        "worker": None,
        # Uses the format of Celery's result serializer, so that a stock MongoDB result backend can read the result.
        "result": "null",
        "traceback": None,
        "children": [],
        "timeline": [timeline_event(states.PENDING, at=queued_at)],
        "cancel_requested": False,
        "cancel_requested_at": None,
        # The number of operations that MongoDB was still running after the task was stopped.
        "left_in_mongodb": None,
        # The findings of the checks before submission: see checks.py.
        "checks": None,
        "partial": None,
        "result_bytes": None,
        "unmatched": None,
        "explanation": None,
        "result_expires_at": None,
        "result_discarded": False,
        "expires_at": queued_at + timedelta(days=settings().task_retention_days),
        "version": 1,
        # A token that changes with every write, so that polls notice the change.
        "revision": uuid4().hex,
    }


def record(document: Document) -> bool:
    """Inserts the document of a waiting task, unless an unfinished task has the same id.

    If a finished task has the same id, that task waits again and keeps its metadata.

    Returns:
        False if the task was already waiting or running.

    Raises:
        AlreadyLed: another task already leads the same join; nothing was recorded.
        pymongo.errors.PyMongoError: nothing was recorded, or the outcome of the write is unknown.
        kombu.exceptions.EncodeError: MongoDB cannot store the arguments or the metadata.
    """
    _require_server()
    try:
        inserted = connections().tasks.update_one({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)
    except (OverflowError, UnicodeError, InvalidDocument) as error:
        raise EncodeError(f"MongoDB cannot store the task: {error}") from error
    except DuplicateKeyError as error:
        if "leads" not in (error.details or {}).get("keyPattern", {}):
            raise
        raise AlreadyLed from error
    if inserted.upserted_id is not None:
        live.announce(document["_id"], document["revision"])
        return True
    finished = {"_id": document["_id"], "status": {"$in": sorted(FINAL_STATES)}}
    reset = {field: document[field] for field in RESUBMITTED_FIELDS}
    return write(finished, {"$set": reset}, timeline_event(states.PENDING, "submitted again"))


def withdraw(task: Document) -> bool:
    """Deletes the document of a task that was just recorded.

    Returns:
        False if the document has changed since.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the deletion is unknown.
    """
    as_recorded = {field: task[field] for field in ("_id", "status", "attempt", "version", "revision")}
    return connections().tasks.delete_one(as_recorded).deleted_count == 1


def transition(
    task_id: str,
    status: str,
    *,
    attempt: int | None = None,
    version: int | None = None,
    fields: Document | None = None,
    note: str | None = None,
) -> bool:
    """Moves a task to another state, if its current state allows that.

    Args:
        attempt: the attempt that reports the change. If a newer attempt has begun, nothing is written unless
            ``status`` is final.
        version: the version of the document that the caller has read. If the document has changed since, nothing is
            written.
        fields: more fields to set in the same write.
        note: a few words for the timeline.

    Returns:
        False if nothing was written, because the transition is not allowed or the attempt or version is outdated.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    allowed = transition_filter(task_id, status, attempt)
    if version is not None:
        allowed["version"] = version
    if status in {states.SUCCESS, states.FAILURE}:
        # The person who cancelled the task has already been told that it is cancelled.
        allowed["cancel_requested"] = {"$ne": True}
    change = {"$set": {"status": status, **(fields or {})}}
    if write(allowed, change, timeline_event(status, note), defaults=new_document(task_id)):
        return True
    if "cancel_requested" in allowed:
        cancelled = {"status": states.REVOKED, "result": CANCELLED, "date_done": now()}
        unfinished = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}, "cancel_requested": True}
        write(unfinished, {"$set": cancelled}, timeline_event(states.REVOKED, "cancelled as it ended"))
    return False


def give_back(task_id: str, note: str, attempt: int | None = None) -> bool:
    """Makes a task wait again because its worker has returned the message to the queue. See :func:`transition`."""
    return transition(task_id, states.PENDING, attempt=attempt, fields={"crashes": 0}, note=note)


def claim(
    task_id: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], worker: str, *, retries: int = 0
) -> Claimed | Refused:
    """Starts an attempt at a task, unless the task has ended or was cancelled. The check is part of the write.

    Creates a document for a task that another client published without one.

    Args:
        retries: Celery's own count of retries. Each new retry resets the count of crashes.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    _require_server()
    if retries:
        # Reset the count here, because Celery publishes the message of a retry before it stores the state RETRY.
        retried = {"_id": task_id, "retries": {"$ne": retries}}
        connections().tasks.update_one(retried, {"$set": {"retries": retries, "crashes": 0}})
    change, revision = _change(
        {
            "$set": {"status": states.STARTED, "name": name, "worker": worker, "started_at": now()},
            "$inc": {"attempt": 1, "crashes": 1},
        },
        timeline_event(states.STARTED, worker),
        new_document(task_id, name, args, kwargs),
    )
    allowed = transition_filter(task_id, states.STARTED) | {"cancel_requested": {"$ne": True}}
    started = _write_with_retry(
        lambda: connections().tasks.find_one_and_update(
            allowed,
            change,
            projection=["attempt", "crashes"],
            upsert=True,
            return_document=pymongo.ReturnDocument.AFTER,
        )
    )
    if started is not None:
        live.announce(task_id, revision)
        return Claimed(started["attempt"], started["crashes"])
    task = find_task(task_id)
    if task["status"] in FINAL_STATES:
        return Refused(task["status"])
    cancelled = {"date_done": now(), "result": CANCELLED}
    transition(task_id, states.REVOKED, fields=cancelled, note="cancelled before it began")
    return Refused(states.REVOKED)


def _require_server() -> None:
    """Pings MongoDB before a write that must not take effect after it was reported as failed.

    A frozen server carries out pending commands when it wakes up. Without the ping, it could then record a task that
    was refused, or count an attempt that never started.
    """
    connections().mongodb.admin.command("ping")


def request_cancellation(task_id: str) -> bool:
    """Records the request to cancel a task. If the task is still waiting, revokes it at once.

    Returns:
        False if the task had already ended.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    waiting = {"_id": task_id, "status": states.PENDING}
    request = {"cancel_requested": True, "cancel_requested_at": now()}
    revoked = {**request, "status": states.REVOKED, "date_done": now(), "result": CANCELLED}
    if write(waiting, {"$set": revoked}, timeline_event(states.REVOKED, "cancelled while it waited")):
        return True
    unfinished = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}}
    task = find_task(task_id)
    return write(unfinished, {"$set": request}, timeline_event(task["status"], "cancel requested"))


def transition_filter(task_id: str, status: str, attempt: int | None = None) -> Document:
    """A filter that matches the task's document if the task may move to this state."""
    if status in FINAL_STATES:
        return {"_id": task_id, "status": {"$nin": sorted(IMMUTABLE_STATES)}}
    unfinished: Document = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}}
    if attempt is not None:
        unfinished["attempt"] = {"$not": {"$gt": attempt}}
    return unfinished


def write(
    allowed: Document, update: Document, event: Document, defaults: Document | None = None, *, leads: bool = False
) -> bool:
    """Changes a task document, adds an event to its timeline, and announces the new revision.

    Args:
        allowed: the filter that the document must match.
        defaults: the document to insert if the task has none; by default, nothing is inserted.
        leads: whether the task continues to lead its join even if the update ends the task.

    Returns:
        False if the document does not match the filter.

    Raises:
        kombu.exceptions.EncodeError: MongoDB cannot store the update.
        pymongo.errors.DuplicateKeyError: another task already leads the same join.
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    change, revision = _change(update, event, defaults, leads=leads)
    written = _write_with_retry(lambda: connections().tasks.update_one(allowed, change, upsert=defaults is not None))
    if written is None or not (written.matched_count or written.upserted_id):
        return False
    live.announce(allowed["_id"], revision)
    return True


def _change(
    update: Document, event: Document, defaults: Document | None, *, leads: bool = False
) -> tuple[Document, str]:
    """The complete update and the new revision."""
    revision = uuid4().hex
    change = {
        **update,
        "$set": {"changed_at": event["at"], "revision": revision, **update["$set"]},
        "$inc": {"version": 1, **update.get("$inc", {})},
        "$push": {"timeline": {"$each": [event], "$slice": -TIMELINE_LENGTH}},
    }
    if change["$set"].get("status") in FINAL_STATES and not leads:
        change["$unset"] = {"leads": ""}
    if defaults is not None:
        changed = {"_id", "timeline", *change["$set"], *change["$inc"]}
        change["$setOnInsert"] = {field: value for field, value in defaults.items() if field not in changed}
    return change, revision


def _write_with_retry(operation: Callable[[], Any]) -> Any:
    """The result of the operation; None if the document exists and the operation's filter does not match it."""
    # If the filter does not match, an upsert tries to insert the document and fails because it exists. The second try
    # succeeds if another process has just inserted a matching document.
    for _ in range(2):
        try:
            return operation()
        except DuplicateKeyError as error:
            if "leads" in (error.details or {}).get("keyPattern", {}):
                raise
        except (OverflowError, UnicodeError, InvalidDocument) as error:
            raise EncodeError(f"MongoDB cannot store this: {error}") from error
    return None


def timeline_event(status: str, note: str | None = None, at: datetime | None = None) -> Document:
    return {"at": at or now(), "status": status, "note": note}


def find_task(task_id: str) -> Document:
    """The task document with this id, completed with missing fields.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    task = connections().tasks.find_one({"_id": task_id})
    if task is None:
        raise TaskNotFound
    return complete_document(task, new_document)

"""The task documents in MongoDB: their fields, their legal transitions, their queries.

Every change of a task's state goes through :func:`transition`. The rule of what may follow what stands in
its filter, so that checking and writing are one step and no late write lands on a final state.
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
#: A failure may still be mended by a repeated run that succeeds; these two are never overwritten.
IMMUTABLE_STATES = frozenset({states.SUCCESS, states.REVOKED})
#: The result of a cancelled task, as Celery writes an exception: ``get()`` raises what is stored here.
CANCELLED = json.dumps(
    {"exc_type": "TaskRevokedError", "exc_message": ["cancelled"], "exc_module": "celery.exceptions"}
)
#: What a task begins with again that is submitted again after its end.
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
#: The order of every list of tasks.
NEWEST_FIRST = [("queued_at", -1), ("_id", -1)]
#: Entries of a timeline that are kept, newest last.
TIMELINE_LENGTH = 50


class AlreadyLed(Exception):
    """Of all tasks that ask for the same join at the same time one leads."""


class Claimed(NamedTuple):
    """A claim that was granted: the ``attempt``-th beginning of the task, ``crashes`` of them in a row not ended."""

    attempt: int
    crashes: int


class Refused(NamedTuple):
    """A claim that was not granted, because the task is already in the final state ``status``."""

    status: str


def now() -> datetime:
    """This instant, in UTC, to the millisecond that MongoDB keeps."""
    instant = datetime.now(UTC)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


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
    """A waiting task's document with every field it will ever have, as Celery's own readers expect.

    ``queue`` is None for the default one. Beside them there is ``leads``, the fingerprint of the join that this task
    alone runs for all who ask for it, for as long as it is unfinished.
    """
    queued_at = now()
    return {
        "_id": task_id,
        "name": name,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "queue": queue,
        "metadata": dict(metadata or {}),
        # The same in a form that is found by an index: metadata.py.
        "labels": labels_of(metadata or {}),
        "requested_by": requested_by,
        "join": join,
        "fingerprint": fingerprint,
        # The task whose run answers this one, where it is not its own.
        "shares": None,
        "plan": None,
        "status": states.PENDING,
        "queued_at": queued_at,
        "started_at": None,
        "date_done": None,
        "changed_at": queued_at,
        "attempt": 0,
        # Beginnings in a row that did not end in order, this one included; and Celery's retries at the newest.
        "crashes": 0,
        "retries": 0,
        "worker": None,
        # As Celery's result serializer writes it, so that a stock MongoDB result backend reads it too.
        "result": "null",
        "traceback": None,
        "children": [],
        "timeline": [timeline_event(states.PENDING, at=queued_at)],
        "cancel_requested": False,
        "cancel_requested_at": None,
        # What MongoDB still had of it when it was stopped.
        "left_in_mongodb": None,
        # What was found out before it was submitted: checks.py.
        "checks": None,
        "partial": None,
        "result_bytes": None,
        "unmatched": None,
        "explanation": None,
        "result_expires_at": None,
        "result_discarded": False,
        "expires_at": queued_at + timedelta(days=settings().task_retention_days),
        "version": 1,
        # Another one after each change: what polls compare.
        "revision": uuid4().hex,
    }


def record(document: Document) -> bool:
    """Stores a waiting task's document, unless there is one of this id already.

    A finished task that is submitted again under its own id waits again, and keeps its metadata.

    Returns:
        Whether the task waits because of this call.

    Raises:
        AlreadyLed: another task runs the join that this one was to lead; nothing was recorded.
        pymongo.errors.PyMongoError: nothing was recorded, or it is not known to be.
        kombu.exceptions.EncodeError: MongoDB can not store these arguments or this metadata.
    """
    _ask_first()
    try:
        outcome = connections().tasks.update_one({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)
    except (OverflowError, UnicodeError, InvalidDocument) as error:
        raise EncodeError(f"MongoDB can not store the task: {error}") from error
    except DuplicateKeyError as error:
        if "leads" not in (error.details or {}).get("keyPattern", {}):
            raise
        raise AlreadyLed from error
    if outcome.upserted_id is not None:
        live.announce(document["_id"], document["revision"])
        return True
    finished = {"_id": document["_id"], "status": {"$in": sorted(FINAL_STATES)}}
    anew = {field: document[field] for field in RESUBMITTED_FIELDS}
    return write(finished, {"$set": anew}, timeline_event(states.PENDING, "submitted again"))


def withdraw(task: Document) -> bool:
    """Deletes the document of a task that was recorded just now; False where anything happened to it since.

    Raises:
        pymongo.errors.PyMongoError: not known to be deleted.
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
    """Moves a task to another state, if that may follow the state it is in.

    Args:
        attempt: which beginning of the task reports this; one older than the newest is not heard.
        version: the version that this was decided on; if the task changed since, nothing happens.
        fields: what else to set, in the same write.
        note: a few words for the timeline.

    Returns:
        False where the state may not be left, or belongs to a newer attempt; nothing was written then.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    allowed = transition_filter(task_id, status, attempt)
    if version is not None:
        allowed["version"] = version
    if status in {states.SUCCESS, states.FAILURE}:
        # The person who cancelled it was told so.
        allowed["cancel_requested"] = {"$ne": True}
    change = {"$set": {"status": status, **(fields or {})}}
    if write(allowed, change, timeline_event(status, note), born=new_document(task_id)):
        return True
    if "cancel_requested" in allowed:
        cancelled = {"status": states.REVOKED, "result": CANCELLED, "date_done": now()}
        unfinished = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}, "cancel_requested": True}
        write(unfinished, {"$set": cancelled}, timeline_event(states.REVOKED, "cancelled as it ended"))
    return False


def give_back(task_id: str, note: str, attempt: int | None = None) -> bool:
    """As :func:`transition`: lets a task wait again whose message went back to the queue in order, not by a crash."""
    return transition(task_id, states.PENDING, attempt=attempt, fields={"crashes": 0}, note=note)


def claim(
    task_id: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], worker: str, *, retries: int = 0
) -> Claimed | Refused:
    """Begins a task: one conditional write, which no final and no cancelled task passes.

    A task that nobody recorded, because a foreign client published it, gets its document here. Crashes are counted
    anew after each of Celery's own ``retries``.

    Raises:
        pymongo.errors.PyMongoError: not known to be claimed.
    """
    _ask_first()
    if retries:
        # Not left to the write that stores RETRY: the message of a retry is published before that.
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
    begun = _tried(
        lambda: connections().tasks.find_one_and_update(
            allowed,
            change,
            projection=["attempt", "crashes"],
            upsert=True,
            return_document=pymongo.ReturnDocument.AFTER,
        )
    )
    if begun is not None:
        live.announce(task_id, revision)
        return Claimed(begun["attempt"], begun["crashes"])
    task = find_task(task_id)
    if task["status"] in FINAL_STATES:
        return Refused(task["status"])
    cancelled = {"date_done": now(), "result": CANCELLED}
    transition(task_id, states.REVOKED, fields=cancelled, note="cancelled before it began")
    return Refused(states.REVOKED)


def _ask_first() -> None:
    """Sends a question before a write that must not happen once it was reported as failed.

    A server that is frozen carries out what it was sent when it wakes up: a task that was refused would be there
    after all, and a beginning would be counted that was none.
    """
    connections().mongodb.admin.command("ping")


def amend(task_id: str, fields: Document, note: str | None = None) -> bool:
    """Sets fields of an unfinished task beside its state; False where it is finished.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: not known to be written.
    """
    unfinished = {"_id": task_id, "status": {"$in": sorted(UNFINISHED_STATES)}}
    return write(unfinished, {"$set": fields}, timeline_event(find_task(task_id)["status"], note))


def request_cancellation(task_id: str) -> bool:
    """Notes that a task is no longer wanted; one that still waits is revoked at once.

    Returns:
        False where the task had come to its end already.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: not known to be noted.
    """
    waiting = {"_id": task_id, "status": states.PENDING}
    asked = {"cancel_requested": True, "cancel_requested_at": now()}
    revoked = {**asked, "status": states.REVOKED, "date_done": now(), "result": CANCELLED}
    if write(waiting, {"$set": revoked}, timeline_event(states.REVOKED, "cancelled while it waited")):
        return True
    begun = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}}
    task = find_task(task_id)
    return write(begun, {"$set": asked}, timeline_event(task["status"], "cancel requested"))


def transition_filter(task_id: str, status: str, attempt: int | None = None) -> Document:
    """The filter that the task document passes exactly if it may take this state."""
    if status in FINAL_STATES:
        return {"_id": task_id, "status": {"$nin": sorted(IMMUTABLE_STATES)}}
    unfinished: Document = {"_id": task_id, "status": {"$nin": sorted(FINAL_STATES)}}
    if attempt is not None:
        unfinished["attempt"] = {"$not": {"$gt": attempt}}
    return unfinished


def write(
    allowed: Document, update: Document, event: Document, born: Document | None = None, *, leads: bool = False
) -> bool:
    """The one place where a task document changes; False where ``allowed`` does not match.

    ``born`` holds the fields of a document that has to be made first; one that ends goes on to lead only if it
    ``leads``.
    """
    change, revision = _change(update, event, born, leads=leads)
    written = _tried(lambda: connections().tasks.update_one(allowed, change, upsert=born is not None))
    if written is None or not (written.matched_count or written.upserted_id):
        return False
    live.announce(allowed["_id"], revision)
    return True


def _change(update: Document, event: Document, born: Document | None, *, leads: bool = False) -> tuple[Document, str]:
    """The whole update, and the revision that it makes."""
    revision = uuid4().hex
    change = {
        **update,
        "$set": {"changed_at": event["at"], "revision": revision, **update["$set"]},
        "$inc": {"version": 1, **update.get("$inc", {})},
        "$push": {"timeline": {"$each": [event], "$slice": -TIMELINE_LENGTH}},
    }
    if change["$set"].get("status") in FINAL_STATES and not leads:
        change["$unset"] = {"leads": ""}
    if born is not None:
        changed = {"_id", "timeline", *change["$set"], *change["$inc"]}
        change["$setOnInsert"] = {field: value for field, value in born.items() if field not in changed}
    return change, revision


def _tried(write: Callable[[], Any]) -> Any:
    # An upsert whose filter does not match tries to insert and meets the document that is there. The
    # second try tells that case from another process having inserted it in this very moment.
    for _ in range(2):
        try:
            return write()
        except DuplicateKeyError as error:
            if "leads" in (error.details or {}).get("keyPattern", {}):
                raise
        except (OverflowError, UnicodeError, InvalidDocument) as error:
            raise EncodeError(f"MongoDB can not store this: {error}") from error
    return None


def timeline_event(status: str, note: str | None = None, at: datetime | None = None) -> Document:
    return {"at": at or now(), "status": status, "note": note}


def find_task(task_id: str) -> Document:
    """The task document of this id.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    task = connections().tasks.find_one({"_id": task_id})
    if task is None:
        raise TaskNotFound
    return complete_document(task, new_document)


def set_metadata(task_id: str, metadata: Document, version: int) -> bool:
    """Replaces the metadata of a task, finished or not, unless it changed since this version.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    unchanged = {"_id": task_id, "version": version}
    event = timeline_event(find_task(task_id)["status"], "metadata changed")
    return write(unchanged, {"$set": {"metadata": metadata, "labels": labels_of(metadata)}}, event)


def set_expiry(task_id: str, expires_at: datetime, *, discarded: bool = False) -> None:
    """Notes another instant at which the result of this task, and of all that share it, is gone.

    Args:
        discarded: whether somebody wanted it so.

    Raises:
        pymongo.errors.PyMongoError: not known to be noted.
    """
    sharing = {"$or": [{"_id": task_id}, {"shares": task_id}]}
    connections().tasks.update_many(
        sharing, {"$set": {"result_expires_at": expires_at, "result_discarded": discarded}, "$inc": {"version": 1}}
    )

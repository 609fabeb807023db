"""Reads many task documents: lists for people, newest first, by what they are; what waits; who shares a run."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from celery import states
from pymongo.errors import ExecutionTimeout

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import SearchTooSlow, TookTooLong
from worker_tasks.records.ledger import NEWEST_FIRST, UNFINISHED_STATES, new_document
from worker_tasks.records.metadata import label_of
from worker_tasks.records.old_documents import complete_document

#: Seconds that a search may take: a text is looked for in every document.
SEARCH_SECONDS = 1.5
#: What stands between key and value in a label, as a regular expression has it.
LABEL_SEPARATOR = r"\x00"


class Cursor(NamedTuple):
    """The place of a task document in the order newest first."""

    queued_at: datetime
    task_id: str


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks are wanted; what is None or empty does not matter.

    ``status`` is a stored state; ``labels`` are keys of the metadata with their values, as text; ``keys`` are keys with
    any value, and ``value`` occurs in the value of any key. ``fingerprint`` names a join; each of ``words`` occurs in
    the id, name, arguments, collections or metadata; ``since`` and ``until`` bound the instant of asking.
    """

    status: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    requested_by: str | None = None
    fingerprint: str | None = None
    words: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    value: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> Iterator[Document]:
        """As MongoDB's filters, all of which must be met."""
        for field, value in (
            ("status", self.status),
            ("requested_by", self.requested_by),
            ("fingerprint", self.fingerprint),
        ):
            if value is not None:
                yield {field: value}
        yield from ({"labels": label_of(key, value)} for key, value in self.labels)
        yield from ({"labels": {"$regex": f"^{re.escape(key)}{LABEL_SEPARATOR}"}} for key in self.keys)
        if self.value is not None:
            yield {"labels": {"$regex": f"{LABEL_SEPARATOR}.*{re.escape(self.value)}", "$options": "is"}}
        if self.since is not None:
            yield {"queued_at": {"$gte": self.since}}
        if self.until is not None:
            yield {"queued_at": {"$lt": self.until}}
        yield from map(_containing, self.words)

    @property
    def needs_full_scan(self) -> bool:
        """Whether no index finds what is wanted."""
        return bool(self.words) or self.value is not None


def _containing(text: str) -> Document:
    pattern = {"$regex": re.escape(text), "$options": "i"}
    return {"$or": [{field: pattern} for field in ("_id", "name", "args", "join.from", "join.joins.from", "labels")]}


def _older_than(cursor: Cursor) -> Document:
    return {
        "$or": [
            {"queued_at": {"$lt": cursor.queued_at}},
            {"queued_at": cursor.queued_at, "_id": {"$lt": cursor.task_id}},
        ]
    }


def search(wanted: TaskFilter, limit: int, after: Cursor | None = None) -> list[Document]:
    """At most ``limit`` task documents, newest first, from behind the cursor on, within ``SEARCH_SECONDS``.

    Raises:
        SearchTooSlow: it took longer.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    conditions = [*wanted.conditions(), *([_older_than(after)] if after is not None else [])]
    query = {"$and": conditions} if conditions else {}
    try:
        with within(SEARCH_SECONDS):
            found = connections().tasks.find(query).sort(NEWEST_FIRST).limit(limit)
            return [complete_document(task, new_document) for task in found]
    except TookTooLong as error:
        if wanted.needs_full_scan and isinstance(error.__cause__, ExecutionTimeout):
            raise SearchTooSlow from error
        raise error.__cause__ or error from None


def _newest(fields: Sequence[str], limit: int) -> list[Document]:
    found = connections().tasks.find({}, fields).sort(NEWEST_FIRST).limit(limit)
    return [complete_document(task, new_document) for task in found]


def _keys_of(tasks: list[Document]) -> list[str]:
    """The keys of metadata among these tasks, the most frequent first."""
    return [key for key, _ in Counter(key for task in tasks for key in task["metadata"]).most_common()]


def metadata_keys(of_newest: int = 200) -> list[str]:
    """The keys of metadata among the newest tasks, the most frequent first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return _keys_of(_newest(["metadata"], of_newest))


class FilterChoices(NamedTuple):
    """What the newest tasks can be found by: keys of metadata, the most frequent first; people; a task of each join."""

    metadata_keys: list[str]
    people: list[str]
    joins: list[Document]


def filter_choices(of_newest: int = 200) -> FilterChoices:
    """What the newest tasks can be found by.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    needed = ["name", "args", "kwargs", "metadata", "join", "fingerprint", "requested_by"]
    tasks = _newest(needed, of_newest)
    people = {task["requested_by"] for task in tasks if task.get("requested_by")}
    # Oldest first, so that of each join the newest stays.
    joins = {task["fingerprint"]: task for task in reversed(tasks) if task.get("fingerprint")}
    return FilterChoices(_keys_of(tasks), sorted(people), list(joins.values()))


def previous_run(task: Document) -> Document | None:
    """The newest run of the same join that was asked for before this one and did its work; None where there is none.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    if not task.get("fingerprint"):
        return None
    before = _older_than(Cursor(task["queued_at"], task["_id"]))
    # One that shared a run has no result of its own.
    done = {"fingerprint": task["fingerprint"], "status": states.SUCCESS, "shares": None, **before}
    return next(iter(connections().tasks.find(done).sort(NEWEST_FIRST).limit(1)), None)


def count_tasks_ahead(task: Document, most: int = 1_000) -> int:
    """How many tasks wait in the same queue since before this one; counted up to ``most``.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    before = {"status": states.PENDING, "queue": task["queue"], "shares": None, "queued_at": {"$lt": task["queued_at"]}}
    return connections().tasks.count_documents(before, limit=most)


def average_seconds(of_newest: int = 20) -> float | None:
    """How long the tasks took that ended lately, from start to end, on average; None where none did.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    ended = {"status": states.SUCCESS, "started_at": {"$ne": None}, "date_done": {"$ne": None}}
    # By the index of the states: however many wait, none of them is looked at.
    latest = connections().tasks.find(ended, {"started_at": True, "date_done": True}).sort("changed_at", -1)
    tasks = latest.hint([("status", 1), ("changed_at", 1)]).limit(of_newest)
    took = [(task["date_done"] - task["started_at"]).total_seconds() for task in tasks]
    return sum(took) / len(took) if took else None


def unchanged_since(before: datetime) -> Iterator[Document]:
    """The unfinished tasks that nothing happened to since this instant, the longest first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    quiet = {"status": {"$in": sorted(UNFINISHED_STATES)}, "changed_at": {"$lt": before}}
    found = connections().tasks.find(quiet).sort("changed_at", 1).hint([("status", 1), ("changed_at", 1)])
    yield from (complete_document(task, new_document) for task in found)


def active_queues() -> list[str | None]:
    """The queues of all unfinished tasks; None is the default one.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return connections().tasks.distinct("queue", {"status": {"$in": sorted(UNFINISHED_STATES)}})


def filter_unchanged(tasks: list[Document]) -> list[Document]:
    """Those of these tasks that have not changed since they were read.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    versions = {task["_id"]: task["version"] for task in tasks}
    found = connections().tasks.find({"_id": {"$in": list(versions)}})
    return [
        whole for task in found if (whole := complete_document(task, new_document))["version"] == versions[task["_id"]]
    ]


def leader_of(fingerprint: str) -> Document | None:
    """The task that runs this join now.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return connections().tasks.find_one({"leads": fingerprint})


def followers_of(task_id: str) -> list[Document]:
    """The unfinished tasks that the run of this one is to answer, the longest waiting first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    waiting = {"shares": task_id, "status": {"$in": sorted(UNFINISHED_STATES)}}
    return list(connections().tasks.find(waiting).sort("queued_at", 1))

"""Queries over many task documents: filtered lists, waiting tasks, and the leader and followers of a run."""

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

#: Time limit of a search, in seconds. A search for text reads every document.
SEARCH_SECONDS = 1.5
#: The fields in which a word is searched for. A collection's name stands in ``from`` itself, or inside it.
SEARCHED_FIELDS = (
    "_id",
    "name",
    "args",
    "join.from",
    "join.from.collection",
    "join.joins.from",
    "join.joins.from.collection",
    "labels",
)
#: The separator of key and value in a label, as a regular expression.
LABEL_SEPARATOR = r"\x00"


class Cursor(NamedTuple):
    """The position of a task document in a list, newest first."""

    queued_at: datetime
    task_id: str


@dataclass(frozen=True)
class TaskFilter:
    """Conditions that a task must meet. A condition that is None or empty is ignored.

    Attributes:
        status: the stored state.
        labels: metadata keys with their values, as text.
        fingerprint: the fingerprint of the join.
        words: strings that must all occur in the id, name, arguments, collections or metadata.
        keys: metadata keys that must exist, with any value.
        value: text that must occur in the value of some metadata key.
        since: the earliest time of submission.
        until: the time before which the task must have been submitted.
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
        """Yields MongoDB filters. A task must match every one of them."""
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
        """Whether MongoDB must read every document, because no index supports the filter."""
        return bool(self.words) or self.value is not None


def _containing(text: str) -> Document:
    pattern = {"$regex": re.escape(text), "$options": "i"}
    return {"$or": [{field: pattern} for field in SEARCHED_FIELDS]}


def _older_than(cursor: Cursor) -> Document:
    return {
        "$or": [
            {"queued_at": {"$lt": cursor.queued_at}},
            {"queued_at": cursor.queued_at, "_id": {"$lt": cursor.task_id}},
        ]
    }


def search(task_filter: TaskFilter, limit: int, after: Cursor | None = None) -> list[Document]:
    """At most ``limit`` task documents after the cursor, newest first.

    Raises:
        SearchTooSlow: a search for text took longer than ``SEARCH_SECONDS``.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    conditions = [*task_filter.conditions(), *([_older_than(after)] if after is not None else [])]
    query = {"$and": conditions} if conditions else {}
    try:
        with within(SEARCH_SECONDS):
            tasks = connections().tasks.find(query).sort(NEWEST_FIRST).limit(limit)
            return [complete_document(task, new_document) for task in tasks]
    except TookTooLong as error:
        if task_filter.needs_full_scan and isinstance(error.__cause__, ExecutionTimeout):
            raise SearchTooSlow from error
        raise error.__cause__ or error from None


def _newest(fields: Sequence[str], limit: int) -> list[Document]:
    tasks = connections().tasks.find({}, fields).sort(NEWEST_FIRST).limit(limit)
    return [complete_document(task, new_document) for task in tasks]


def _keys_of(tasks: list[Document]) -> list[str]:
    """The metadata keys of these tasks, the most frequent first."""
    return [key for key, _ in Counter(key for task in tasks for key in task["metadata"]).most_common()]


def metadata_keys(of_newest: int = 200) -> list[str]:
    """The metadata keys of the newest tasks, the most frequent first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return _keys_of(_newest(["metadata"], of_newest))


class FilterChoices(NamedTuple):
    """Suggestions for filters: metadata keys (the most frequent first), people, and the newest task of each join."""

    metadata_keys: list[str]
    people: list[str]
    joins: list[Document]


def filter_choices(of_newest: int = 200) -> FilterChoices:
    """Suggestions for filters from the newest tasks.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    needed = ["name", "args", "kwargs", "metadata", "join", "fingerprint", "requested_by"]
    tasks = _newest(needed, of_newest)
    people = {task["requested_by"] for task in tasks if task.get("requested_by")}
    # Oldest first, so that the newest task of each join wins.
    joins = {task["fingerprint"]: task for task in reversed(tasks) if task.get("fingerprint")}
    return FilterChoices(_keys_of(tasks), sorted(people), list(joins.values()))


def previous_run(task: Document) -> Document | None:
    """The newest successful run of the same join that was submitted before this task; None if there is none.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    if not task.get("fingerprint"):
        return None
    before = _older_than(Cursor(task["queued_at"], task["_id"]))
    # A follower has no result of its own.
    succeeded = {"fingerprint": task["fingerprint"], "status": states.SUCCESS, "shares": None, **before}
    return next(iter(connections().tasks.find(succeeded).sort(NEWEST_FIRST).limit(1)), None)


def count_tasks_ahead(task: Document, limit: int = 1_000) -> int:
    """Counts the tasks that have waited longer in the same queue, up to ``limit``.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    before = {"status": states.PENDING, "queue": task["queue"], "shares": None, "queued_at": {"$lt": task["queued_at"]}}
    return connections().tasks.count_documents(before, limit=limit)


def average_seconds(of_newest: int = 20) -> float | None:
    """The average duration of the latest successful tasks, in seconds; None if there are none.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    ended = {"status": states.SUCCESS, "started_at": {"$ne": None}, "date_done": {"$ne": None}}
    # The hint keeps MongoDB from reading the waiting tasks, which can be numerous.
    latest = connections().tasks.find(ended, {"started_at": True, "date_done": True}).sort("changed_at", -1)
    tasks = latest.hint([("status", 1), ("changed_at", 1)]).limit(of_newest)
    durations = [(task["date_done"] - task["started_at"]).total_seconds() for task in tasks]
    return sum(durations) / len(durations) if durations else None


def unchanged_since(before: datetime) -> Iterator[Document]:
    """Yields the unfinished tasks whose last change was before this time, the oldest first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    quiet = {"status": {"$in": sorted(UNFINISHED_STATES)}, "changed_at": {"$lt": before}}
    tasks = connections().tasks.find(quiet).sort("changed_at", 1).hint([("status", 1), ("changed_at", 1)])
    yield from (complete_document(task, new_document) for task in tasks)


def active_queues() -> list[str | None]:
    """The queues of all unfinished tasks; None stands for the default queue.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return connections().tasks.distinct("queue", {"status": {"$in": sorted(UNFINISHED_STATES)}})


def filter_unchanged(tasks: list[Document]) -> list[Document]:
    """Reads these tasks again. Returns those that have not changed since the caller read them.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    versions = {task["_id"]: task["version"] for task in tasks}
    current = (
        complete_document(task, new_document) for task in connections().tasks.find({"_id": {"$in": list(versions)}})
    )
    return [task for task in current if task["version"] == versions[task["_id"]]]


def leader_of(fingerprint: str) -> Document | None:
    """The task that leads the current run of a join; None if there is none.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return connections().tasks.find_one({"leads": fingerprint})


def followers_of(task_id: str) -> list[Document]:
    """The unfinished tasks that follow this task's run. The one that has waited longest comes first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    waiting = {"shares": task_id, "status": {"$in": sorted(UNFINISHED_STATES)}}
    return list(connections().tasks.find(waiting).sort("queued_at", 1))

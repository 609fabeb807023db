"""Compares listing the newest of a million task documents with a thousand, and searches the million by metadata."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from benchmarks.stack import Row, Servers, amount, ratio, timed
from worker_tasks import release
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger, task_search
from worker_tasks.records.metadata import label_of

FEW, MANY = 1_000, 1_000_000
SEARCHES = 40


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    connections().tasks.delete_many({})
    _fill(0, FEW)
    few = _timed(repeats, task_search.TaskFilter(), 50)
    _fill(FEW, MANY)
    many = _timed(repeats, task_search.TaskFilter(), 50)
    yield ratio("50 newest of 1,000,000 task documents, against 50 of 1,000", "<= 1.5", many, few)
    yield from _searches(repeats)
    connections().tasks.drop()
    release.ensure_indexes()


def _searches(repeats: int) -> Iterator[Row]:
    """Searches a million documents by metadata, for the first page and for a page after the 500,000th document."""
    middle = connections().tasks.find_one({"_id": f"task {MANY // 2}"}, {"queued_at": True})
    if middle is None:
        raise RuntimeError("the tasks are missing")
    deep = task_search.Cursor(middle["queued_at"], middle["_id"])
    filters = {
        "1 in 10,000 matches": task_search.TaskFilter(labels=(("ticket", "T-7"),)),
        "all match": task_search.TaskFilter(labels=(("reason", "measured"),)),
    }
    for name, criteria in filters.items():
        first = _timed(repeats, criteria, 51)
        later = _timed(repeats, criteria, 51, deep)
        yield amount(f"search of 1,000,000 tasks by metadata, {name}: first page", "<= 0.1", first, "s")
        yield ratio(
            f"search of 1,000,000 tasks by metadata, {name}: a middle page, against the first", "<= 1.5", later, first
        )


def _timed(
    repeats: int, criteria: task_search.TaskFilter, limit: int, after: task_search.Cursor | None = None
) -> list[float]:
    """The seconds of each search."""
    return [timed(partial(task_search.search, criteria, limit, after)) for _ in range(repeats * SEARCHES)]


def _fill(start: int, end: int) -> None:
    pattern = ledger.new_document("", "benchmarks.nothing", ["x"], metadata={"reason": "measured"})
    plain = pattern["labels"]
    for first in range(start, end, 10_000):
        connections().tasks.insert_many(
            [
                {
                    **pattern,
                    "_id": f"task {number}",
                    "queued_at": pattern["queued_at"] + timedelta(milliseconds=number),
                    "labels": [*plain, label_of("ticket", f"T-{number % 10_000}")],
                }
                for number in range(first, min(end, first + 10_000))
            ],
            ordered=False,
        )

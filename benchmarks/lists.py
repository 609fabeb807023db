"""The newest of a million task documents against the newest of a thousand; and those with one key of metadata."""

from collections.abc import Iterator
from datetime import timedelta

from benchmarks.stack import Row, Servers, amount, ratio, timed
from worker_tasks import release
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger, task_search
from worker_tasks.records.metadata import label_of

FEW, MANY = 1_000, 1_000_000
LOOKS = 40


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    connections().tasks.delete_many({})
    _fill(0, FEW)
    few = [timed(lambda: task_search.search(task_search.TaskFilter(), 50)) for _ in range(repeats * LOOKS)]
    _fill(FEW, MANY)
    many = [timed(lambda: task_search.search(task_search.TaskFilter(), 50)) for _ in range(repeats * LOOKS)]
    yield ratio("50 newest of 1,000,000 task documents, against 50 of 1,000", "<= 1.5", many, few)
    yield from _found(repeats)
    connections().tasks.drop()
    release.ensure_indexes()


def _found(repeats: int) -> Iterator[Row]:
    """What people look for in a million, each with the instant of the 500,000th as a deep page."""
    middle = connections().tasks.find_one({"_id": f"task {MANY // 2}"}, {"queued_at": True})
    if middle is None:
        raise RuntimeError("the tasks are not there")
    deep = task_search.Cursor(middle["queued_at"], middle["_id"])
    looks = {
        "one in ten thousand": task_search.TaskFilter(labels=(("ticket", "T-7"),)),
        "every one": task_search.TaskFilter(labels=(("reason", "measured"),)),
    }
    for name, wanted in looks.items():
        first = [timed(lambda wanted=wanted: task_search.search(wanted, 51)) for _ in range(repeats * LOOKS)]  # type: ignore[misc]
        later = [timed(lambda wanted=wanted: task_search.search(wanted, 51, deep)) for _ in range(repeats * LOOKS)]  # type: ignore[misc]
        yield amount(f"metadata that {name} of 1,000,000 has: first page", "<= 0.1", first, "s")
        yield ratio(
            f"metadata that {name} of 1,000,000 has: a page in the middle, against the first", "<= 1.5", later, first
        )


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

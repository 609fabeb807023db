"""The 50 newest of a million task documents, against the 50 newest of a thousand."""

from collections.abc import Iterator
from datetime import timedelta

from benchmarks.stack import Row, Servers, ratio, timed
from worker_tasks import finding, ledger
from worker_tasks.connections import connections

FEW, MANY = 1_000, 1_000_000
LOOKS = 40


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    ledger.ensure_indexes()
    connections().tasks.delete_many({})
    _fill(0, FEW)
    few = [timed(lambda: finding.newest(50)) for _ in range(repeats * LOOKS)]
    _fill(FEW, MANY)
    many = [timed(lambda: finding.newest(50)) for _ in range(repeats * LOOKS)]
    connections().tasks.drop()
    ledger.ensure_indexes()
    yield ratio("50 newest of 1,000,000 task documents, against 50 of 1,000", "<= 1.5", many, few)


def _fill(start: int, end: int) -> None:
    pattern = ledger.new_document("", "benchmarks.nothing", ["x"], metadata={"reason": "measured"})
    for first in range(start, end, 10_000):
        connections().tasks.insert_many(
            [
                pattern | {"_id": f"task {number}", "queued_at": pattern["queued_at"] + timedelta(milliseconds=number)}
                for number in range(first, min(end, first + 10_000))
            ],
            ordered=False,
        )

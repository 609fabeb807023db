"""Compares joins of four times the data with joins of the data once: their time, and the peak memory of the worker.

Flights with planes stream through the join. Orders with users are read whole before DuckDB joins them.
"""

import os
from collections import defaultdict
from collections.abc import Iterator

from benchmarks import baselines, runs
from benchmarks.bulk import Peak
from benchmarks.methods import PLANES
from benchmarks.stack import Row, Servers, amount, fill, ratio, timed
from development.samples.loading import load
from worker_tasks import release


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    load(os.environ["MONGODB_URI"], ["flights"])
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    peaks: dict[tuple[str, int], list[float]] = defaultdict(list)
    for factor in (1, 4):
        _grow(factor)
        for name, join in _joins().items():
            for _ in range(repeats):
                with servers.worker(1, RESULT_MAX_MIB="511") as process, Peak(process) as peak:
                    times[name, factor].append(timed(lambda join=join: runs.run(join)))  # type: ignore[misc]
                peaks[name, factor].append(peak.growth)
    for name in _joins():
        yield ratio(f"{name}: time of 4 x the data, against 1 x", "<= 4.5", times[name, 4], times[name, 1])
        yield amount(f"{name}: peak memory above idle with 4 x the data", "<= 450", peaks[name, 4], "MiB")
        yield ratio(f"{name}: peak memory of 4 x the data, against 1 x", "flat", peaks[name, 4], peaks[name, 1], "MiB")


def _grow(factor: int) -> None:
    database = baselines.mongodb()
    database.flights.flights_again.drop()
    for _ in range(factor):
        copied = [{"$unset": "_id"}, {"$merge": {"into": "flights_again", "whenMatched": "fail"}}]
        database.flights.flights.aggregate(copied)
    fill(database.bench, 100_000 * factor, 1_000_000 * factor)


def _joins() -> dict[str, runs.Join]:
    """The joins, with few fields each, so that the results fit into Redis."""
    user = {"from": "users", "as": "user", "shape": "first", "on": [{"local": "userId", "foreign": "_id"}]}
    return {
        "flights with planes": PLANES | {"from": "flights_again", "fields": ["carrier", "flight", "plane.model"]},
        "orders with users": {"database": "bench", "from": "orders", "joins": [user], "fields": ["amount", "user"]},
    }

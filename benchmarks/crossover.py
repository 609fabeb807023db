"""Runs the same joins by lookup and by scan over a growing number of left documents, in one process.

The crossovers, and the seconds per document and byte, give the constants of worker_tasks/joins/plan/strategy.py.
"""

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import baselines
from benchmarks.stack import Row, Servers, fill, ratio, timed
from development.samples.loading import load
from worker_tasks import release
from worker_tasks.joins.plan import strategy
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.reading.batches import ReadQuery
from worker_tasks.joins.reading.progress import Progress
from worker_tasks.joins.run.execution import write_aggregation
from worker_tasks.joins.scan.scan import ScanQuery, write_scan
from worker_tasks.joins.spec.spec import JoinSpec, parse
from worker_tasks.results.result_writer import PartWriter

SECONDS = 300.0
RUN = "crossover"
SHARES = (0.03, 0.3)
USERS, ORDER_COUNT = 20_000, 200_000
PLANE = {"from": "planes", "as": "plane", "on": [{"local": "tailnum", "foreign": "tailnum"}]}
ORDERS = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
WEATHER = {
    "from": "weather",
    "as": "weather",
    "on": [{"local": name, "foreign": name} for name in ("origin", "year", "month", "day", "hour")],
}
#: The left collection, the field of the filter with the number of its values, and the join.
JOINS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "flights, planes as first": ("flights", "flight", PLANE | {"shape": "first"}),
    "flights, planes as rows": ("flights", "flight", PLANE | {"kind": "inner", "shape": "rows"}),
    "flights, weather as rows": ("flights", "flight", WEATHER | {"kind": "inner", "shape": "rows"}),
    "users, orders as lists": ("bench", "number", ORDERS | {"shape": "array"}),
    "users, orders counted": ("bench", "number", ORDERS | {"shape": "count"}),
    "users, orders as rows": ("bench", "number", ORDERS | {"kind": "inner", "shape": "rows"}),
}
LEFT = {"flights": "flights", "bench": "users"}


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    load(os.environ["MONGODB_URI"], ["flights"])
    bench = baselines.mongodb().bench
    fill(bench, USERS, ORDER_COUNT)
    bench.users.update_many({}, [{"$set": {"number": {"$toInt": {"$substrBytes": ["$_id", 1, 6]}}}}])
    for name, (database, field, join) in JOINS.items():
        values = sorted(row[field] for row in baselines.mongodb()[database][LEFT[database]].find({}, {field: 1}))
        for share in SHARES:
            limit = values[int(share * len(values)) - 1]
            match = {} if share == 1 else {"match": {field: {"$lte": limit}}}
            spec = parse({"database": database, "from": LEFT[database], "joins": [join], **match})
            yield _compared(f"{name}, {share:.0%}", spec, repeats)


def _compared(name: str, spec: JoinSpec, repeats: int) -> Row:
    catalog = Catalog(spec)
    chosen = strategy.choose_strategy(spec, catalog, SECONDS)
    took: dict[str, list[float]] = {"lookup": [], "scan": []}
    for _ in range(repeats):
        took["lookup"].append(timed(lambda: _look_up(spec, catalog)))
        took["scan"].append(timed(lambda: _scan(spec)))
    estimates = strategy.lookup_seconds(spec, catalog), strategy.scan_seconds(spec, catalog)
    left, size = catalog.left_count, catalog.left_size
    print(
        f"    {left:,} left documents, {size / 2**20:,.0f} MiB of their collection; chosen: {chosen.method};", end=" "
    )
    print(f"estimates {estimates[0]:.2f} and {estimates[1]:.2f} s", end="; ")
    print(f"per left document {statistics.median(took['lookup']) / left * 1e6:.1f} us by lookup")
    return ratio(f"{name}: by lookup, against a scan", "", took["lookup"], took["scan"])


def _look_up(spec: JoinSpec, catalog: Catalog) -> None:
    steps = strategy.lookup_steps(spec, catalog)
    plan = strategy.Strategy(strategy.JoinMethod.LOOKUP, None, None, steps)
    read = ReadQuery(spec.left, compile_pipeline(spec, plan), f"dovetail:{RUN}", time.monotonic() + SECONDS)
    writer = _writer()
    write_aggregation(read, [], writer, Progress(writer, lambda *_: False))
    writer.discard()


def _scan(spec: JoinSpec) -> None:
    writer = _writer()
    write_scan(ScanQuery(spec, f"dovetail:{RUN}"), writer, Progress(writer, lambda *_: False))
    writer.discard()


def _writer() -> PartWriter:
    return PartWriter(RUN, 0, 10**8, 2**31)

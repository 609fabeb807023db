"""Compares the chosen join method with every other valid one, on the same join."""

from collections.abc import Iterator
from typing import Any

from benchmarks import baselines
from benchmarks.stack import Row, Servers, fill, ratio, timed
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import match_stages
from worker_tasks.joins.plan.strategy import JoinMethod, Strategy, choose_strategy, is_correct, make_step
from worker_tasks.joins.spec.kinds import KINDS
from worker_tasks.joins.spec.spec import JoinSpec, parse_spec

USERS, ORDERS, TAGS = 20_000, 60_000, 2_000
BEARABLE_SECONDS = 300


def join_spec(kind: str, shape: str, other: str, local: str, foreign: str) -> JoinSpec:
    embedded = {"as": "matches", "shape": shape} if KINDS[kind].embeds else {}
    join = {"from": other, "kind": kind, "on": [{"local": local, "foreign": foreign}], **embedded}
    return parse_spec({"database": "bench", "from": "users", "joins": [join]}, {"bench"})


#: Each join with the methods to compare with the chosen one.
COMPARISONS: list[tuple[str, JoinSpec, tuple[JoinMethod, ...]]] = [
    ("array, by index", join_spec("left", "array", "orders", "_id", "userId"), (JoinMethod.ONE_PASS,)),
    (
        "rows, by index",
        join_spec("inner", "rows", "orders", "_id", "userId"),
        (JoinMethod.ONE_PASS, JoinMethod.SWAPPED),
    ),
    ("count, by index", join_spec("left", "count", "orders", "_id", "userId"), (JoinMethod.ONE_PASS,)),
    ("semi, by index", join_spec("semi", "array", "orders", "_id", "userId"), (JoinMethod.ONE_PASS,)),
    ("rows, no index", join_spec("inner", "rows", "plain", "_id", "userId"), (JoinMethod.ONE_PASS, JoinMethod.SWAPPED)),
    ("array, no index", join_spec("left", "array", "plain", "_id", "userId"), (JoinMethod.ONE_PASS,)),
    ("array, small other side", join_spec("left", "array", "tags", "tag", "name"), (JoinMethod.ONE_PASS,)),
]


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    bench = baselines.mongodb().bench
    fill(bench, USERS, ORDERS)
    bench.users.update_many({}, [{"$set": {"tag": {"$concat": ["t", {"$substrBytes": ["$_id", 1, 3]}]}}}])
    bench.orders.aggregate([{"$out": "plain"}])
    bench.tags.insert_many([{"_id": number, "name": f"t{number}"} for number in range(TAGS)])
    for name, spec, others in COMPARISONS:
        catalog = Catalog(spec)
        chosen = choose_strategy(spec, catalog, BEARABLE_SECONDS)
        methods = [m for m in others if m is not chosen.steps[0].method and is_correct(spec, 0, m, catalog)]
        strategies = {method: Strategy((make_step(spec.joins[0], method, 0, catalog),)) for method in methods}
        times: dict[Any, list[float]] = {name: [] for name in ("chosen", *methods)}
        for _ in range(repeats):
            times["chosen"].append(timed(lambda spec=spec, chosen=chosen: drain(spec, chosen)))  # type: ignore[misc]
            for method, strategy in strategies.items():
                times[method].append(timed(lambda spec=spec, strategy=strategy: drain(spec, strategy)))  # type: ignore[misc]
        for method in methods:
            yield ratio(f"{name}: {chosen.steps[0].method} against {method}", "<= 3", times["chosen"], times[method])


def drain(spec: JoinSpec, strategy: Strategy) -> None:
    aggregation = compile_pipeline(spec, strategy)
    pipeline = match_stages(aggregation.filter) + aggregation.pipeline
    for _ in baselines.mongodb().bench[aggregation.collection].aggregate_raw_batches(pipeline, allowDiskUse=True):
        pass

"""Random joins, compiled by every method and run on MongoDB, give the rows of the plain Python reference."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from pymongo.database import Database

from tests.worker_tasks.joins.reference import MISSING, canonical, joined
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan.catalog import CollectionStats, Index
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import match_stages
from worker_tasks.joins.plan.strategy import LOOKUPS, JoinMethod, Step, Strategy, is_correct, make_step
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

DATA_SETS, SPECS = 60, 60
PATHS = ["k", "m", "n.k", "_id"]
OID = ObjectId("65a000000000000000000001")

EVERY_INDEX = tuple(Index(paths) for length in (1, 2, 3) for paths in combinations(PATHS, length))

Data = dict[str, list[Document]]


@dataclass
class ExactStats:
    """Exact statistics of small collections, except for their size in bytes."""

    data: Data
    size: int

    @property
    def left_count(self) -> int:
        return 6

    @property
    def left_size(self) -> int:
        return self.size

    def stats(self, collection: str) -> CollectionStats:
        return CollectionStats(len(self.data[collection]), self.size, EVERY_INDEX)

    def holds_lists(self, collection: str, path: str) -> bool:
        return any(_leads_to_list(document, path) for document in self.data[collection])

    def has_gaps(self, collection: str, path: str) -> bool:
        return connections().joins.property[collection].find_one({path: None}) is not None


def _leads_to_list(document: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    value = document.get(head) if isinstance(document, dict) else None
    return isinstance(value, list) or (bool(rest) and _leads_to_list(value, rest))


def random_key(rng: random.Random, gaps: float, *, lists: bool) -> Any:
    """A random key: one of a few, so that many match, of all the types that meet in real collections."""
    drawn = rng.random()
    if drawn < gaps:
        return rng.choice([None, MISSING])
    if lists and drawn > 0.8:
        elements = [random_key(rng, gaps, lists=False) for _ in range(rng.randrange(4))]
        return [element for element in elements if element is not MISSING]
    numbers = [1, 1, 2, 2, 3, 1.0, 2.0, Decimal128("1"), Decimal128("2"), Int64(3)]
    others = ["1", "2", "a", "A", True, OID, str(OID), datetime(2024, 1, 1, tzinfo=UTC)]
    return rng.choice([*numbers, *others, {"x": 1}, {"x": 1, "y": 2}, {"y": 2, "x": 1}])


def random_documents(rng: random.Random, prefix: str) -> list[Document]:
    """Six random documents. Some sets have no gaps or no lists, like real collections."""
    gaps, lists = rng.choice([0, 0.3]), rng.random() < 0.5
    drawn = []
    for number in range(6):
        nested = random_key(rng, gaps, lists=lists)
        fields = {
            "_id": f"{prefix}{number}",
            "k": random_key(rng, gaps, lists=lists),
            "m": random_key(rng, gaps, lists=lists),
            "n": rng.choice([{"k": nested}, [{"k": nested}, {"k": 1}]] if lists else [{"k": nested}]),
        }
        for name in ("k", "m"):
            if fields[name] is MISSING:
                del fields[name]
        fields["n"] = _without_missing(fields["n"])
        drawn.append(fields)
    return drawn


def _without_missing(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_without_missing(element) for element in nested]
    return {name: inner for name, inner in nested.items() if inner is not MISSING}


def random_join(rng: random.Random, number: int, earlier: list[Join]) -> Join:
    kind = rng.choice(["left", "inner", "semi", "anti"] + ["outer"] * (number == 0))
    on = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        local = rng.choice(PATHS)
        can_refer_back = (
            earlier and earlier[0].embeds and earlier[0].shape_traits.holds_documents and earlier[0].fields_ is None
        )
        if can_refer_back and rng.random() < 0.5:
            local = f"a0.{local}"
        cast: Any = rng.choice([None] * 6 + ["int", "string"])
        # The anti join that an outer join adds does not convert keys.
        on.append(KeyPair(local=local, foreign=rng.choice(PATHS), cast=None if kind == "outer" else cast))
    fields: dict[str, Any] = {"from_": rng.choice("lfg"), "kind": kind, "on": on}
    if kind in {"semi", "anti"}:
        return Join(**fields)
    shape = rng.choice(["array", "rows", "first"] + ["count"] * (kind != "outer"))
    fields |= {"as_": f"a{number}", "shape": shape}
    if shape == "first" or rng.random() < 0.4:
        fields["sort"] = [("_id", rng.choice([1, -1]))]
    if kind != "outer" and shape != "first" and (fields.get("sort") or shape == "count") and rng.random() < 0.3:
        fields["limit"] = rng.choice([1, 2])
    if rng.random() < 0.2:
        fields["match"] = rng.choice([{"k": 1}, {"m": {"$gt": 1}}])
    if rng.random() < 0.2 and shape != "count":
        fields["fields_"] = rng.choice([["_id", "k"], ["k", "m"]])
    return Join(**fields)


def random_spec(rng: random.Random) -> JoinSpec:
    joins: list[Join] = []
    for number in range(rng.choice([1, 1, 2])):
        joins.append(random_join(rng, number, joins))
    match = rng.choice([{}] * 5 + [{"m": {"$gt": 1}}])
    return JoinSpec(database="property", from_="l", joins=joins, match=match)


def strategies(spec: JoinSpec, stats: ExactStats) -> Iterator[Strategy]:
    """A strategy for each correct method of the first join; later joins take the first correct one."""
    for first in (JoinMethod.INDEX, JoinMethod.ONE_PASS, JoinMethod.SWAPPED):
        steps: list[Step] = []
        for number in range(len(spec.joins)):
            preferred = (first, JoinMethod.ONE_PASS, JoinMethod.INDEX)
            method = next(method for method in preferred if is_correct(spec, number, method, stats))
            steps.append(make_step(spec.joins[number], method, 0, stats))
        if steps[0].method is first:
            yield Strategy(tuple(steps))


@pytest.fixture(scope="module")
def database(servers: None) -> Database[Document]:
    return connections().joins.property


def rows_of(spec: JoinSpec, strategy: Strategy, database: Database[Document]) -> list[Document]:
    aggregation = compile_pipeline(spec, strategy)
    pipeline = match_stages(aggregation.filter) + aggregation.pipeline
    return list(database[aggregation.collection].aggregate(pipeline, allowDiskUse=True))


def unordered(rows: list[Document], spec: JoinSpec) -> Counter[str]:
    """Rows for comparison, regardless of their order and of that of unsorted matches."""
    unsorted = [join.as_ for join in spec.joins if join.shape == "array" and not join.sort]
    for row in rows:
        for name in unsorted:
            if name in row and isinstance(row[name], list):
                row[name] = sorted(row[name], key=lambda match: repr(canonical(match)))
    return Counter(repr(canonical({name: row[name] for name in sorted(row)})) for row in rows)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_every_method_gives_the_rows_of_the_reference(seed: int, database: Database[Document]) -> None:
    rng = random.Random(seed)
    data = {name: random_documents(rng, name) for name in "lfg"}
    for name, stored in data.items():
        database.drop_collection(name)
        database[name].insert_many([dict(document) for document in stored])
    for path in rng.sample(PATHS[:3], 2):
        database[rng.choice("lfg")].create_index(path)
    for _ in range(SPECS):
        spec = random_spec(rng)
        stats = ExactStats(data, rng.choice([10, 10**9]))
        expected = unordered([dict(row) for row in joined(spec, data)], spec)
        for strategy in strategies(spec, stats):
            rows = unordered(rows_of(spec, strategy, database), spec)
            assert rows == expected, f"{strategy}\n{spec.canonical()}\n{data}"


def test_the_random_joins_cover_every_method_kind_and_shape(servers: None) -> None:
    covered: Counter[tuple[Any, ...]] = Counter()
    for seed in range(DATA_SETS):
        rng = random.Random(seed)
        data = {name: random_documents(rng, name) for name in "lfg"}
        for _ in range(SPECS):
            spec = random_spec(rng)
            stats = ExactStats(data, rng.choice([10, 10**9]))
            stats.has_gaps = lambda *_: False  # type: ignore[method-assign]
            for strategy in strategies(spec, stats):
                first = strategy.steps[0]
                covered[first.method, spec.joins[0].kind, spec.joins[0].shape] += 1
                covered[first.method in LOOKUPS, first.native_lookup, first.null_safe] += 1
    for method in (JoinMethod.INDEX, JoinMethod.ONE_PASS):
        for kind in ("left", "inner"):
            assert all(covered[method, kind, shape] > 10 for shape in ("array", "rows", "first", "count"))
        assert all(covered[method, "outer", shape] > 10 for shape in ("array", "rows", "first"))
        assert covered[method, "semi", "array"] > 50
        assert covered[method, "anti", "array"] > 50
    assert covered[JoinMethod.SWAPPED, "inner", "rows"] > 5
    assert covered[True, True, False] > 100  # native, without null safety
    assert covered[True, True, True] > 5  # native and null-safe
    assert covered[True, False, True] > 100

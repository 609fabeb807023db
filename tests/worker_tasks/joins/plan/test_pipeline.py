"""What a join compiles to gives on MongoDB the rows that the plain reference says: drawn joins, in every way."""

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
class TrueFacts:
    """The facts about small collections, looked up in their documents; sizes are whatever a test says."""

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


def value(chance: random.Random, gaps: float, *, lists: bool) -> Any:
    """A key: few different ones, so that many match, and of all types that meet in real collections."""
    drawn = chance.random()
    if drawn < gaps:
        return chance.choice([None, MISSING])
    if lists and drawn > 0.8:
        elements = [value(chance, gaps, lists=False) for _ in range(chance.randrange(4))]
        return [element for element in elements if element is not MISSING]
    numbers = [1, 1, 2, 2, 3, 1.0, 2.0, Decimal128("1"), Decimal128("2"), Int64(3)]
    others = ["1", "2", "a", "A", True, OID, str(OID), datetime(2024, 1, 1, tzinfo=UTC)]
    return chance.choice([*numbers, *others, {"x": 1}, {"x": 1, "y": 2}, {"y": 2, "x": 1}])


def documents(chance: random.Random, prefix: str) -> list[Document]:
    """Six documents; some sets are without gaps, some without lists, as real collections are."""
    gaps, lists = chance.choice([0, 0.3]), chance.random() < 0.5
    found = []
    for number in range(6):
        nested = value(chance, gaps, lists=lists)
        fields = {
            "_id": f"{prefix}{number}",
            "k": value(chance, gaps, lists=lists),
            "m": value(chance, gaps, lists=lists),
            "n": chance.choice([{"k": nested}, [{"k": nested}, {"k": 1}]] if lists else [{"k": nested}]),
        }
        for name in ("k", "m"):
            if fields[name] is MISSING:
                del fields[name]
        fields["n"] = _without_missing(fields["n"])
        found.append(fields)
    return found


def _without_missing(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_without_missing(element) for element in nested]
    return {name: inner for name, inner in nested.items() if inner is not MISSING}


def join(chance: random.Random, number: int, before: list[Join]) -> Join:
    kind = chance.choice(["left", "inner", "semi", "anti"] + ["outer"] * (number == 0))
    on = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        local = chance.choice(PATHS)
        if (
            before
            and before[0].embeds
            and before[0].shape != "count"
            and before[0].fields_ is None
            and chance.random() < 0.5
        ):
            local = f"a0.{local}"
        cast: Any = chance.choice([None] * 6 + ["int", "string"])
        # The way back of an outer join converts nothing.
        on.append(KeyPair(local=local, foreign=chance.choice(PATHS), cast=None if kind == "outer" else cast))
    fields: dict[str, Any] = {"from_": chance.choice("lfg"), "kind": kind, "on": on}
    if kind in {"semi", "anti"}:
        return Join(**fields)
    shape = chance.choice(["array", "rows", "first"] + ["count"] * (kind != "outer"))
    fields |= {"as_": f"a{number}", "shape": shape}
    if shape == "first" or chance.random() < 0.4:
        fields["sort"] = [("_id", chance.choice([1, -1]))]
    if kind != "outer" and shape != "first" and (fields.get("sort") or shape == "count") and chance.random() < 0.3:
        fields["limit"] = chance.choice([1, 2])
    if chance.random() < 0.2:
        fields["match"] = chance.choice([{"k": 1}, {"m": {"$gt": 1}}])
    if chance.random() < 0.2 and shape != "count":
        fields["fields_"] = chance.choice([["_id", "k"], ["k", "m"]])
    return Join(**fields)


def spec(chance: random.Random) -> JoinSpec:
    joins: list[Join] = []
    for number in range(chance.choice([1, 1, 2])):
        joins.append(join(chance, number, joins))
    match = chance.choice([{}] * 5 + [{"m": {"$gt": 1}}])
    return JoinSpec(database="property", from_="l", joins=joins, match=match)


def strategies(asked: JoinSpec, facts: TrueFacts) -> Iterator[Strategy]:
    """Each way that is right for the first join; the others as they come."""
    for first in (JoinMethod.INDEX, JoinMethod.ONE_PASS, JoinMethod.SWAPPED):
        steps: list[Step] = []
        for number in range(len(asked.joins)):
            ways = [
                way for way in (first, JoinMethod.ONE_PASS, JoinMethod.INDEX) if is_correct(asked, number, way, facts)
            ]
            steps.append(make_step(asked.joins[number], ways[0], 0, facts))
        if steps[0].method is first:
            yield Strategy(tuple(steps))


@pytest.fixture(scope="module")
def database(servers: None) -> Database[Document]:
    return connections().joins.property


def rows_of(asked: JoinSpec, strategy: Strategy, database: Database[Document]) -> list[Document]:
    aggregation = compile_pipeline(asked, strategy)
    pipeline = match_stages(aggregation.filter) + aggregation.pipeline
    return list(database[aggregation.collection].aggregate(pipeline, allowDiskUse=True))


def in_no_order(rows: list[Document], asked: JoinSpec) -> Counter[str]:
    """For comparison: rows in no order, and matches neither where none was asked for."""
    unsorted = [join.as_ for join in asked.joins if join.shape == "array" and not join.sort]
    for row in rows:
        for name in unsorted:
            if name in row and isinstance(row[name], list):
                row[name] = sorted(row[name], key=lambda match: repr(canonical(match)))
    return Counter(repr(canonical({name: row[name] for name in sorted(row)})) for row in rows)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_every_way_gives_the_rows_of_the_reference(seed: int, database: Database[Document]) -> None:
    chance = random.Random(seed)
    data = {name: documents(chance, name) for name in "lfg"}
    for name, stored in data.items():
        database.drop_collection(name)
        database[name].insert_many([dict(document) for document in stored])
    for path in chance.sample(PATHS[:3], 2):
        database[chance.choice("lfg")].create_index(path)
    for _ in range(SPECS):
        asked = spec(chance)
        facts = TrueFacts(data, chance.choice([10, 10**9]))
        expected = in_no_order([dict(row) for row in joined(asked, data)], asked)
        for strategy in strategies(asked, facts):
            found = in_no_order(rows_of(asked, strategy, database), asked)
            assert found == expected, f"{strategy}\n{asked.canonical()}\n{data}"


def test_each_way_kind_and_shape_is_tried(servers: None) -> None:
    """The drawn cases cover what they are drawn for."""
    tried: Counter[tuple[Any, ...]] = Counter()
    for seed in range(DATA_SETS):
        chance = random.Random(seed)
        data = {name: documents(chance, name) for name in "lfg"}
        for _ in range(SPECS):
            asked = spec(chance)
            facts = TrueFacts(data, chance.choice([10, 10**9]))
            facts.has_gaps = lambda *_: False  # type: ignore[method-assign]
            for strategy in strategies(asked, facts):
                tried[strategy.steps[0].method, asked.joins[0].kind, asked.joins[0].shape] += 1
                tried[
                    strategy.steps[0].method in LOOKUPS, strategy.steps[0].native_lookup, strategy.steps[0].null_safe
                ] += 1
    kinds = [("left", "inner"), ("array", "rows", "first", "count")]
    for way in (JoinMethod.INDEX, JoinMethod.ONE_PASS):
        for kind in kinds[0]:
            assert all(tried[way, kind, shape] > 10 for shape in kinds[1])
        assert all(tried[way, "outer", shape] > 10 for shape in ("array", "rows", "first"))
        assert tried[way, "semi", "array"] > 50
        assert tried[way, "anti", "array"] > 50
    assert tried[JoinMethod.SWAPPED, "inner", "rows"] > 5
    assert tried[True, True, False] > 100  # bare, and not guarded
    assert tried[True, True, True] > 5  # bare, with keys to guard
    assert tried[True, False, True] > 100

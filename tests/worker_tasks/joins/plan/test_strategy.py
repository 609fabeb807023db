"""Choosing the method of a join, tested with made-up statistics."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from worker_tasks.infra.errors import TooExpensive
from worker_tasks.joins.plan.catalog import CollectionStats, Index
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy, allows_lookup, choose_strategy
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import JoinSpec, parse

MEGABYTE = 2**20
LOOKUP, SCAN = JoinMethod.LOOKUP, JoinMethod.SCAN


@dataclass
class MadeUpStats:
    """Statistics of the collections ``left`` and ``other`` that a test makes up."""

    left: CollectionStats
    other: CollectionStats
    gaps: set[tuple[str, str]] = field(default_factory=set)

    @property
    def left_count(self) -> int:
        return self.left.count

    @property
    def left_size(self) -> int:
        return self.left.size

    def stats(self, side: Side) -> CollectionStats:
        return self.left if side.collection == "left" else self.other

    def has_gaps(self, side: Side, path: str) -> bool:
        return (side.collection, path) in self.gaps


def collection(count: int, *indexes: Index, size: int | None = None, **more: Any) -> CollectionStats:
    return CollectionStats(count, count * 200 if size is None else size, (Index(("_id",)), *indexes), **more)


def spec_of(
    keys: int = 1, pair: dict[str, Any] | None = None, top: dict[str, Any] | None = None, **join: Any
) -> JoinSpec:
    on = [{"local": f"k{number}", "foreign": f"f{number}", **(pair or {})} for number in range(keys)]
    name = {} if join.get("kind") in {"semi", "anti"} else {"as": "matches"}
    joins = [{"from": "other", "on": on, **name, **join}]
    return parse(json.loads(json.dumps({"database": "shop", "from": "left", "joins": joins, **(top or {})})))


def chosen(spec: JoinSpec, stats: MadeUpStats, seconds: float = 300) -> Strategy:
    return choose_strategy(spec, stats, seconds)


def step(spec: JoinSpec, stats: MadeUpStats) -> Step:
    return chosen(spec, stats).steps[0]


IN_ARCHIVE: dict[str, Any] = {"from": {"database": "archive", "collection": "other"}}
FEW = MadeUpStats(collection(10), collection(100_000, Index(("f0", "f1"))))


@pytest.mark.parametrize(
    ("index", "method"),
    [
        (Index(("f0", "f9")), LOOKUP),
        (Index(("f0",), sparse=True), LOOKUP),
        (Index(("f9", "f0")), SCAN),
        (Index(("f0",), partial=True), SCAN),
        (Index(("f0",), collation=True), SCAN),
    ],
    ids=["prefix", "sparse", "no prefix", "partial", "collation"],
)
def test_few_documents_are_looked_up_by_an_index_that_serves_an_equality(index: Index, method: JoinMethod) -> None:
    assert chosen(spec_of(), MadeUpStats(collection(100), collection(100_000, index))).method is method


def test_an_index_serves_several_keys_if_it_begins_with_them_in_any_order() -> None:
    other = collection(100_000, Index(("f1", "f0", "f5")))
    assert chosen(spec_of(keys=2), MadeUpStats(collection(1_000), other)).method is LOOKUP


def test_few_pairs_are_compared_without_an_index() -> None:
    assert chosen(spec_of(), MadeUpStats(collection(1), collection(100_000))).method is LOOKUP


def test_large_sides_are_read_once() -> None:
    strategy = chosen(spec_of(), MadeUpStats(collection(300_000), collection(26_000)))
    assert strategy.method is SCAN
    assert strategy.lookup_seconds is not None
    assert strategy.scan_seconds is not None
    assert strategy.seconds == strategy.scan_seconds < strategy.lookup_seconds
    assert strategy.steps == ()


def test_many_left_documents_are_read_once_despite_an_index() -> None:
    other = collection(26_000, Index(("f0", "f1", "f2")))
    assert chosen(spec_of(keys=3), MadeUpStats(collection(300_000), other)).method is SCAN


def test_the_estimates_grow_with_documents_and_bytes() -> None:
    small, many, wide = (
        chosen(spec_of(), MadeUpStats(collection(1_000), collection(count, size=size))).scan_seconds or 0
        for count, size in ((1_000, MEGABYTE), (1_000_000, MEGABYTE), (1_000, 1000 * MEGABYTE))
    )
    assert small < many
    assert small < wide


@pytest.mark.parametrize(
    "spec",
    [
        spec_of(kind="outer"),
        spec_of(pair={"cast": "uuid"}),
        spec_of(pair={"cast": "int"}),
        spec_of(pair={"fold": "case"}),
        spec_of(pair={"local": "refs.0.id"}),
        spec_of(pair={"local": "ref.$id"}),
        spec_of(top={"expand": "items"}),
        spec_of(pair={"local": "items.k"}, into="items"),
        spec_of(**IN_ARCHIVE),
        spec_of(shape="first", fields=["name"], top={"sort": [["matches.price", 1]]}),
    ],
    ids=["outer", "uuid", "int", "fold", "place", "DBRef", "expand", "into", "database", "sorted by a dropped field"],
)
def test_a_scan_runs_what_one_aggregation_would_get_wrong(spec: JoinSpec) -> None:
    strategy = chosen(spec, FEW)
    assert not allows_lookup(spec)
    assert (strategy.method, strategy.lookup_seconds) == (SCAN, None)


def test_only_mongodb_compares_texts_by_a_collation() -> None:
    left = collection(300_000, collation={"locale": "de"})
    strategy = chosen(spec_of(), MadeUpStats(left, collection(300_000, Index(("f0",)))))
    assert (strategy.method, strategy.scan_seconds) == (LOOKUP, None)
    assert chosen(spec_of(kind="outer"), MadeUpStats(left, collection(10))).method is SCAN


def test_one_collection_is_read_by_an_aggregation() -> None:
    strategy = chosen(spec_of(top={"joins": []}), FEW)
    assert (strategy.method, strategy.steps) == (LOOKUP, ())


@pytest.mark.parametrize("more", [{"kind": "semi"}, {"kind": "anti"}, {"shape": "count"}, {"shape": "first"}], ids=str)
def test_a_native_lookup_never_collects_matches_beyond_the_size_of_a_document(more: dict[str, Any]) -> None:
    big, small = (collection(100_000, Index(("f0",)), size=size) for size in (100 * MEGABYTE, 10 * MEGABYTE))
    assert not step(spec_of(**more), MadeUpStats(collection(10), big)).native_lookup
    assert step(spec_of(**more), MadeUpStats(collection(10), small)).native_lookup


def test_null_safety_is_needed_only_for_gaps_on_the_other_side_or_casts() -> None:
    left, other = collection(1), collection(10_000, Index(("f0",)))
    assert not step(spec_of(), MadeUpStats(left, other)).null_safe
    assert step(spec_of(), MadeUpStats(left, other, gaps={("other", "f0")})).null_safe
    assert step(spec_of(pair={"cast": "double"}), MadeUpStats(left, other)).null_safe


def test_a_too_expensive_join_is_refused_with_the_index_that_would_help() -> None:
    stats = MadeUpStats(collection(10**9), collection(10**9))
    with pytest.raises(TooExpensive) as refusal:
        chosen(spec_of(), stats)
    assert str(refusal.value) == (
        "It would take about 12,800 s. Ask for db.other.createIndex({'f0': 1}), or filter the left side."
    )
    with pytest.raises(TooExpensive, match=r"^It would take about 12,000 s\. Filter the left side\.$"):
        chosen(spec_of(), MadeUpStats(collection(10**9), collection(10**9, Index(("f0",)))))

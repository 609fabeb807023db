"""Choosing the method of a join, tested with made-up statistics."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from worker_tasks.infra.errors import TooExpensive
from worker_tasks.joins.plan.catalog import CollectionStats, Index
from worker_tasks.joins.plan.strategy import JoinMethod, Step, choose_strategy
from worker_tasks.joins.spec.spec import JoinSpec

MEGABYTE = 2**20


@dataclass
class MadeUpStats:
    """Statistics of the collections ``left`` and ``other`` that a test makes up."""

    left: CollectionStats
    other: CollectionStats
    lists: set[tuple[str, str]] = field(default_factory=set)
    gaps: set[tuple[str, str]] = field(default_factory=set)
    queries: list[str] = field(default_factory=list)

    @property
    def left_count(self) -> int:
        return self.left.count

    @property
    def left_size(self) -> int:
        return self.left.size

    def stats(self, collection: str) -> CollectionStats:
        return self.left if collection == "left" else self.other

    def holds_lists(self, collection: str, path: str) -> bool:
        self.queries.append(f"lists in {collection}.{path}")
        return (collection, path) in self.lists

    def has_gaps(self, collection: str, path: str) -> bool:
        return (collection, path) in self.gaps


def collection(count: int, *indexes: Index, size: int | None = None) -> CollectionStats:
    return CollectionStats(count, count * 200 if size is None else size, (Index(("_id",)), *indexes))


def spec_of(keys: int = 1, **join: Any) -> JoinSpec:
    on = [{"local": f"k{number}", "foreign": f"f{number}"} for number in range(keys)]
    name = {} if join.get("kind") in {"semi", "anti"} else {"as": "matches"}
    joins = [{"from": "other", "on": on, **name, **join}]
    return JoinSpec.model_validate_json(json.dumps({"database": "shop", "from": "left", "joins": joins}))


def step(spec: JoinSpec, stats: MadeUpStats, seconds: float = 300) -> Step:
    return choose_strategy(spec, stats, seconds).steps[0]


def test_an_index_is_used_without_a_query_on_documents() -> None:
    stats = MadeUpStats(collection(100_000), collection(1_000_000, Index(("f0",))))
    assert step(spec_of(), stats).method is JoinMethod.INDEX
    assert stats.queries == []


@pytest.mark.parametrize(
    ("index", "method"),
    [
        (Index(("f0", "f9")), JoinMethod.INDEX),
        (Index(("f0",), sparse=True), JoinMethod.INDEX),
        (Index(("f9", "f0")), JoinMethod.ONE_PASS),
        (Index(("f0",), partial=True), JoinMethod.ONE_PASS),
        (Index(("f0",), collation=True), JoinMethod.ONE_PASS),
    ],
    ids=["prefix", "sparse", "no prefix", "partial", "collation"],
)
def test_only_an_index_that_serves_an_equality_is_used(index: Index, method: JoinMethod) -> None:
    assert step(spec_of(), MadeUpStats(collection(100_000), collection(100_000, index))).method is method


def test_an_index_serves_several_keys_if_it_begins_with_them_in_any_order() -> None:
    other = collection(100_000, Index(("f1", "f0", "f5")))
    assert step(spec_of(keys=2), MadeUpStats(collection(1_000), other)).method is JoinMethod.INDEX


def test_a_small_other_side_is_held_in_memory() -> None:
    assert step(spec_of(), MadeUpStats(collection(300_000), collection(3_000))).method is JoinMethod.HASH


def test_few_pairs_are_compared() -> None:
    assert step(spec_of(), MadeUpStats(collection(1), collection(200_000))).method is JoinMethod.COMPARE


def test_two_large_sides_without_an_index_are_joined_in_one_pass() -> None:
    assert step(spec_of(), MadeUpStats(collection(300_000), collection(26_000))).method is JoinMethod.ONE_PASS


def test_bulk_joins_on_several_keys_take_one_pass_despite_an_index() -> None:
    other = collection(26_000, Index(("f0", "f1", "f2")))
    assert step(spec_of(keys=3), MadeUpStats(collection(300_000), other)).method is JoinMethod.ONE_PASS


def test_keys_that_are_lists_are_not_grouped() -> None:
    stats = MadeUpStats(collection(3_000), collection(30_000), lists={("other", "f0")})
    assert step(spec_of(), stats).method is JoinMethod.COMPARE


def test_an_inner_join_into_rows_is_swapped_if_the_left_side_has_the_index() -> None:
    stats = MadeUpStats(collection(1_000_000, Index(("k0",))), collection(20_000))
    assert step(spec_of(kind="inner", shape="rows"), stats).method is JoinMethod.SWAPPED
    assert step(spec_of(kind="left", shape="rows"), stats).method is JoinMethod.ONE_PASS
    assert step(spec_of(kind="inner", shape="array"), stats).method is JoinMethod.ONE_PASS


@pytest.mark.parametrize("more", [{"kind": "semi"}, {"kind": "anti"}, {"shape": "count"}, {"shape": "first"}], ids=str)
def test_a_native_lookup_never_collects_matches_beyond_the_size_of_a_document(more: dict[str, Any]) -> None:
    big, small = (collection(100_000, Index(("f0",)), size=size) for size in (100 * MEGABYTE, 10 * MEGABYTE))
    assert not step(spec_of(**more), MadeUpStats(collection(10), big)).native_lookup
    assert step(spec_of(**more), MadeUpStats(collection(10), small)).native_lookup


def test_null_safety_is_needed_only_for_gaps_on_the_other_side_or_casts() -> None:
    left, other = collection(10), collection(100, Index(("f0",)))
    assert not step(spec_of(), MadeUpStats(left, other)).null_safe
    assert step(spec_of(), MadeUpStats(left, other, gaps={("other", "f0")})).null_safe
    converted = spec_of(on=[{"local": "k0", "foreign": "f0", "cast": "int"}])
    assert step(converted, MadeUpStats(left, other)).null_safe


def test_a_too_expensive_join_is_refused_with_the_index_that_would_help() -> None:
    stats = MadeUpStats(collection(300_000), collection(300_000), lists={("other", "f0")})
    with pytest.raises(TooExpensive) as refusal:
        step(spec_of(), stats)
    assert str(refusal.value) == (
        "No index serves other.f0: about 90,000,000,000 comparisons, 36,000 s by estimate. "
        "Ask for db.other.createIndex({'f0': 1}), or filter the left side."
    )


def test_a_key_from_an_embedded_list_counts_as_a_list() -> None:
    text = {
        "database": "shop",
        "from": "left",
        "joins": [
            {"from": "other", "as": "first", "on": [{"local": "k0", "foreign": "f0"}]},
            {"from": "other", "as": "second", "on": [{"local": "first.f1", "foreign": "f1"}]},
        ],
    }
    spec = JoinSpec.model_validate_json(json.dumps(text))
    stats = MadeUpStats(collection(50_000), collection(20_000, Index(("f0",))))
    assert [step.method for step in choose_strategy(spec, stats, 10_000).steps] == [
        JoinMethod.INDEX,
        JoinMethod.COMPARE,
    ]

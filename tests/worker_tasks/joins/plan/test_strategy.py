"""Which way a join is run, from given facts."""

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
class GivenFacts:
    """What a test says of ``left`` and ``other``."""

    left: CollectionStats
    other: CollectionStats
    lists: set[tuple[str, str]] = field(default_factory=set)
    gaps: set[tuple[str, str]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    @property
    def left_count(self) -> int:
        return self.left.count

    @property
    def left_size(self) -> int:
        return self.left.size

    def stats(self, collection: str) -> CollectionStats:
        return self.left if collection == "left" else self.other

    def holds_lists(self, collection: str, path: str) -> bool:
        self.asked.append(f"lists in {collection}.{path}")
        return (collection, path) in self.lists

    def has_gaps(self, collection: str, path: str) -> bool:
        return (collection, path) in self.gaps


def known(count: int, *indexes: Index, size: int | None = None) -> CollectionStats:
    return CollectionStats(count, count * 200 if size is None else size, (Index(("_id",)), *indexes))


def asked(keys: int = 1, **join: Any) -> JoinSpec:
    on = [{"local": f"k{number}", "foreign": f"f{number}"} for number in range(keys)]
    brings = {} if join.get("kind") in {"semi", "anti"} else {"as": "matches"}
    joins = [{"from": "other", "on": on, **brings, **join}]
    return JoinSpec.model_validate_json(json.dumps({"database": "shop", "from": "left", "joins": joins}))


def step(spec: JoinSpec, facts: GivenFacts, seconds: float = 300) -> Step:
    return choose_strategy(spec, facts, seconds).steps[0]


def test_an_index_is_taken_and_nothing_is_asked_of_the_documents() -> None:
    facts = GivenFacts(known(100_000), known(1_000_000, Index(("f0",))))
    assert step(asked(), facts).method is JoinMethod.INDEX
    assert facts.asked == []


@pytest.mark.parametrize(
    ("index", "way"),
    [
        (Index(("f0", "f9")), JoinMethod.INDEX),
        (Index(("f0",), sparse=True), JoinMethod.INDEX),
        (Index(("f9", "f0")), JoinMethod.ONE_PASS),
        (Index(("f0",), partial=True), JoinMethod.ONE_PASS),
        (Index(("f0",), collation=True), JoinMethod.ONE_PASS),
    ],
    ids=["prefix", "sparse", "no prefix", "partial", "collation"],
)
def test_what_serves_an_equality_and_what_does_not(index: Index, way: JoinMethod) -> None:
    assert step(asked(), GivenFacts(known(100_000), known(100_000, index))).method is way


def test_several_keys_are_served_by_an_index_that_begins_with_them_in_any_order() -> None:
    other = known(100_000, Index(("f1", "f0", "f5")))
    assert step(asked(keys=2), GivenFacts(known(1_000), other)).method is JoinMethod.INDEX


def test_a_small_other_side_is_held_in_memory() -> None:
    assert step(asked(), GivenFacts(known(300_000), known(3_000))).method is JoinMethod.HASH


def test_a_few_pairs_are_compared() -> None:
    assert step(asked(), GivenFacts(known(1), known(200_000))).method is JoinMethod.COMPARE


def test_two_large_sides_without_an_index_are_read_once() -> None:
    assert step(asked(), GivenFacts(known(300_000), known(26_000))).method is JoinMethod.ONE_PASS


def test_several_keys_in_bulk_are_read_once_though_an_index_serves() -> None:
    other = known(26_000, Index(("f0", "f1", "f2")))
    assert step(asked(keys=3), GivenFacts(known(300_000), other)).method is JoinMethod.ONE_PASS


def test_lists_are_not_grouped_by() -> None:
    facts = GivenFacts(known(3_000), known(30_000), lists={("other", "f0")})
    assert step(asked(), facts).method is JoinMethod.COMPARE


def test_flat_rows_are_looked_up_from_the_side_whose_partner_has_the_index() -> None:
    facts = GivenFacts(known(1_000_000, Index(("k0",))), known(20_000))
    assert step(asked(kind="inner", shape="rows"), facts).method is JoinMethod.SWAPPED
    assert step(asked(kind="left", shape="rows"), facts).method is JoinMethod.ONE_PASS
    assert step(asked(kind="inner", shape="array"), facts).method is JoinMethod.ONE_PASS


@pytest.mark.parametrize("more", [{"kind": "semi"}, {"kind": "anti"}, {"shape": "count"}, {"shape": "first"}], ids=str)
def test_matches_that_are_not_wanted_themselves_never_become_a_document_that_is_too_big(more: dict[str, Any]) -> None:
    big, small = (known(100_000, Index(("f0",)), size=size) for size in (100 * MEGABYTE, 10 * MEGABYTE))
    assert not step(asked(**more), GivenFacts(known(10), big)).native_lookup
    assert step(asked(**more), GivenFacts(known(10), small)).native_lookup


def test_keys_are_guarded_only_where_the_other_side_has_gaps_or_they_are_converted() -> None:
    left, other = known(10), known(100, Index(("f0",)))
    assert not step(asked(), GivenFacts(left, other)).null_safe
    assert step(asked(), GivenFacts(left, other, gaps={("other", "f0")})).null_safe
    converted = asked(on=[{"local": "k0", "foreign": "f0", "cast": "int"}])
    assert step(converted, GivenFacts(left, other)).null_safe


def test_what_no_way_can_bear_is_refused_with_the_index_that_would_help() -> None:
    facts = GivenFacts(known(300_000), known(300_000), lists={("other", "f0")})
    with pytest.raises(TooExpensive) as caught:
        step(asked(), facts)
    assert str(caught.value) == (
        "No index serves other.f0: about 90,000,000,000 comparisons, 36,000 s by estimate. "
        "Ask for db.other.createIndex({'f0': 1}), or filter the left side."
    )


def test_a_key_that_an_earlier_join_brought_in_a_list_is_one() -> None:
    text = {
        "database": "shop",
        "from": "left",
        "joins": [
            {"from": "other", "as": "first", "on": [{"local": "k0", "foreign": "f0"}]},
            {"from": "other", "as": "second", "on": [{"local": "first.f1", "foreign": "f1"}]},
        ],
    }
    spec = JoinSpec.model_validate_json(json.dumps(text))
    facts = GivenFacts(known(50_000), known(20_000, Index(("f0",))))
    assert [step.method for step in choose_strategy(spec, facts, 10_000).steps] == [
        JoinMethod.INDEX,
        JoinMethod.COMPARE,
    ]

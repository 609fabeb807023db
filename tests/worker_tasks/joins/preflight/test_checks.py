"""Findings about joins of small collections with one flaw each."""

from datetime import UTC, datetime, timedelta
from functools import cached_property

import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.preflight.check_support import (
    NEVER_MATCH,
    PROBLEMS,
    finding_with,
    join_with,
    spec_of,
    texts,
)
from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan.catalog import Catalog, CollectionStats
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.preflight.checks import check_join
from worker_tasks.joins.preflight.findings import Cure, Level
from worker_tasks.joins.spec.sides import Side

pytestmark = pytest.mark.usefixtures("wrong_collections")


# Keys that cannot match.


def test_text_against_objectids_is_reported_with_the_conversion() -> None:
    found = finding_with(spec_of("reviews", join_with("products", "productId", "_id")), "never match")
    assert found.level is Level.STOP
    assert found.text == NEVER_MATCH
    assert (found.join, found.cure) == (0, Cure(0, 0, "cast", "objectId"))


def test_objectids_against_text_are_reported_with_the_conversion() -> None:
    found = finding_with(spec_of("products", join_with("reviews", "_id", "productId")), "never match")
    assert (found.level, found.cure) == (Level.STOP, Cure(0, 0, "cast", "string"))
    assert "Converted to string, 100 % find a match." in found.text


def test_the_conversion_solves_the_problem() -> None:
    spec = spec_of("reviews", join_with("products", "productId", "_id"))
    on = [{"local": "productId", "foreign": "_id", "cast": "objectId"}]
    converted = spec_of("reviews", join_with("products", "productId", "_id", on=on))
    assert (check_join(spec).expected.rates, check_join(converted).expected.rates) == ([0.0], [0.5])
    assert texts(converted, *PROBLEMS) == []


def test_types_without_a_conversion_are_reported_without_a_cure() -> None:
    found = finding_with(spec_of("users", join_with("products", "_id", "_id")), "never match")
    assert found.text == "users._id holds numbers, products._id ObjectIds: they never match."
    assert found.cure is None


def test_mixed_types_on_the_left_side_are_reported_with_the_conversion() -> None:
    found = finding_with(spec_of("mixed", join_with("products", "productId", "_id")), "which never match")
    assert found.level is Level.WARNING
    assert found.text == (
        "50 % of mixed.productId are text, which never match products._id. Converted to objectId, 100 % find a match."
    )
    assert found.cure == Cure(0, 0, "cast", "objectId")


def test_mixed_types_on_the_other_side_are_reported() -> None:
    found = finding_with(
        spec_of("products", join_with("mixed", "_id", "productId")), "which nothing of products matches"
    )
    assert (found.level, found.text[:38]) == (Level.WARNING, "50 % of mixed.productId are text, whic")


def test_numbers_of_several_types_are_no_problem() -> None:
    spec = spec_of("priced", join_with("prices", "price", "price"))
    assert check_join(spec).expected.rates == [1.0]
    assert texts(spec, *PROBLEMS) == []


def test_a_missing_left_field_is_reported_with_a_similar_one() -> None:
    found = finding_with(spec_of("reviews", join_with("products", "productID", "_id")), "No document of reviews")
    assert (found.level, found.text) == (
        Level.STOP,
        "No document of reviews has productID. Did you mean productId?",
    )
    assert found.cure == Cure(0, 0, "local", "productId")


def test_a_missing_field_of_the_other_side_is_reported_with_a_similar_one() -> None:
    found = finding_with(spec_of("products", join_with("reviews", "_id", "productid")), "No document of reviews")
    assert (found.level, found.text) == (
        Level.STOP,
        "No document of reviews has productid. Did you mean productId?",
    )
    assert found.cure == Cure(0, 0, "foreign", "productId")


def test_a_missing_field_without_a_similar_one_is_reported_without_a_cure() -> None:
    spec = spec_of("products", join_with("reviews", "wherever", "elsewhere"))
    missing = [finding for finding in check_join(spec).findings if finding.level is Level.STOP]
    assert [finding.text for finding in missing] == [
        "No document of products has wherever.",
        "No document of reviews has elsewhere.",
    ]
    assert [finding.cure for finding in missing] == [None, None]


def test_the_cure_applies_to_the_wrong_pair_only() -> None:
    on = [{"local": "_id", "foreign": "userId"}, {"local": "nmae", "foreign": "status"}]
    found = finding_with(spec_of("users", join_with("orders", "_id", "userId", on=on)), "Did you mean")
    assert found.cure == Cure(0, 1, "local", "name")


def test_an_empty_other_collection_is_reported() -> None:
    spec = spec_of("users", join_with("empty", "_id", "userId"))
    assert texts(spec, Level.STOP) == ["empty is empty."]


def test_an_empty_left_collection_is_reported() -> None:
    spec = spec_of("empty", join_with("users", "userId", "_id"))
    assert texts(spec, Level.STOP) == ["empty is empty."]
    assert check_join(spec).expected.rows == 0


@pytest.mark.parametrize(("left", "other", "share"), [("cities", "places", "22 %"), ("places", "cities", "67 %")])
def test_different_case_is_reported_on_either_side(left: str, other: str, share: str) -> None:
    found = finding_with(spec_of(left, join_with(other, "city", "city")), "capitals")
    assert found.text == f"{share} more of {left} would match {other} if capitals did not count."
    assert found.cure == Cure(0, 0, "fold", "case")


def test_the_fold_gives_the_share_that_its_finding_names() -> None:
    on = [{"local": "city", "foreign": "city", "fold": "case"}]
    for left, other, rate in (("cities", "places", 0.3333), ("places", "cities", 1.0)):
        folded = spec_of(left, join_with(other, "city", "city", on=on))
        assert check_join(folded).expected.rates == [rate]
        assert texts(folded, *PROBLEMS) == []


def test_every_type_in_a_list_counts() -> None:
    (wrong,) = texts(spec_of("baskets_of_text", join_with("users", "ids", "_id")), *PROBLEMS)
    assert wrong.startswith("50 % of baskets_of_text.ids are text, which never match users._id.")


def test_a_misspelt_field_in_a_filter_is_reported_on_either_side() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId", match={"stauts": "paid"}), match={"nmae": "x"})
    found = texts(spec, *PROBLEMS)
    assert "The filter asks for nmae, which no sampled document of users has. Did you mean name?" in found
    assert "The filter asks for stauts, which no sampled document of orders has. Did you mean status?" in found


def test_a_joined_field_that_is_not_kept_is_reported() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), fields=["name"])
    assert texts(spec, *PROBLEMS) == ["orders is joined into found, which is not among the fields that are kept."]


def test_the_preview_is_sorted_if_time_allows() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), sort=[["_id", -1]])
    found = check_join(spec)
    assert ([row["_id"] for row in found.preview], found.is_sample) == ([39, 38, 37, 36, 35], False)


def test_an_anti_join_without_rows_is_explained() -> None:
    spec = spec_of("orders", join_with("users", "userId", "_id", kind="anti"))
    assert checks.explain_empty(spec) == [
        "100 % of orders find a match in users by userId = _id, so none is left over."
    ]


def test_embedding_the_single_match_is_proposed_if_there_is_never_more_than_one() -> None:
    cures = [finding.cure for finding in check_join(spec_of("orders", join_with("users", "userId", "_id"))).findings]
    assert Cure(0, 0, "shape", "first") in cures
    several = check_join(spec_of("baskets", join_with("users", "users", "_id"))).findings
    assert not any(finding.cure for finding in several)


def test_the_preview_respects_the_limit_of_the_join() -> None:
    assert len(check_join(spec_of("users", join_with("orders", "_id", "userId"), limit=2)).preview) == 2


def test_a_similar_field_is_found_inside_joined_documents() -> None:
    chain = spec_of(
        "users",
        join_with("orders", "_id", "userId", shape="first"),
        join_with("skus", "found.skuu", "_id") | {"as": "x"},
    )
    assert Cure(1, 0, "local", "found.sku") in [finding.cure for finding in check_join(chain).findings]


def test_different_case_and_blanks_are_reported_with_the_share_they_cost() -> None:
    found = finding_with(spec_of("shouted", join_with("codes", "code", "code")), "capitals and blanks")
    assert (found.level, found.text) == (
        Level.WARNING,
        "50 % more of shouted would match codes if capitals and blanks did not count.",
    )


def test_keys_that_are_null_or_missing_are_counted() -> None:
    left = finding_with(spec_of("gaps", join_with("users", "user", "_id")), "have no user")
    assert (left.level, left.text) == (Level.NOTE, "50 % of gaps have no user; they match nothing.")
    inner = finding_with(spec_of("gaps", join_with("users", "user", "_id", kind="inner")), "have no user")
    assert inner.text == "50 % of gaps have no user; they are left out."


def test_a_list_of_keys_stands_for_its_elements() -> None:
    spec = spec_of("baskets", join_with("users", "users", "_id"))
    assert check_join(spec).expected.rates == [1.0]
    assert texts(spec, *PROBLEMS) == []


def test_an_overwritten_field_is_reported() -> None:
    found = finding_with(spec_of("users", join_with("orders", "_id", "userId", **{"as": "name"})), "take the place")
    assert (found.level, found.text) == (
        Level.WARNING,
        "The matches take the place of the field name that is there already.",
    )


# Filters.


def test_the_number_of_documents_that_pass_the_left_filter_is_reported() -> None:
    found = finding_with(
        spec_of("users", join_with("orders", "_id", "userId"), match={"_id": {"$lt": 5}}), "Your filter"
    )
    assert (found.level, found.text) == (Level.GOOD, "Your filter keeps 5 of 40 users.")


def test_a_left_filter_that_keeps_nothing_is_reported() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), match={"name": "nobody"})
    assert texts(spec, *PROBLEMS) == ["Your filter keeps 0 of 40 users."]
    assert (check_join(spec).expected.rows, check_join(spec).preview) == (0, [])


def test_a_condition_that_alone_keeps_nothing_is_named() -> None:
    match = {"name": "user 3", "note": {"$in": ["short", "long"]}}
    spec = spec_of("users", join_with("orders", "_id", "userId"), match=match)
    assert texts(spec, *PROBLEMS) == [
        "Your filter keeps 0 of 40 users.",
        'The condition on note alone keeps nothing: {"$in": ["short", "long"]}.',
    ]


def test_conditions_that_only_together_keep_nothing_are_not_named() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), match={"name": "user 3", "_id": 4})
    assert texts(spec, *PROBLEMS) == ["Your filter keeps 0 of 40 users."]


def test_a_join_filter_that_removes_every_match_is_reported() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId", match={"status": "PAID"}))
    found = finding_with(spec, "removes every match")
    assert (found.level, found.text) == (
        Level.WARNING,
        "The filter on orders removes every match: without it 75 % of users find one.",
    )


def test_keys_of_the_same_type_without_a_match_are_reported() -> None:
    found = finding_with(spec_of("users", join_with("orders", "name", "sku")), "finds a match")
    assert (found.level, found.text) == (
        Level.WARNING,
        "None of 40 sampled users finds a match in orders by name = sku.",
    )


# Methods and indexes.


def test_the_index_that_serves_the_keys_is_named() -> None:
    found = finding_with(spec_of("users", join_with("indexed", "_id", "userId")), "The index")
    assert found.level is Level.GOOD
    assert found.text.startswith(
        "The index indexed(userId, other) finds the matches of each row: under 0.1 s. Reading "
    )
    assert found.command is None


def test_few_documents_are_compared_without_an_index() -> None:
    found = finding_with(spec_of("users", join_with("orders", "_id", "userId")), "No index serves")
    assert (found.level, found.command) == (Level.GOOD, None)
    assert found.text.startswith("No index serves orders.userId, but there are few documents to compare: ")


def test_a_time_series_can_be_either_side(wrong_collections: Database[Document]) -> None:
    wrong_collections.create_collection("series", timeseries={"timeField": "at", "metaField": "sensor"})
    start = datetime(2024, 1, 1, tzinfo=UTC)
    readings = [{"at": start + timedelta(minutes=number), "sensor": {"id": number % 4}} for number in range(40)]
    wrong_collections.series.insert_many(readings)
    left = check_join(spec_of("series", join_with("thirds", "sensor.id", "user", shape="count")))
    assert (left.expected.rows, left.expected.rates) == (40, [1.0])
    assert len(left.preview) == 5
    other = check_join(spec_of("thirds", join_with("series", "user", "sensor.id", shape="count")))
    assert (other.expected.rows, other.expected.rates) == (10, [0.8])
    assert {row["user"]: row["found"] for row in other.preview} == {0: 10, 1: 10, 2: 10, 3: 10, 4: 0}


class HugeCatalog(Catalog):
    """Statistics of collections that are far too big to be read."""

    def stats(self, of: Side | str) -> CollectionStats:
        return CollectionStats(10**9, 10**12)

    @cached_property
    def left_count(self) -> int:
        return 10**9


def test_a_join_that_would_be_refused_is_reported_with_the_indexes_it_needs(
    wrong_collections: Database[Document],
) -> None:
    spec = spec_of("left", join_with("a", "x", "y"), join_with("b", "x", "z", **{"as": "others"}))
    strategy, (finding,) = checks._choose_strategy(spec, HugeCatalog(spec))
    assert strategy is None
    assert finding.level is Level.STOP
    assert finding.text.startswith("It would take about 48,000 s.")
    assert finding.command == "db.a.createIndex({'y': 1})\ndb.b.createIndex({'z': 1})"

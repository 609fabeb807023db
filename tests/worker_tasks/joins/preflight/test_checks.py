"""What is found out about a join before it runs, on small collections that are wrong in one way each."""

from functools import cached_property

import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.preflight.check_support import NEVER_MATCH, WRONG, asked, joined, texts, told
from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan.catalog import Catalog, CollectionStats
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.preflight.checks import check_join
from worker_tasks.joins.preflight.findings import Cure, Finding, Level

pytestmark = pytest.mark.usefixtures("wrong_collections")


# Keys that can not match.


def test_text_against_objectids_is_found_with_the_conversion_that_mends_it() -> None:
    found = told(asked("reviews", joined("products", "productId", "_id")), "never match")
    assert found.level is Level.STOP
    assert found.text == NEVER_MATCH
    assert (found.join, found.cure) == (0, Cure(0, 0, "cast", "objectId"))


def test_objectids_against_text_are_found_with_the_conversion_that_mends_it() -> None:
    found = told(asked("products", joined("reviews", "_id", "productId")), "never match")
    assert (found.level, found.cure) == (Level.STOP, Cure(0, 0, "cast", "string"))
    assert "Converted to string, 100 % find a match." in found.text


def test_with_the_conversion_nothing_is_wrong_any_more() -> None:
    spec = asked("reviews", joined("products", "productId", "_id"))
    on = [{"local": "productId", "foreign": "_id", "cast": "objectId"}]
    mended = asked("reviews", joined("products", "productId", "_id", on=on))
    assert (check_join(spec).expected.rates, check_join(mended).expected.rates) == ([0.0], [0.5])
    assert texts(mended, *WRONG) == []


def test_types_that_nothing_converts_are_found_without_a_cure() -> None:
    found = told(asked("users", joined("products", "_id", "_id")), "never match")
    assert found.text == "users._id holds numbers, products._id ObjectIds: they never match."
    assert found.cure is None


def test_mixed_types_on_the_left_side_are_found_with_the_conversion_that_mends_them() -> None:
    found = told(asked("mixed", joined("products", "productId", "_id")), "which never match")
    assert found.level is Level.WARNING
    assert found.text == (
        "50 % of mixed.productId are text, which never match products._id. Converted to objectId, 100 % find a match."
    )
    assert found.cure == Cure(0, 0, "cast", "objectId")


def test_mixed_types_on_the_other_side_are_found() -> None:
    found = told(asked("products", joined("mixed", "_id", "productId")), "which nothing of products matches")
    assert (found.level, found.text[:38]) == (Level.WARNING, "50 % of mixed.productId are text, whic")


def test_numbers_of_several_types_are_nothing_to_complain_about() -> None:
    spec = asked("priced", joined("prices", "price", "price"))
    assert check_join(spec).expected.rates == [1.0]
    assert texts(spec, *WRONG) == []


def test_a_field_that_the_left_side_has_not_is_found_with_the_one_that_was_meant() -> None:
    found = told(asked("reviews", joined("products", "productID", "_id")), "No document of reviews")
    assert (found.level, found.text) == (
        Level.STOP,
        "No document of reviews has productID. Did you mean productId?",
    )
    assert found.cure == Cure(0, 0, "local", "productId")


def test_a_field_that_the_other_side_has_not_is_found_with_the_one_that_was_meant() -> None:
    found = told(asked("products", joined("reviews", "_id", "productid")), "No document of reviews")
    assert (found.level, found.text) == (
        Level.STOP,
        "No document of reviews has productid. Did you mean productId?",
    )
    assert found.cure == Cure(0, 0, "foreign", "productId")


def test_a_field_that_resembles_none_is_found_without_a_cure() -> None:
    spec = asked("products", joined("reviews", "wherever", "elsewhere"))
    missing = [finding for finding in check_join(spec).findings if finding.level is Level.STOP]
    assert [finding.text for finding in missing] == [
        "No document of products has wherever.",
        "No document of reviews has elsewhere.",
    ]
    assert [finding.cure for finding in missing] == [None, None]


def test_only_the_pair_that_is_wrong_of_several_is_to_be_mended() -> None:
    on = [{"local": "_id", "foreign": "userId"}, {"local": "nmae", "foreign": "status"}]
    found = told(asked("users", joined("orders", "_id", "userId", on=on)), "Did you mean")
    assert found.cure == Cure(0, 1, "local", "name")


def test_an_empty_other_collection_is_found() -> None:
    spec = asked("users", joined("empty", "_id", "userId"))
    assert texts(spec, Level.STOP) == ["empty is empty."]


def test_an_empty_left_collection_is_found() -> None:
    spec = asked("empty", joined("users", "userId", "_id"))
    assert texts(spec, Level.STOP) == ["empty is empty."]
    assert check_join(spec).expected.rows == 0


@pytest.mark.parametrize(("left", "other", "share"), [("cities", "places", "22 %"), ("places", "cities", "67 %")])
def test_capitals_are_found_whichever_side_has_them(left: str, other: str, share: str) -> None:
    found = told(asked(left, joined(other, "city", "city")), "capitals and blanks")
    assert found.text.startswith(f"{share} of {left} would match")


def test_a_list_of_several_types_is_known_by_all_of_them() -> None:
    (wrong,) = texts(asked("baskets_of_text", joined("users", "ids", "_id")), *WRONG)
    assert wrong.startswith("50 % of baskets_of_text.ids are text, which never match users._id.")


def test_a_field_that_is_misspelt_in_a_filter_is_found_on_either_side() -> None:
    spec = asked("users", joined("orders", "_id", "userId", match={"stauts": "paid"}), match={"nmae": "x"})
    found = texts(spec, *WRONG)
    assert "The filter asks for nmae, which no sampled document of users has. Did you mean name?" in found
    assert "The filter asks for stauts, which no sampled document of orders has. Did you mean status?" in found


def test_what_is_joined_in_vain_is_found() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), fields=["name"])
    assert texts(spec, *WRONG) == ["orders is joined into found, which is not among the fields that are kept."]


def test_a_preview_that_can_be_sorted_is() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), sort=[["_id", -1]])
    found = check_join(spec)
    assert ([row["_id"] for row in found.preview], found.is_sample) == ([39, 38, 37, 36, 35], False)


def test_nothing_left_over_is_explained() -> None:
    spec = asked("orders", joined("users", "userId", "_id", kind="anti"))
    assert checks.explain_empty(spec) == [
        "100 % of orders find a match in users by userId = _id, so none is left over."
    ]


def test_the_match_alone_is_proposed_where_there_is_but_one() -> None:
    cures = [finding.cure for finding in check_join(asked("orders", joined("users", "userId", "_id"))).findings]
    assert Cure(0, 0, "shape", "first") in cures
    several = check_join(asked("baskets", joined("users", "users", "_id"))).findings
    assert not any(finding.cure for finding in several)


def test_the_preview_has_no_more_rows_than_the_join() -> None:
    assert len(check_join(asked("users", joined("orders", "_id", "userId"), limit=2)).preview) == 2


def test_a_nested_field_that_is_missing_is_guessed_as_well() -> None:
    chain = asked(
        "users", joined("orders", "_id", "userId", shape="first"), joined("skus", "found.skuu", "_id") | {"as": "x"}
    )
    assert Cure(1, 0, "local", "found.sku") in [finding.cure for finding in check_join(chain).findings]


def test_other_capitals_and_blanks_are_found_with_the_share_that_they_cost() -> None:
    found = told(asked("shouted", joined("codes", "code", "code")), "capitals and blanks")
    assert (found.level, found.text) == (
        Level.WARNING,
        "50 % of shouted would match codes if capitals and blanks did not count; they do.",
    )


def test_keys_that_are_null_or_missing_are_counted() -> None:
    left = told(asked("gaps", joined("users", "user", "_id")), "have no user")
    assert (left.level, left.text) == (Level.NOTE, "50 % of gaps have no user; they match nothing.")
    inner = told(asked("gaps", joined("users", "user", "_id", kind="inner")), "have no user")
    assert inner.text == "50 % of gaps have no user; they are left out."


def test_a_list_of_keys_stands_for_its_elements() -> None:
    spec = asked("baskets", joined("users", "users", "_id"))
    assert check_join(spec).expected.rates == [1.0]
    assert texts(spec, *WRONG) == []


def test_a_field_that_is_written_over_is_found() -> None:
    found = told(asked("users", joined("orders", "_id", "userId", **{"as": "name"})), "take the place")
    assert (found.level, found.text) == (
        Level.WARNING,
        "The matches take the place of the field name that is there already.",
    )


# Filters.


def test_what_the_left_filter_keeps_is_told() -> None:
    found = told(asked("users", joined("orders", "_id", "userId"), match={"_id": {"$lt": 5}}), "Your filter")
    assert (found.level, found.text) == (Level.GOOD, "Your filter keeps 5 of 40 users.")


def test_a_left_filter_that_keeps_nothing_is_found() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), match={"name": "nobody"})
    assert texts(spec, *WRONG) == ["Your filter keeps 0 of 40 users."]
    assert (check_join(spec).expected.rows, check_join(spec).preview) == (0, [])


def test_the_condition_that_alone_keeps_nothing_is_named() -> None:
    match = {"name": "user 3", "note": {"$in": ["short", "long"]}}
    spec = asked("users", joined("orders", "_id", "userId"), match=match)
    assert texts(spec, *WRONG) == [
        "Your filter keeps 0 of 40 users.",
        'The condition on note alone keeps nothing: {"$in": ["short", "long"]}.',
    ]


def test_conditions_that_keep_nothing_only_together_are_not_blamed_alone() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), match={"name": "user 3", "_id": 4})
    assert texts(spec, *WRONG) == ["Your filter keeps 0 of 40 users."]


def test_a_filter_of_the_join_that_removes_every_match_is_found() -> None:
    spec = asked("users", joined("orders", "_id", "userId", match={"status": "PAID"}))
    found = told(spec, "removes every match")
    assert (found.level, found.text) == (
        Level.WARNING,
        "The filter on orders removes every match: without it 75 % of users find one.",
    )


def test_keys_of_the_same_type_that_never_meet_are_found() -> None:
    found = told(asked("users", joined("orders", "name", "sku")), "finds a match")
    assert (found.level, found.text) == (
        Level.WARNING,
        "None of 40 sampled users finds a match in orders by name = sku.",
    )


# How it will be run.


def test_the_index_that_serves_is_named() -> None:
    found = told(asked("users", joined("indexed", "_id", "userId")), "The index")
    assert (found.level, found.text) == (Level.GOOD, "The index indexed(userId, other) finds the matches.")
    assert found.command is None


def test_without_an_index_the_command_that_makes_it_is_given() -> None:
    found = told(asked("users", joined("orders", "_id", "userId", match={"status": "paid"})), "No index serves")
    assert found.text.startswith("No index serves orders.userId: ")
    assert found.command == "db.orders.createIndex({'userId': 1})"


def test_a_collection_that_is_held_in_memory_needs_no_index() -> None:
    found = told(asked("users", joined("orders", "_id", "userId")), "No index serves")
    assert (found.level, found.command) == (Level.GOOD, None)
    assert "small enough" in found.text


class Endless(Catalog):
    """A catalogue of collections that are far too big to be compared, and have nothing but lists for keys."""

    def stats(self, collection: str) -> CollectionStats:
        return CollectionStats(10**6, 10**9)

    @cached_property
    def left_count(self) -> int:
        return 10**6

    def holds_lists(self, collection: str, path: str) -> bool:
        return True


def test_a_join_that_would_be_refused_is_found_with_the_commands_that_make_it_possible(
    wrong_collections: Database[Document],
) -> None:
    spec = asked("left", joined("a", "x", "y"), joined("b", "x", "z", **{"as": "others"}))
    found: list[Finding] = []
    assert checks._strategy(spec, Endless(spec, wrong_collections), found) is None
    (finding,) = found
    assert finding.level is Level.STOP
    assert "about 1,000,000,000,000 comparisons" in finding.text
    assert finding.command == "db.a.createIndex({'y': 1})\ndb.b.createIndex({'z': 1})"

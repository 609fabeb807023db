"""What is found out about a join before it runs, on small collections that are wrong in one way each."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from pymongo.database import Database

from worker_tasks.connections import Document, connections
from worker_tasks.joins import checks, findings
from worker_tasks.joins.catalog import Catalog, Known
from worker_tasks.joins.checks import Checks, Expected, check
from worker_tasks.joins.encoding import Lines
from worker_tasks.joins.findings import Cure, Finding, Level
from worker_tasks.joins.pipeline import compile_pipeline
from worker_tasks.joins.probing import JoinFacts, KeyFacts
from worker_tasks.joins.sampling import Field, Look
from worker_tasks.joins.spec import Join, JoinSpec, KeyPair
from worker_tasks.joins.stages import matching
from worker_tasks.joins.strategy import Step, Way, choose
from worker_tasks.settings import settings

NAME = "checks"
NOTE = "n" * 150


def oid(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


USER_OR_GAP: list[Document] = [{"user": 1}, {"user": 2}, {"user": None}, {}]
COLLECTIONS: dict[str, list[Document]] = {
    "products": [{"_id": oid(number), "name": f"product {number}"} for number in range(10)],
    # Half of them name a product that is there, if only they were no text.
    "reviews": [{"_id": number, "productId": str(oid(number))} for number in range(20)],
    "mixed": [{"_id": number, "productId": oid(number) if number % 2 else str(oid(number))} for number in range(10)],
    "priced": [
        {"_id": number, "price": price} for number, price in enumerate([1, Int64(2), 3.0, Decimal128("4"), 5, 6])
    ],
    "prices": [{"_id": f"p{number}", "price": float(number)} for number in range(1, 7)],
    "codes": [{"_id": number, "code": f"code {number}"} for number in range(10)],
    "shouted": [
        {"_id": number, "code": f" CODE {number} " if number < 5 else f"code {number}"} for number in range(10)
    ],
    "gaps": [{"_id": number, **USER_OR_GAP[number % 4]} for number in range(40)],
    "baskets": [{"_id": number, "users": [number, number + 1]} for number in range(10)],
    "users": [{"_id": number, "name": f"user {number}", "note": NOTE} for number in range(40)],
    # Of user n, for three of four of them, n % 4 orders.
    "orders": [
        {"_id": f"o{user}.{number}", "userId": user, "sku": f"s{number}", "status": "paid", "note": NOTE}
        for user in range(40)
        for number in range(user % 4)
    ],
    "indexed": [{"_id": number, "userId": number % 20} for number in range(40)],
    "strays": [{"_id": number, "userId": number} for number in range(20, 60)],
    # Either side of each key is written otherwise: capitals, blanks, both.
    "cities": [{"_id": number, "city": f"berlin {number}"} for number in range(9)],
    "places": [{"_id": number, "city": text} for number, text in enumerate(["Berlin 0", "BERLIN 1", "berlin 2"])],
    "baskets_of_text": [{"_id": number, "ids": [str(number), number]} for number in range(10)],
    "thirds": [{"_id": number, "user": number % 5} for number in range(10)],
    "halves": [{"_id": number, "user": number % 10, "even": number % 2} for number in range(40)],
    "skus": [{"_id": f"s{number}", "name": f"sku {number}"} for number in range(2)],
}


@pytest.fixture(scope="module", autouse=True)
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins[NAME]
    for name, documents in COLLECTIONS.items():
        database[name].insert_many(documents)
    database.create_collection("empty")
    database.indexed.create_index([("userId", 1), ("other", 1)])
    yield database
    connections().joins.drop_database(NAME)


def asked(left: str, *joins: Document, **more: Any) -> JoinSpec:
    return JoinSpec.model_validate_json(json.dumps({"database": NAME, "from": left, "joins": joins, **more}))


def joined(other: str, local: str, foreign: str, **more: Any) -> Document:
    name = {} if more.get("kind") in {"semi", "anti"} else {"as": "found"}
    return {"from": other, "on": [{"local": local, "foreign": foreign}], **name, **more}


def told(spec: JoinSpec, words: str) -> Finding:
    """The one finding with these words."""
    found = check(spec).findings
    (finding,) = [finding for finding in found if words in finding.text]
    return finding


def texts(spec: JoinSpec, *levels: Level) -> list[str]:
    return [finding.text for finding in check(spec).findings if finding.level in levels]


WRONG = (Level.STOP, Level.WARNING)


# Keys that can not match.

NEVER_MATCH = (
    "reviews.productId holds text, products._id ObjectIds: they never match. Converted to objectId, 50 % find a match."
)


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
    assert (check(spec).expected.rates, check(mended).expected.rates) == ([0.0], [0.5])
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
    assert check(spec).expected.rates == [1.0]
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
    missing = [finding for finding in check(spec).findings if finding.level is Level.STOP]
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
    assert check(spec).expected.rows == 0


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
    found = check(spec)
    assert ([row["_id"] for row in found.preview], found.is_sample) == ([39, 38, 37, 36, 35], False)


def test_nothing_left_over_is_explained() -> None:
    spec = asked("orders", joined("users", "userId", "_id", kind="anti"))
    assert checks.why_empty(spec) == ["100 % of orders find a match in users by userId = _id, so none is left over."]


def test_the_match_alone_is_proposed_where_there_is_but_one() -> None:
    cures = [finding.cure for finding in check(asked("orders", joined("users", "userId", "_id"))).findings]
    assert Cure(0, 0, "shape", "first") in cures
    several = check(asked("baskets", joined("users", "users", "_id"))).findings
    assert not any(finding.cure for finding in several)


def test_the_preview_has_no_more_rows_than_the_join() -> None:
    assert len(check(asked("users", joined("orders", "_id", "userId"), limit=2)).preview) == 2


def test_a_nested_field_that_is_missing_is_guessed_as_well() -> None:
    chain = asked(
        "users", joined("orders", "_id", "userId", shape="first"), joined("skus", "found.skuu", "_id") | {"as": "x"}
    )
    assert Cure(1, 0, "local", "found.sku") in [finding.cure for finding in check(chain).findings]


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
    assert check(spec).expected.rates == [1.0]
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
    assert (check(spec).expected.rows, check(spec).preview) == (0, [])


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

    def known(self, collection: str) -> Known:
        return Known(10**6, 10**9)

    @cached_property
    def left_count(self) -> int:
        return 10**6

    def holds_lists(self, collection: str, path: str) -> bool:
        return True


def test_a_join_that_would_be_refused_is_found_with_the_commands_that_make_it_possible(
    database: Database[Document],
) -> None:
    spec = asked("left", joined("a", "x", "y"), joined("b", "x", "z", **{"as": "others"}))
    found: list[Finding] = []
    assert checks._strategy(spec, Endless(spec, database), found) is None
    (finding,) = found
    assert finding.level is Level.STOP
    assert "about 1,000,000,000,000 comparisons" in finding.text
    assert finding.command == "db.a.createIndex({'y': 1})\ndb.b.createIndex({'z': 1})"


@pytest.mark.parametrize(
    ("step", "served_by", "level", "words", "has_command"),
    [
        (Step(Way.INDEX, 0), "other(key)", Level.GOOD, "The index other(key) finds the matches.", False),
        (Step(Way.HASH, 0), None, Level.GOOD, "other is small enough to be held in memory.", False),
        (Step(Way.COMPARE, 0.4), None, Level.NOTE, "every pair is compared, about 0 s.", True),
        (Step(Way.COMPARE, 120), None, Level.WARNING, "every pair is compared, about 120 s.", True),
        (Step(Way.ONE_PASS, 2.5), None, Level.NOTE, "in one pass, about 2.5 s before the first row.", True),
        (Step(Way.ONE_PASS, 2.5), "other(key)", Level.GOOD, "Both sides are read in one pass", False),
        (Step(Way.SWAPPED, 1), None, Level.GOOD, "It is joined from the other side", False),
    ],
    ids=["index", "memory", "few compared", "many compared", "one pass", "one pass for all that", "swapped"],
)
def test_each_way_of_running_it_is_put_in_words(
    step: Step, served_by: str | None, level: Level, words: str, has_command: bool
) -> None:
    found = findings.of_way(a_join(), 0, step, served_by, can_be_indexed=True)
    assert (found.level, found.command is not None) == (level, has_command)
    assert words in found.text


# Amounts, from facts that a test makes up.


def a_join(**more: Any) -> Join:
    return Join.model_validate_json(json.dumps(joined("other", "key", "key", **more)))


def a_look(**more: Any) -> Look:
    fields = (Field("_id", 1, {"int": 1}), Field("key", 1, {"string": 1}))
    look = Look(count=1000, sampled=200, size=100, indexed=("_id",), unique=(("_id",),), fields=fields)
    return replace(look, **more)


def facts_of(join: Join, other: Look, **more: Any) -> JoinFacts:
    keys = [KeyFacts(pair, Counter(string=100), 0.0, frozenset({"key"}), other) for pair in join.on]
    found = {"matched": 50, "matches": 1.0, "most": 2, "most_key": ["Ada"]}
    return replace(JoinFacts(0, join, 100, keys, other), **{**found, **more})


def said(join: Join, other: Look | None = None, **more: Any) -> list[tuple[Level, str]]:
    found = findings.of_join(facts_of(join, other or a_look(), **more), "left")
    return [(finding.level, finding.text) for finding in found]


BIG: dict[str, Any] = {"most": 2_000, "matches": 20.0}


def test_more_matches_than_one_document_holds_are_found_with_the_key_that_has_them() -> None:
    found = said(a_join(), a_look(size=10_000.0), **BIG)
    (text,) = [text for level, text in found if level is Level.STOP]
    assert text.startswith("Ada has 2,000 matches, about 19 MB: more than the 16 MB of one document.")


@pytest.mark.parametrize(
    "change",
    [{"shape": "rows"}, {"shape": "first"}, {"shape": "count"}, {"limit": 1000}, {"fields": ["name"]}],
    ids=str,
)
def test_as_many_matches_are_no_matter_where_they_do_not_go_into_one_document(change: Document) -> None:
    assert Level.STOP not in [level for level, _ in said(a_join(**change), a_look(size=10_000.0), **BIG)]


def test_as_many_small_matches_are_no_matter() -> None:
    assert Level.STOP not in [level for level, _ in said(a_join(), **BIG)]


def test_the_first_match_of_several_without_an_order_is_questioned() -> None:
    words = "Each match is one of 2.0 on average, and no order says which is the first."
    assert (Level.WARNING, words) in said(a_join(shape="first"))
    assert (Level.WARNING, words) not in said(a_join(shape="first", sort=[["at", -1]]))


def test_rows_that_are_repeated_are_told() -> None:
    words = "Each of left is repeated 2.0 times on average: their values count as often."
    assert (Level.NOTE, words) in said(a_join(shape="rows"))


def test_how_many_match_each_is_told_with_the_most() -> None:
    words = "26.0 documents of other match each on average, 1,234 at most."
    assert (Level.NOTE, words) in said(a_join(), matches=13.0, most=1234)


def test_a_list_of_one_at_most_is_told_with_the_handier_shape() -> None:
    facts = facts_of(a_join(), a_look(unique=(("key",),)), matches=0.5, most=1)
    (found,) = [finding for finding in findings.of_join(facts, "left") if finding.cure]
    assert (found.level, found.cure) == (Level.NOTE, Cure(0, 0, "shape", "first"))


def test_what_could_not_be_found_out_in_time_is_said() -> None:
    words = "How many of left match other could not be found out in time."
    assert said(a_join(), matched=None, matches=None) == [(Level.NOTE, words)]


def test_few_matches_are_a_warning_and_many_are_good() -> None:
    few, many = (said(a_join(kind="semi"), matched=matched) for matched in (4, 60))
    assert few == [(Level.WARNING, "About 4 % of left find a match in other by key = key.")]
    assert many == [(Level.GOOD, "About 60 % of left find a match in other by key = key.")]


def test_no_match_is_what_an_anti_join_may_ask_for() -> None:
    assert [level for level, _ in said(a_join(kind="anti"), matched=0, matches=0.0, most=0)] == [Level.NOTE]


def test_where_keys_can_never_match_it_is_not_said_twice_that_none_does() -> None:
    join, other = a_join(), a_look()
    keys = [KeyFacts(KeyPair(local="key", foreign="key"), Counter(objectId=100), 0.0, frozenset({"key"}), other)]
    found = said(join, other, keys=keys, matched=0, matches=0.0, most=0)
    assert found == [(Level.STOP, "left.key holds ObjectIds, other.key text: they never match.")]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.004, "under 1 %"), (0.05, "5 %"), (0.83, "83 %"), (0.995, "over 99 %"), (1, "100 %")],
)
def test_shares_are_rounded_but_never_to_none_or_all(share: float, words: str) -> None:
    assert findings.percent(share) == words


def test_a_result_that_is_bigger_than_allowed_is_found() -> None:
    limits = settings()
    rows, size = limits.result_max_rows + 1, (limits.result_max_mib + 1) * 2**20
    found = list(checks._of_limits(Expected(rows, size, 1.0, [])))
    assert [finding.level for finding in found] == [Level.WARNING, Level.WARNING]
    assert found[0].text.startswith(f"About {rows:,} rows are more than the {limits.result_max_rows:,}")
    assert list(checks._of_limits(Expected(rows - 1, size - 2**20, 1.0, []))) == []
    assert list(checks._of_limits(Expected(None, None, None, []))) == []


# What is to be expected, next to what comes.


def result_of(spec: JoinSpec) -> list[Document]:
    source = connections().joins[NAME]
    aggregation = compile_pipeline(spec, choose(spec, Catalog(spec, source), settings().join_seconds))
    whole = matching(aggregation.filter) + aggregation.pipeline
    return list(source[aggregation.collection].aggregate(whole))


def bytes_of(rows: list[Document]) -> int:
    return sum(len(line) for row in rows for lines in Lines({}).encode(bson.encode(row)) for line in lines)


SHAPES = [{"kind": kind, "shape": shape} for kind in ("left", "inner") for shape in ("array", "rows", "first", "count")]


@pytest.mark.parametrize(
    "form", [*SHAPES, {"kind": "semi"}, {"kind": "anti"}], ids=lambda form: "-".join(form.values())
)
def test_rows_and_bytes_come_as_expected(form: Document) -> None:
    spec = asked("users", joined("orders", "_id", "userId", **form))
    expected, rows = check(spec).expected, result_of(spec)
    assert expected.rates == [0.75]
    assert expected.rows == len(rows)
    assert expected.bytes == pytest.approx(bytes_of(rows), rel=0.15)
    assert expected.seconds is not None
    assert 0 < expected.seconds < 1


@pytest.mark.parametrize(
    ("more", "rows"), [({}, 30), ({"shape": "rows"}, 60), ({"match": {"even": 0}}, 7 + 8), ({"shape": "first"}, 30)]
)
def test_an_outer_join_counts_what_nothing_matches_from_the_other_side(more: Document, rows: int) -> None:
    spec = asked("thirds", joined("halves", "user", "user", kind="outer", **more))
    assert rows_of(spec) == check(spec).expected.rows


def rows_of(spec: JoinSpec) -> int:
    """How many rows the join really has."""
    source = connections().joins[NAME]
    aggregation = compile_pipeline(spec, choose(spec, Catalog(spec, source), 300))
    return len(list(source[aggregation.collection].aggregate(matching(aggregation.filter) + aggregation.pipeline)))


def test_an_outer_join_is_expected_to_bring_what_matches_nothing_from_either_side() -> None:
    spec = asked("users", joined("strays", "_id", "userId", kind="outer"))
    expected = check(spec).expected
    assert (expected.rates, expected.rows) == ([0.5], 60)
    assert len(result_of(spec)) == 60


def test_filters_of_both_sides_are_taken_into_account() -> None:
    orders = joined("orders", "_id", "userId", kind="inner", match={"sku": "s1"})
    spec = asked("users", orders, match={"_id": {"$lt": 20}})
    expected = check(spec).expected
    assert (expected.rates, expected.rows) == ([0.5], 10)
    assert len(result_of(spec)) == 10


def test_no_more_rows_are_expected_than_the_limit() -> None:
    orders = joined("orders", "_id", "userId", shape="rows")
    assert check(asked("users", orders, limit=7)).expected.rows == 7


def test_fewer_bytes_are_expected_where_fewer_fields_are_kept() -> None:
    whole = asked("users", joined("orders", "_id", "userId"))
    less = asked("users", joined("orders", "_id", "userId", fields=["userId", "sku"]), fields=["name", "found"])
    sizes = [check(spec).expected.bytes or 0 for spec in (less, whole)]
    assert 0 < sizes[0] < sizes[1] / 2


# Several joins.

ORDERS_OF_USERS = joined("orders", "_id", "userId", kind="inner", shape="rows", **{"as": "order"})


def test_a_join_that_uses_what_an_earlier_one_brought_is_looked_at_too() -> None:
    spec = asked("users", ORDERS_OF_USERS, joined("skus", "order.sku", "_id", **{"as": "sku"}))
    found, rows = check(spec), result_of(spec)
    # Of sixty orders ten are of the sku that is not there.
    assert found.expected.rates == [0.75, pytest.approx(50 / 60, abs=0.001)]
    assert found.expected.rows == len(rows) == 60
    assert found.expected.bytes == pytest.approx(bytes_of(rows), rel=0.15)
    told_of_second = [finding.text for finding in found.findings if finding.join == 1]
    assert "83 % of users find a match in skus by order.sku = _id." in told_of_second
    assert texts(spec, *WRONG) == []


def test_a_brought_field_of_another_type_is_found_with_its_cure_for_that_join() -> None:
    spec = asked("users", ORDERS_OF_USERS, joined("reviews", "order.userId", "productId", **{"as": "review"}))
    found = told(spec, "never match")
    assert (found.level, found.join) == (Level.STOP, 1)


def test_a_brought_field_that_is_not_there_is_found() -> None:
    spec = asked("users", ORDERS_OF_USERS, joined("skus", "order.colour", "_id", **{"as": "sku"}))
    found = told(spec, "has order.colour")
    assert (found.level, found.join) == (Level.STOP, 1)


def test_the_rows_of_a_first_join_in_lists_find_their_matches_by_the_elements() -> None:
    orders = joined("orders", "_id", "userId", **{"as": "orders"})
    spec = asked("users", orders, joined("skus", "orders.sku", "_id", kind="inner", **{"as": "skus"}))
    expected = check(spec).expected
    assert expected.rates == [0.75, 0.75]
    assert expected.rows == len(result_of(spec)) == 30


# What is shown and kept.


def test_a_few_joined_rows_are_shown_as_they_come() -> None:
    spec = asked("users", joined("orders", "_id", "userId", kind="inner"))
    found = check(spec)
    assert len(found.preview) == 5
    assert not found.is_sample
    assert all(row["found"][0]["userId"] == row["_id"] for row in found.preview)


def test_as_many_rows_are_shown_as_there_are() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), match={"_id": {"$in": [3, 4]}})
    assert sorted(row["_id"] for row in check(spec).preview) == [3, 4]


def test_few_matches_of_a_row_are_shown(database: Database[Document]) -> None:
    database.one.insert_one({"_id": 1})
    database.hundred.insert_many([{"_id": number, "one": 1} for number in range(100)])
    (row,) = check(asked("one", joined("hundred", "_id", "one"))).preview
    assert len(row["found"]) == 5


def test_what_is_shown_of_rare_types_is_json(database: Database[Document]) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    database.rare.insert_one({"_id": oid(1), "at": at, "price": Decimal128("1.50"), "raw": b"x", "n": float("nan")})
    (row,) = check(asked("rare", joined("products", "_id", "_id"))).preview
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["_id"], row["at"]) == ({"$oid": str(oid(1))}, {"$date": "2024-01-01T00:00:00Z"})
    assert (row["price"], row["n"]) == ({"$numberDecimal": "1.50"}, {"$numberDouble": "NaN"})


def test_the_most_pressing_is_told_first() -> None:
    spec = asked("reviews", joined("products", "productId", "_id", **{"as": "_"}), match={"_id": {"$gte": 0}})
    order = [list(Level).index(finding.level) for finding in check(spec).findings]
    assert order == sorted(order, reverse=True)
    assert check(spec).findings[0].level is Level.STOP


def test_the_pipeline_is_told_as_it_is_typed_into_the_shell() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), match={"_id": 3})
    text = check(spec).pipeline
    assert text.startswith(f'db.getSiblingDB("{NAME}").getCollection("users").aggregate([')
    assert "$lookup" in text
    assert "{ $match: { _id: { $eq: 3 } } }" in text


def test_what_was_found_is_found_again_by_the_fingerprint_for_a_while() -> None:
    spec = asked("users", joined("orders", "_id", "userId"), limit=3)
    assert checks.kept(spec.fingerprint) is None
    found = check(spec)
    assert checks.kept(spec.fingerprint) == json.loads(json.dumps(found.to_document()))
    assert 0 < connections().results.ttl(f"join_check:{spec.fingerprint}") <= checks.KEPT_SECONDS


def test_with_a_task_goes_everything_but_the_rows_that_were_shown() -> None:
    found: Checks = check(asked("users", joined("orders", "_id", "userId")))
    verdict = checks.verdict(found.to_document())
    assert verdict.keys() == {"findings", "expected", "seconds"}
    assert verdict["expected"]["rows"] == 40
    assert verdict["findings"][0].keys() == {"level", "text", "join", "cure", "command"}
    assert bson.encode(verdict)


def test_an_empty_result_is_explained_in_sentences() -> None:
    spec = asked("reviews", joined("products", "productId", "_id", kind="inner"))
    assert checks.why_empty(spec) == [NEVER_MATCH]
    filtered = asked("users", joined("orders", "_id", "userId", kind="semi"), match={"name": "nobody"})
    assert checks.why_empty(filtered) == ["Your filter keeps 0 of 40 users."]


def test_the_likeliest_reason_for_an_empty_result_comes_first() -> None:
    join = joined("reviews", "_id", "productId", kind="inner", match={"stars": 5}, **{"as": "name"})
    reasons = checks.why_empty(asked("products", join))
    assert len(reasons) == 3
    assert "never match" in reasons[0]
    assert "take the place" in reasons[1]
    assert reasons[2] == "The filter asks for stars, which no sampled document of reviews has."


def test_of_a_join_that_brings_something_nothing_is_explained() -> None:
    assert checks.why_empty(asked("users", joined("orders", "_id", "userId", kind="inner"))) == []

"""The estimates for a join, compared with its real result; the preview; and the stored checks."""

import json
from datetime import UTC, datetime

import bson
import pytest
from bson import Decimal128
from pymongo.database import Database

from tests.worker_tasks.joins.preflight.check_support import (
    NAME,
    NEVER_MATCH,
    PROBLEMS,
    finding_with,
    join_with,
    oid,
    spec_of,
    texts,
)
from tests.worker_tasks.joins.reference import joined
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.strategy import allows_lookup
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.preflight.checks import Checks, check_join
from worker_tasks.joins.preflight.findings import Level
from worker_tasks.joins.preflight.lookups import lookups
from worker_tasks.joins.reading.encoding import LineEncoder
from worker_tasks.joins.spec.spec import JoinSpec

pytestmark = pytest.mark.usefixtures("wrong_collections")


# Estimates compared with the real result.


def result_of(spec: JoinSpec) -> list[Document]:
    """The rows of the real join."""
    source = connections().joins[NAME]
    if allows_lookup(spec):
        return list(source[spec.from_].aggregate(compile_pipeline(spec, lookups(spec))))
    data = {side.collection: list(source[side.collection].find()) for side in spec.sides}
    return joined(spec, data)


def bytes_of(rows: list[Document]) -> int:
    return sum(len(line) for row in rows for lines in LineEncoder({}).encode(bson.encode(row)) for line in lines)


SHAPES = [{"kind": kind, "shape": shape} for kind in ("left", "inner") for shape in ("array", "rows", "first", "count")]


@pytest.mark.parametrize(
    "form", [*SHAPES, {"kind": "semi"}, {"kind": "anti"}], ids=lambda form: "-".join(form.values())
)
def test_rows_and_bytes_are_estimated(form: Document) -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId", **form))
    expected, rows = check_join(spec).expected, result_of(spec)
    assert expected.rates == [0.75]
    assert expected.rows == len(rows)
    assert expected.bytes == pytest.approx(bytes_of(rows), rel=0.15)
    assert expected.seconds is not None
    assert 0 < expected.seconds < 1


@pytest.mark.parametrize(
    ("more", "rows"), [({}, 30), ({"shape": "rows"}, 60), ({"match": {"even": 0}}, 7 + 8), ({"shape": "first"}, 30)]
)
def test_the_estimate_of_an_outer_join_includes_unmatched_documents_of_the_other_side(
    more: Document, rows: int
) -> None:
    spec = spec_of("thirds", join_with("halves", "user", "user", kind="outer", **more))
    assert len(result_of(spec)) == check_join(spec).expected.rows


def test_the_estimate_of_an_outer_join_includes_unmatched_documents_of_both_sides() -> None:
    spec = spec_of("users", join_with("strays", "_id", "userId", kind="outer"))
    expected = check_join(spec).expected
    assert (expected.rates, expected.rows) == ([0.5], 60)
    assert len(result_of(spec)) == 60


def test_the_estimate_considers_the_filters_of_both_sides() -> None:
    orders = join_with("orders", "_id", "userId", kind="inner", match={"sku": "s1"})
    spec = spec_of("users", orders, match={"_id": {"$lt": 20}})
    expected = check_join(spec).expected
    assert (expected.rates, expected.rows) == ([0.5], 10)
    assert len(result_of(spec)) == 10


def test_the_estimate_does_not_exceed_the_limit() -> None:
    orders = join_with("orders", "_id", "userId", shape="rows")
    assert check_join(spec_of("users", orders, limit=7)).expected.rows == 7


def test_fewer_bytes_are_estimated_for_fewer_fields() -> None:
    whole = spec_of("users", join_with("orders", "_id", "userId"))
    less = spec_of("users", join_with("orders", "_id", "userId", fields=["userId", "sku"]), fields=["name", "found"])
    sizes = [check_join(spec).expected.bytes or 0 for spec in (less, whole)]
    assert 0 < sizes[0] < sizes[1] / 2


# Several joins.

ORDERS_OF_USERS = join_with("orders", "_id", "userId", kind="inner", shape="rows", **{"as": "order"})


def test_a_join_on_a_field_of_an_earlier_one_is_estimated() -> None:
    spec = spec_of("users", ORDERS_OF_USERS, join_with("skus", "order.sku", "_id", **{"as": "sku"}))
    found, rows = check_join(spec), result_of(spec)
    # Ten of the sixty orders have a sku that does not exist.
    assert found.expected.rates == [0.75, pytest.approx(50 / 60, abs=0.001)]
    assert found.expected.rows == len(rows) == 60
    assert found.expected.bytes == pytest.approx(bytes_of(rows), rel=0.15)
    about_second = [finding.text for finding in found.findings if finding.join == 1]
    assert "83 % of users find a match in skus by order.sku = _id." in about_second
    assert texts(spec, *PROBLEMS) == [
        "Each document of users appears 2.0 times on average; a sum of its own fields counts them that often."
    ]


def test_a_type_mismatch_with_an_earlier_joins_field_is_reported_for_the_later_join() -> None:
    spec = spec_of("users", ORDERS_OF_USERS, join_with("reviews", "order.userId", "productId", **{"as": "review"}))
    found = finding_with(spec, "never match")
    assert (found.level, found.join) == (Level.STOP, 1)


def test_a_missing_field_of_an_earlier_join_is_reported() -> None:
    spec = spec_of("users", ORDERS_OF_USERS, join_with("skus", "order.colour", "_id", **{"as": "sku"}))
    found = finding_with(spec, "has order.colour")
    assert (found.level, found.join) == (Level.STOP, 1)


def test_the_elements_of_an_embedded_list_find_matches() -> None:
    orders = join_with("orders", "_id", "userId", **{"as": "orders"})
    spec = spec_of("users", orders, join_with("skus", "orders.sku", "_id", kind="inner", **{"as": "skus"}))
    expected = check_join(spec).expected
    assert expected.rates == [0.75, 0.75]
    assert expected.rows == len(result_of(spec)) == 30


# Preview and stored checks.


def test_the_preview_has_the_first_five_rows() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId", kind="inner"))
    found = check_join(spec)
    assert len(found.preview) == 5
    assert not found.is_sample
    assert all(row["found"][0]["userId"] == row["_id"] for row in found.preview)


def test_the_preview_of_a_small_result_has_all_rows() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), match={"_id": {"$in": [3, 4]}})
    assert sorted(row["_id"] for row in check_join(spec).preview) == [3, 4]


def test_the_preview_has_few_matches_per_row(wrong_collections: Database[Document]) -> None:
    wrong_collections.one.insert_one({"_id": 1})
    wrong_collections.hundred.insert_many([{"_id": number, "one": 1} for number in range(100)])
    (row,) = check_join(spec_of("one", join_with("hundred", "_id", "one"))).preview
    assert len(row["found"]) == 5


def test_the_preview_writes_rare_types_as_extended_json(wrong_collections: Database[Document]) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    wrong_collections.rare.insert_one(
        {"_id": oid(1), "at": at, "price": Decimal128("1.50"), "raw": b"x", "n": float("nan")}
    )
    (row,) = check_join(spec_of("rare", join_with("products", "_id", "_id"))).preview
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["_id"], row["at"]) == ({"$oid": str(oid(1))}, {"$date": "2024-01-01T00:00:00Z"})
    assert (row["price"], row["n"]) == ({"$numberDecimal": "1.50"}, {"$numberDouble": "NaN"})


def test_the_most_severe_findings_come_first() -> None:
    spec = spec_of("reviews", join_with("products", "productId", "_id", **{"as": "_"}), match={"_id": {"$gte": 0}})
    order = [list(Level).index(finding.level) for finding in check_join(spec).findings]
    assert order == sorted(order, reverse=True)
    assert check_join(spec).findings[0].level is Level.STOP


def test_the_pipeline_is_a_command_for_the_shell() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), match={"_id": 3})
    text = check_join(spec).pipeline
    assert text.startswith(f'db.getSiblingDB("{NAME}").getCollection("users").aggregate([')
    assert "$lookup" in text
    assert "{ $match: { _id: { $eq: 3 } } }" in text


def test_checks_are_cached_by_the_fingerprint_for_a_while() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), limit=3)
    assert checks.cached_checks(spec.fingerprint) is None
    found = check_join(spec)
    assert checks.cached_checks(spec.fingerprint) == json.loads(json.dumps(found.to_document()))
    assert 0 < connections().results.ttl(f"join_check:{spec.fingerprint}") <= checks.CACHE_SECONDS


def test_the_part_stored_with_a_task_lacks_the_preview() -> None:
    found: Checks = check_join(spec_of("users", join_with("orders", "_id", "userId")))
    verdict = checks.verdict(found.to_document())
    assert verdict.keys() == {"findings", "expected", "seconds"}
    assert verdict["expected"]["rows"] == 40
    assert verdict["findings"][0].keys() == {"level", "text", "join", "cure", "command"}
    assert bson.encode(verdict)


def test_an_empty_result_is_explained_in_sentences() -> None:
    spec = spec_of("reviews", join_with("products", "productId", "_id", kind="inner"))
    assert checks.explain_empty(spec) == [NEVER_MATCH]
    filtered = spec_of("users", join_with("orders", "_id", "userId", kind="semi"), match={"name": "nobody"})
    assert checks.explain_empty(filtered) == ["Your filter keeps 0 of 40 users."]


def test_the_likeliest_reason_for_an_empty_result_comes_first() -> None:
    join = join_with("reviews", "_id", "productId", kind="inner", match={"stars": 5}, **{"as": "name"})
    reasons = checks.explain_empty(spec_of("products", join))
    assert len(reasons) == 3
    assert "never match" in reasons[0]
    assert "take the place" in reasons[1]
    assert reasons[2] == "The filter asks for stars, which no sampled document of reviews has."


def test_a_join_with_matches_needs_no_explanation() -> None:
    assert checks.explain_empty(spec_of("users", join_with("orders", "_id", "userId", kind="inner"))) == []


def test_statistics_are_unknown_once_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_tasks.joins.preflight.probing.ALL_SECONDS", 0.0)
    found = check_join(spec_of("users", join_with("orders", "_id", "userId", kind="inner")))
    assert (found.expected.rates, found.expected.rows, found.preview) == ([None], None, [])

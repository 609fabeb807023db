"""Statistics of the collections of a join, from a real MongoDB."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo.database import Database

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan.catalog import Catalog, Index
from worker_tasks.joins.spec.spec import JoinSpec


@pytest.fixture(scope="module")
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins.catalog
    database.left.insert_many([{"_id": number, "even": number % 2 == 0} for number in range(1000)])
    plain = {"_id": 1, "full": 1, "gap": 1, "null": 1, "list": 1, "inner": {"key": 1}, "through": {"key": 1}}
    with_lists = {"_id": 2, "full": 2, "null": None, "list": [1], "inner": {"key": [2]}, "through": [{"key": 2}]}
    database.other.insert_many([plain, with_lists])
    database.other.create_indexes(
        [
            pymongo.IndexModel([("full", 1), ("gap", -1)]),
            pymongo.IndexModel([("full", "hashed")]),
            pymongo.IndexModel("gap", sparse=True),
            pymongo.IndexModel("null", partialFilterExpression={"null": 1}),
            pymongo.IndexModel("list", collation=pymongo.collation.Collation("de")),
            pymongo.IndexModel("inner.key", hidden=True),
            pymongo.IndexModel([("text", "text")]),
        ]
    )
    database.create_collection("view", viewOn="left", pipeline=[{"$match": {"even": True}}])
    yield database
    connections().joins.drop_database("catalog")


def catalog(database: Database[Document], **changes: Any) -> Catalog:
    joins = [{"from": "other", "as": "matches", "on": [{"local": "_id", "foreign": "full"}]}]
    spec = JoinSpec.model_validate({"database": "catalog", "from": "left", "joins": joins, **changes}, strict=False)
    return Catalog(spec, database)


def test_documents_and_bytes_are_counted(database: Database[Document]) -> None:
    stats = catalog(database).stats("left")
    assert stats.count == 1000
    assert 20_000 < stats.size < 60_000


def test_only_indexes_that_an_equality_could_use_are_listed(database: Database[Document]) -> None:
    assert set(catalog(database).stats("other").indexes) == {
        Index(("_id",)),
        Index(("full", "gap")),
        Index(("full",)),
        Index(("gap",), sparse=True),
        Index(("null",), partial=True),
        Index(("list",), collation=True),
    }


def test_a_view_has_documents_and_no_indexes(database: Database[Document]) -> None:
    stats = catalog(database).stats("view")
    assert (stats.count, stats.indexes) == (500, ())


@pytest.mark.parametrize(
    ("path", "lists", "gaps"),
    [
        ("full", False, False),
        ("gap", False, True),
        ("null", False, True),
        ("list", True, False),
        ("inner.key", True, False),
        ("through.key", True, False),
        ("nowhere", False, True),
    ],
)
def test_lists_and_gaps_are_found(database: Database[Document], path: str, lists: bool, gaps: bool) -> None:
    statistics = catalog(database)
    assert (statistics.holds_lists("other", path), statistics.has_gaps("other", path)) == (lists, gaps)


def test_only_left_documents_that_pass_the_filter_are_counted(database: Database[Document]) -> None:
    assert catalog(database).left_count == 1000
    assert catalog(database, match={"even": True}).left_count == 500
    assert catalog(database, match={"_id": {"$lt": 7}}).left_count == 7


def test_a_missing_collection_is_refused_with_a_similar_name(database: Database[Document]) -> None:
    joins = [{"from": "othr", "as": "matches", "on": [{"local": "_id", "foreign": "full"}]}]
    with pytest.raises(InvalidInput) as refusal:
        catalog(database, **{"from": "nothing", "joins": joins}).require_collections()
    assert refusal.value.errors == {
        "join.from": "nothing does not exist, or is not open for joins.",
        "join.joins.0.from": "othr does not exist, or is not open for joins. Did you mean other?",
    }
    catalog(database).require_collections()

"""The documents that a checked filter finds in MongoDB."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Decimal128, ObjectId
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.spec import filters

SOME_ID = ObjectId("0123456789abcdef01234567")
STORED: list[Document] = [
    {"_id": 1, "a": "New York", "n": 5},
    {"_id": 2, "a": "new york", "n": 5.0},
    {"_id": 3, "a": "a.*b", "n": Decimal128("5")},
    {"_id": 4, "a": "$name", "n": "5"},
    {"_id": 5, "a": None, "at": datetime(2024, 6, 1, tzinfo=UTC)},
    {"_id": 6, "list": [1, 5, 9], "id": SOME_ID},
    {"_id": 7, "list": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]},
]


@pytest.fixture(scope="module")
def stored(servers: None) -> Iterator[Collection[Document]]:
    collection = connections().mongodb["filters"]["documents"]
    collection.insert_many(STORED)
    yield collection
    collection.drop()


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"a": "New York"}, [1]),
        ({"a": "$name"}, [4]),
        ({"a": {"$regex": "york", "$options": "i"}}, [1, 2]),
        ({"a": {"$regex": "^new"}}, [2]),
        ({"a": {"$regex": ".*"}}, [3]),
        ({"a": {"$regex": "$name"}}, [4]),
        ({"n": 5}, [1, 2, 3]),
        ({"n": {"$type": "string"}}, [4]),
        ({"a": {"$exists": False}}, [6, 7]),
        ({"a": {"$type": "null"}}, [5]),
        ({"at": {"$gte": {"$date": "2024-06-01T00:00:00Z"}}}, [5]),
        ({"at": {"$date": "2024-06-01T02:00:00+02:00"}}, [5]),
        ({"id": {"$oid": str(SOME_ID)}}, [6]),
        ({"id": str(SOME_ID)}, []),
        ({"n": {"$numberDecimal": "5.0"}}, [1, 2, 3]),
        ({"list": {"$all": [1, 9]}}, [6]),
        ({"list": {"$size": 2}}, [7]),
        ({"list": {"$elemMatch": {"x": 1, "y": 2}}}, [7]),
        ({"list": {"$elemMatch": {"x": 1, "y": 4}}}, []),
        ({"list": {"$elemMatch": {"$gt": 4, "$lt": 6}}}, [6]),
        ({"_id": {"$mod": [4, 3]}}, [3, 7]),
        ({"_id": {"$not": {"$gt": 2}}}, [1, 2]),
        ({"_id": {"$in": [1, "1", 7]}}, [1, 7]),
        ({"$or": [{"_id": 1}, {"$and": [{"_id": {"$gt": 5}}, {"_id": {"$lt": 7}}]}]}, [1, 6]),
        ({"$nor": [{"_id": {"$lt": 6}}]}, [6, 7]),
    ],
)
def test_a_filter_finds_the_matching_documents(stored: Collection[Document], condition: Any, ids: list[int]) -> None:
    query = filters.to_query(filters.check_filter(condition))
    assert [document["_id"] for document in stored.find(query).sort("_id")] == ids


def test_field_paths_include_those_of_nested_filters() -> None:
    condition = {"a": 1, "$or": [{"b.c": {"$gt": 1}}, {"$and": [{"d": 1}]}], "e": {"$elemMatch": {"x": 1}}}
    assert filters.field_paths(condition) == {"a", "b.c", "d", "e"}

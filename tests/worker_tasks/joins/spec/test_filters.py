"""The documents that a checked filter finds in MongoDB."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, json_util
from bson.datetime_ms import DatetimeMS
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.reading.encoding import LineEncoder
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
    {"_id": 8, "ref": {"$ref": "users", "$id": 5, "$db": "shop"}},
    {"_id": 9, "ref": [{"$ref": "users", "$id": 6}]},
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
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"a": "New York"}, [1]),
        ({"a": "$name"}, [4]),
        ({"a": {"$regex": "york", "$options": "i"}}, [1, 2]),
        ({"a": {"$regex": "^new"}}, [2]),
        ({"a": {"$regex": ".*"}}, [3]),
        ({"a": {"$regex": "$name"}}, [4]),
        ({"n": 5}, [1, 2, 3]),
        ({"n": {"$type": "string"}}, [4]),
        ({"a": {"$exists": False}}, [6, 7, 8, 9]),
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
        ({"ref.$id": {"$gte": 5}}, [8, 9]),
        ({"ref.$db": "shop", "ref.$ref": "users"}, [8]),
        ({"_id": {"$mod": [4, 3]}}, [3, 7]),
        ({"_id": {"$not": {"$gt": 2}}}, [1, 2]),
        ({"_id": {"$in": [1, "1", 7]}}, [1, 7]),
        ({"$or": [{"_id": 1}, {"$and": [{"_id": {"$gt": 5}}, {"_id": {"$lt": 7}}]}]}, [1, 6]),
        ({"$nor": [{"_id": {"$lt": 6}}]}, [6, 7, 8, 9]),
    ],
)
def test_a_filter_finds_the_matching_documents(stored: Collection[Document], condition: Any, ids: list[int]) -> None:
    query = filters.to_query(filters.check_filter(condition))
    assert [document["_id"] for document in stored.find(query).sort("_id")] == ids


def test_field_paths_include_those_of_nested_filters() -> None:
    condition = {"a": 1, "$or": [{"b.c": {"$gt": 1}}, {"$and": [{"d": 1}]}], "e": {"$elemMatch": {"x": 1}}}
    assert filters.field_paths(condition) == {"a", "b.c", "d", "e"}


@pytest.mark.parametrize(
    "value",
    [
        datetime(1950, 1, 1, tzinfo=UTC),
        datetime(2013, 1, 31, 18, 30, 0, 5000, tzinfo=UTC),
        DatetimeMS(253402300800000),
        Int64(2**62),
        5,
        1.5,
        float("nan"),
        float("-inf"),
        Decimal128("1.50"),
        SOME_ID,
        Binary(bytes(range(16)), 4),
        Binary(bytes(range(16)), 3),
        b"abc",
    ],
    ids=repr,
)
def test_the_values_of_a_result_are_values_of_a_filter(stored: Collection[Document], value: Any) -> None:
    """Both as results write them, and in canonical Extended JSON."""
    ((line,),) = LineEncoder({}).encode(bson.encode({"value": value}))
    canonical = json_util.dumps({"value": value}, json_options=json_util.CANONICAL_JSON_OPTIONS)
    collection = stored.database["values"]
    collection.replace_one({"_id": 1}, {"value": value}, upsert=True)
    for written in (line, canonical):
        query = filters.to_query(filters.check_filter(json.loads(written)))
        assert collection.count_documents(query) == 1, written


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"$date": "yesterday"}, "is no $date: write an instant"),
        ({"$date": {"$numberLong": "soon"}}, "is no $date: write an instant"),
        ({"$date": {"$numberLong": "9" * 30}}, "is no $date: write an instant"),
        ({"$date": {"$oid": str(SOME_ID)}}, "is no $date: write an instant"),
        ({"$date": [1]}, "is no $date: write an instant"),
        ({"$numberLong": "9" * 30}, "is no $numberLong: write a whole number"),
        ({"$numberInt": "x"}, "is no $numberInt: write a whole number"),
        ({"$numberDouble": 5}, "is no $numberDouble: write a number"),
        ({"$numberDecimal": []}, "is no $numberDecimal: write a decimal number"),
        ({"$uuid": 5}, "is no $uuid: write 32 hexadecimal digits"),
        ({"$oid": "short"}, "is no $oid: write 24 hexadecimal digits"),
        ({"$binary": "AAEC"}, "is no $binary: write {"),
        ({"$binary": {"base64": "AAEC", "subType": "zz"}}, "is no $binary: write {"),
        ({"$binary": {"base64": "A" * 5000, "subType": "00"}}, "is no $binary: write {"),
    ],
)
def test_a_malformed_value_is_refused_in_our_own_words(value: Any, reason: str) -> None:
    with pytest.raises(filters.FilterError) as refusal:
        filters.check_filter({"at": {"$gt": value}})
    assert refusal.value.path == "at.$gt"
    assert refusal.value.reason.startswith(reason)

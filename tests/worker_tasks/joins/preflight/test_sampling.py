"""Samples of collections have fields, types, fill rates and indexes, and are cached."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from tests.mongodb import Client, restricted_mongod, uri_as, variables
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.matching.paths import left_values
from worker_tasks.joins.preflight.sampling import (
    MAX_DEPTH,
    SAMPLE_DOCUMENTS,
    WHOLE_DOCUMENTS,
    CollectionSample,
    Field,
    ListedCollection,
    collections_of,
    draw_documents,
    field_type,
    mean_size,
    sample_collection,
)
from worker_tasks.joins.spec.bson_types import type_bracket, type_of
from worker_tasks.joins.spec.sides import Side

NAME = "sampling"


@pytest.fixture(scope="module")
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins[NAME]
    people: list[Document] = [
        {"_id": 1, "name": "Ada", "address": {"city": "Oslo"}, "tags": ["a", "b"], "lines": [{"n": 1}, {"n": "x"}]},
        {"_id": 2, "name": "Bo", "address": {"city": None}, "tags": [], "lines": [{"n": 2}, {"n": 3}]},
        {"_id": 3, "name": None, "address": {}, "lines": []},
        {"_id": 4, "name": 4},
    ]
    database.people.insert_many(people)
    database.many.insert_many([{"_id": number, "even": number % 2 == 0} for number in range(1001)])
    database.create_collection("view", viewOn="people", pipeline=[{"$match": {"_id": {"$lt": 3}}}])
    yield database
    connections().joins.drop_database(NAME)


def field(collection: str, path: str) -> Field:
    found = sample_collection(Side(None, NAME, collection)).field(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "filled", "types"),
    [
        ("_id", 1.0, {"int": 1.0}),
        ("name", 0.75, {"string": 2 / 3, "int": 1 / 3}),
        ("address", 0.75, {"object": 1.0}),
        ("address.city", 0.25, {"string": 1.0}),
        ("tags", 0.5, {"array": 0.5, "string": 0.5}),
        ("lines", 0.75, {"array": 1.0}),
        ("lines.n", 0.5, {"int": 0.75, "string": 0.25}),
    ],
)
def test_each_field_has_its_types_and_fill_rate(
    database: Database[Document], path: str, filled: float, types: dict[str, float]
) -> None:
    found = field("people", path)
    assert found.filled == pytest.approx(filled)
    assert found.types == pytest.approx(types)


def test_every_existing_path_is_listed_once(database: Database[Document]) -> None:
    sample = sample_collection(Side(None, NAME, "people"))
    paths = [field.path for field in sample.fields]
    assert sorted(paths) == ["_id", "address", "address.city", "lines", "lines.n", "name", "tags"]
    assert sample.field("address.street") is None


def test_the_most_frequent_type_is_the_main_one(database: Database[Document]) -> None:
    assert field("people", "name").main_type == "string"
    assert field("people", "lines.n").brackets == {"number", "string"}


def test_a_field_that_is_always_null_is_never_filled(database: Database[Document]) -> None:
    database.nulls.insert_many([{"nothing": None}, {"nothing": None}])
    found = field("nulls", "nothing")
    assert (found.filled, found.types, found.main_type, found.brackets) == (0, {}, "null", frozenset())


def test_nested_fields_are_sampled_down_to_a_maximum_depth(database: Database[Document]) -> None:
    database.deep.insert_one({"_id": 1, "a": {"b": {"c": {"d": 1}}}})
    paths = [field.path for field in sample_collection(Side(None, NAME, "deep")).fields]
    assert paths == ["_id", "a", "a.b", "a.b.c"]
    assert max(path.count(".") for path in paths) == MAX_DEPTH - 1


def test_fields_that_no_join_may_use_are_left_out(database: Database[Document]) -> None:
    database.odd.insert_one({"_id": 1, "__dovetail_key": 1, "__proto__": 1, "fine": 1})
    assert [field.path for field in sample_collection(Side(None, NAME, "odd")).fields] == ["_id", "fine"]


@pytest.mark.parametrize(
    ("value", "name", "bracket"),
    [
        (1, "int", "number"),
        (Int64(1), "long", "number"),
        (1.5, "double", "number"),
        (Decimal128("1.5"), "decimal", "number"),
        (True, "bool", "bool"),
        ("1", "string", "string"),
        (ObjectId(), "objectId", "objectId"),
        (datetime(2024, 1, 1, tzinfo=UTC), "date", "date"),
        (DatetimeMS(2**60), "date", "date"),
        ({}, "object", "object"),
        ([], "array", "array"),
        (None, "null", "null"),
        (Binary(b"x", 4), "binData", "binData"),
        (b"x", "binData", "binData"),
        (Regex("x"), "regex", "regex"),
        (Timestamp(1, 1), "timestamp", "timestamp"),
        (object(), "other", "other"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_all_numbers_share_a_bracket_and_other_types_have_their_own(value: Any, name: str, bracket: str) -> None:
    assert (type_of(value), type_bracket(type_of(value))) == (name, bracket)


def test_number_types_are_those_stored_in_mongodb(database: Database[Document]) -> None:
    database.numbers.insert_many([{"n": 1}, {"n": Int64(1)}, {"n": 1.0}, {"n": Decimal128("1")}])
    found = field("numbers", "n")
    assert found.types == {"int": 0.25, "long": 0.25, "double": 0.25, "decimal": 0.25}
    assert found.brackets == {"number"}


def test_a_small_collection_is_sampled_whole(database: Database[Document]) -> None:
    database.small.insert_many([{"_id": number} for number in range(WHOLE_DOCUMENTS)])
    assert sample_collection(Side(None, NAME, "small")).sampled == WHOLE_DOCUMENTS


def test_the_sample_is_bounded_but_the_count_includes_all_documents(database: Database[Document]) -> None:
    sample = sample_collection(Side(None, NAME, "many"))
    assert (sample.count, sample.sampled) == (1001, SAMPLE_DOCUMENTS)


def test_a_view_has_fields_but_no_count_and_no_indexes(database: Database[Document]) -> None:
    sample = sample_collection(Side(None, NAME, "view"))
    assert (sample.count, sample.sampled, sample.indexed, sample.unique) == (None, 2, (), ())
    assert field("view", "address.city").filled == 0.5


def test_a_time_series_has_fields_and_a_count(database: Database[Document]) -> None:
    database.create_collection("series", timeseries={"timeField": "at", "metaField": "sensor"})
    readings = [{"at": datetime(2024, 1, 1, 0, n, tzinfo=UTC), "sensor": {"id": n % 4}} for n in range(40)]
    database.series.insert_many(readings)
    sample = sample_collection(Side(None, NAME, "series"))
    assert (sample.count, sample.sampled, sample.unique) == (40, 40, ())
    assert field("series", "sensor.id").types == {"int": 1.0}
    assert ListedCollection("series", 40, is_time_series=True) in collections_of(NAME)


def test_a_collection_of_another_source_is_sampled_there(database: Database[Document], tmp_path: Path) -> None:
    with restricted_mongod(tmp_path, reader=[{"role": "read", "db": NAME}]) as server:
        with Client(uri_as("root", server)) as client:
            client[NAME].people.insert_one({"_id": "p", "phone": 1})
            client[NAME].people.create_index("phone")
        with variables(SOURCE_CRM_URI=uri_as("reader", server), SOURCE_CRM_DATABASES=NAME):
            sample = sample_collection(Side("crm", NAME, "people"))
            assert collections_of(NAME, "crm") == [ListedCollection("people", 1)]
            assert field_type(Side("crm", NAME, "people"), "phone") == "int"
    assert ([each.path for each in sample.fields], sample.indexed) == (["_id", "phone"], ("_id", "phone"))
    assert sample_collection(Side(None, NAME, "people")).count == 4


def test_an_empty_collection_has_no_fields(database: Database[Document]) -> None:
    database.create_collection("empty")
    sample = sample_collection(Side(None, NAME, "empty"))
    assert (sample.count, sample.sampled, sample.size, sample.fields) == (0, 0, 0, ())


def test_first_paths_of_indexes_and_paths_of_unique_indexes_are_listed(database: Database[Document]) -> None:
    database.indexed.insert_one({"_id": 1, "a": 1, "b": 1, "c": 1})
    database.indexed.create_index([("a", 1), ("b", 1)], unique=True)
    database.indexed.create_index([("a", 1), ("c", 1)])
    database.indexed.create_index("c", unique=True)
    sample = sample_collection(Side(None, NAME, "indexed"))
    assert sample.indexed == ("_id", "a", "c")
    assert sample.unique == (("_id",), ("a", "b"), ("c",))


def test_collections_are_listed_with_their_counts_but_without_system_ones(servers: None) -> None:
    database = connections().joins[f"{NAME}_list"]
    try:
        database.b.insert_many([{}, {}])
        database.a.insert_one({})
        database.create_collection("view", viewOn="a", pipeline=[])
        assert "system.views" in database.list_collection_names()
        assert collections_of(f"{NAME}_list") == [
            ListedCollection("a", 1),
            ListedCollection("b", 2),
            ListedCollection("view", None, is_view=True),
        ]
    finally:
        connections().joins.drop_database(f"{NAME}_list")


def test_a_sample_is_cached_for_a_while(database: Database[Document]) -> None:
    database.changing.insert_one({"_id": 1})
    first = sample_collection(Side(None, NAME, "changing"))
    database.changing.insert_one({"_id": 2, "new": 1})
    assert sample_collection(Side(None, NAME, "changing")) == first
    key = f"collection_look:{NAME}.changing"
    assert 0 < connections().results.ttl(key) <= 120
    connections().results.delete(key)
    assert sample_collection(Side(None, NAME, "changing")).count == 2


def test_a_sample_survives_a_round_trip_through_json(database: Database[Document]) -> None:
    sample = sample_collection(Side(None, NAME, "people"))
    assert CollectionSample.from_json(sample.to_json().encode()) == sample


def test_drawn_documents_pass_the_filter_and_are_distinct(database: Database[Document]) -> None:
    found = draw_documents(database.many, {"even": True, "_id": {"$lt": 100}}, 200)
    assert sorted(document["_id"] for document in found) == list(range(0, 100, 2))
    assert len(draw_documents(database.many, {"even": True}, 20)) == 20


def test_the_mean_size_is_that_of_the_json_text() -> None:
    assert mean_size([{"a": "x" * 10}, {"a": "x" * 20}]) == len('{"a":""}') + 15
    assert mean_size([{"_id": ObjectId(), "at": datetime(2024, 1, 1, tzinfo=UTC), "n": Decimal128("1.5")}]) > 50
    assert mean_size([]) == 0


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("plain", [1]),
        ("list", [1, 2]),
        ("inner.key", [3]),
        ("inner.keys", [4, 5]),
        ("lines.key", [6, 7, 8]),
        ("lines.deep.key", [9]),
        ("null", []),
        ("missing", []),
        ("plain.missing", []),
        ("list.missing", []),
    ],
)
def test_values_at_a_path_are_elements_of_lists_without_null(path: str, values: list[Any]) -> None:
    document = {
        "plain": 1,
        "list": [1, None, 2],
        "null": None,
        "inner": {"key": 3, "keys": [4, 5]},
        "lines": [{"key": 6}, {"key": [7, 8]}, {"deep": {"key": 9}}, {"key": None}, 10],
    }
    assert left_values(document, path) == values

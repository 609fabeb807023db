"""Pipelines and index commands as text for MongoDB's shell."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy
from worker_tasks.joins.spec.mongosh import LINE_LENGTH, aggregate, create_index, to_javascript
from worker_tasks.joins.spec.spec import JoinSpec

OID = "65a000000000000000000001"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (-0.5, "-0.5"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ("text", '"text"'),
        ('a "quoted" \\ text\n', '"a \\"quoted\\" \\\\ text\\n"'),
        ("café", '"café"'),
        (ObjectId(OID), f'ObjectId("{OID}")'),
        (Int64(5), 'NumberLong("5")'),
        (Int64(2**62), 'NumberLong("4611686018427387904")'),
        (Decimal128("1.50"), 'NumberDecimal("1.50")'),
        (datetime(2024, 1, 2, 3, 4, 5, 678_000, UTC), 'ISODate("2024-01-02T03:04:05.678Z")'),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2))), 'ISODate("2023-12-31T22:00:00.000Z")'),
        (DatetimeMS(253_402_300_800_000), "new Date(253402300800000)"),
        (Binary(b"abc", 4), 'BinData(4, "YWJj")'),
        (b"abc", 'BinData(0, "YWJj")'),
        ([], "[]"),
        ({}, "{}"),
        ([1, "a", None], '[1, "a", null]'),
        ((1, 2), "[1, 2]"),
        ({"a": {"b": [Int64(1), {}]}}, '{ a: { b: [NumberLong("1"), {}] } }'),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:40],
)
def test_each_value_is_written_as_javascript(value: Any, text: str) -> None:
    assert to_javascript(value) == text


@pytest.mark.parametrize("name", ["a", "_id", "$match", "$_x", "camelCase", "a1", "__dovetail_key"])
def test_valid_identifiers_are_not_quoted(name: str) -> None:
    assert to_javascript({name: 1}) == f"{{ {name}: 1 }}"


@pytest.mark.parametrize("name", ["a.b", "a-b", "1a", "two words", "", "$", "$$x", "it's", 'a"b', "né"])
def test_other_names_are_quoted(name: str) -> None:
    assert to_javascript({name: 1}) == f"{{ {json.dumps(name, ensure_ascii=False)}: 1 }}"


def test_a_long_value_is_broken_into_indented_lines() -> None:
    value = {"$match": {"status": "x" * 60, "other": {"$in": ["y" * 30, "z"]}}, "a": [1, 2]}
    assert to_javascript(value).splitlines() == [
        "{",
        "  $match: {",
        f'    status: "{"x" * 60}",',
        f'    other: {{ $in: ["{"y" * 30}", "z"] }}',
        "  },",
        "  a: [1, 2]",
        "}",
    ]


def test_no_line_exceeds_the_maximum_length() -> None:
    value = [{f"field{number}": {"$eq": [f"${number}", number]} for number in range(50)}]
    assert max(map(len, to_javascript(value).splitlines())) <= LINE_LENGTH


def test_the_command_quotes_the_names_of_database_and_collection() -> None:
    text = aggregate("my shop", 'or"ders-1', [{"$limit": 1}])
    start = 'db.getSiblingDB("my shop").getCollection("or\\"ders-1").aggregate('
    assert text == start + "[{ $limit: 1 }], { allowDiskUse: true })"


def test_dates_are_in_utc_and_whole_numbers_stay_exact() -> None:
    assert to_javascript(datetime(2024, 1, 1)) == 'ISODate("2024-01-01T00:00:00.000Z")'  # noqa: DTZ001 - as pymongo gives it
    assert to_javascript(2**53 + 1) == 'NumberLong("9007199254740993")'
    assert to_javascript(2**53) == "9007199254740992"


@pytest.mark.parametrize(("collection", "source"), [("orders", "orders"), ("my-orders", 'getCollection("my-orders")')])
def test_the_index_command_quotes_unusual_collection_names(collection: str, source: str) -> None:
    assert create_index(collection, ["a.b", "c"]) == f"db.{source}.createIndex({{'a.b': 1, 'c': 1}})"


def spec_of(**more: Any) -> JoinSpec:
    orders: Document = {
        "from": "orders",
        "as": "orders",
        "kind": "inner",
        "on": [{"local": "_id", "foreign": "userId"}],
        "match": {"status": "PAID"},
        "shape": "rows",
    }
    products: Document = {
        "from": "products",
        "as": "product",
        "on": [{"local": "orders.sku", "foreign": "sku.code"}, {"local": "city", "foreign": "store-city"}],
        "fields": ["name", "price"],
        "sort": [["price", -1]],
        "shape": "first",
    }
    description: Document = {
        "database": "shop",
        "from": "users",
        "joins": [orders, products],
        "match": {"city": {"$ne": "Oslo"}},
    }
    description |= {"sort": [["city", 1]], "limit": 10, "fields": ["city", "orders", "product"]}
    return JoinSpec.model_validate_json(json.dumps(description | more))


def parse_pipeline(text: str) -> Any:
    """Parses the text of a pipeline as JSON, after quoting its property names and binary data."""
    start, end = text.index(".aggregate(") + len(".aggregate("), text.rindex(", { allowDiskUse")
    quoted = re.sub(r'BinData\(\d+, "[^"]*"\)', lambda found: json.dumps(found[0]), text[start:end])
    return json.loads(re.sub(r"([{,]\s*)([$\w]+):", r'\1"\2":', quoted))


@pytest.mark.parametrize("second", [Step(), Step(native_lookup=True, null_safe=False)], ids=["safe", "native"])
@pytest.mark.parametrize("first", [Step(), Step(native_lookup=True, null_safe=False)], ids=["safe", "native"])
def test_the_text_of_a_compiled_pipeline_contains_every_stage(first: Step, second: Step) -> None:
    stages = compile_pipeline(spec_of(), Strategy(JoinMethod.LOOKUP, 0, None, (first, second)))
    assert len(stages) > 7
    assert parse_pipeline(aggregate("shop", "users", stages)) == json.loads(json.dumps(stages, default=to_javascript))

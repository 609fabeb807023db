"""Keys and orders by the fields that earlier joins add."""

from typing import Any

import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.scan.conftest import Rows
from worker_tasks.infra.connections import Document

LINES = {"from": "lines", "as": "lines", "on": [{"local": "_id", "foreign": "order"}], "sort": [["_id", 1]]}


@pytest.fixture(autouse=True)
def orders(scans: Database[Document]) -> None:
    scans.orders.insert_many([{"_id": 1}, {"_id": 2}, {"_id": 3}])
    lines = [(1, 1, "a", 9), (2, 1, "b", 1), (3, 2, "b", 5), (4, 2, "a", 6)]
    scans.lines.insert_many([{"_id": line, "order": order, "sku": sku, "q": q} for line, order, sku, q in lines])
    scans.skus.insert_many([{"_id": "a"}, {"_id": "b"}, {"_id": "2"}, {"_id": 2}])


def found(rows: list[Document]) -> dict[Any, list[Any]]:
    return {row["_id"]: [match["_id"] for match in row["found"]] for row in rows}


@pytest.mark.parametrize(
    ("cast", "matches"), [(None, [2]), ("string", ["2"]), ("double", [2]), ("objectId", []), ("uuid", [])]
)
def test_a_count_is_cast_like_any_key(cast: str | None, matches: list[Any], scan_rows: Rows) -> None:
    pair = {"local": "lines", "foreign": "_id"} | ({"cast": cast} if cast else {})
    count = {name: LINES[name] for name in ("from", "as", "on")} | {"shape": "count"}
    rows = scan_rows("orders", count, {"from": "skus", "as": "found", "on": [pair]})
    assert found(rows) == {1: matches, 2: matches, 3: []}


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(
    ("place", "matches"), [(0, {1: ["a"], 2: ["b"]}), (1, {1: ["b"], 2: ["a"]}), (2, {1: [], 2: []})]
)
def test_a_place_in_the_list_of_an_earlier_join(
    place: int, matches: dict[int, list[str]], pairs: int, scan_rows: Rows
) -> None:
    pair = {"local": f"lines.{place}.sku", "foreign": "_id"}
    rows = scan_rows("orders", LINES, {"from": "skus", "as": "found", "on": [pair] * pairs})
    assert found(rows) == matches | {3: []}


def test_rows_are_sorted_by_a_place_in_the_list_of_an_earlier_join(scan_rows: Rows) -> None:
    assert [row["_id"] for row in scan_rows("orders", LINES, sort=[["lines.0.q", 1]])] == [3, 2, 1]
    assert [row["_id"] for row in scan_rows("orders", LINES, sort=[["lines.1.q", -1]])] == [2, 1, 3]


def test_rows_are_sorted_by_matches_as_the_join_keeps_them(scan_rows: Rows) -> None:
    first = LINES | {"shape": "first", "fields": ["q"]}
    assert [row["_id"] for row in scan_rows("orders", first, sort=[["lines", 1]])] == [3, 2, 1]


def test_a_count_has_no_fields_to_sort_by(scan_rows: Rows) -> None:
    count = {name: LINES[name] for name in ("from", "as", "on")} | {"shape": "count"}
    rows = scan_rows("orders", count, sort=[["lines.x", -1], ["_id", -1]])
    assert [row["_id"] for row in rows] == [3, 2, 1]
    assert len(scan_rows("orders", count, sort=[["lines.x", -1]])) == 3


def test_a_list_of_values_that_cannot_be_cast_matches_nothing(scans: Database[Document], scan_rows: Rows) -> None:
    scans.empty.insert_one({"_id": 1, "skus": [], "order": 1})
    pairs = [{"local": "lines.sku", "foreign": "skus", "cast": "int"}, {"local": "_id", "foreign": "order"}]
    rows = scan_rows("orders", LINES, {"from": "empty", "as": "found", "on": pairs})
    assert found(rows) == {1: [], 2: [], 3: []}


def test_a_list_of_texts_with_a_separator(scans: Database[Document], scan_rows: Rows) -> None:
    scans.lines.insert_one({"_id": 5, "order": 3, "sku": "a\x1fb\x1e"})
    scans.lists.insert_one({"_id": 1, "skus": ["a\x1fb\x1e"], "order": 3})
    pairs = [{"local": "lines.sku", "foreign": "skus"}, {"local": "_id", "foreign": "order"}]
    rows = scan_rows("orders", LINES, {"from": "lists", "as": "found", "on": pairs})
    assert found(rows) == {1: [], 2: [], 3: [1]}


def test_elements_without_a_field_count_in_the_order_by_it(scans: Database[Document], scan_rows: Rows) -> None:
    scans.lists.insert_many([{"_id": 1, "p": [{"k": 1}]}, {"_id": 2, "p": [{"k": 2}, 5]}])
    assert scan_rows("lists", fields=["p.k", "_id"], sort=[["p.k", 1]]) == [
        {"_id": 2, "p": [{"k": 2}]},
        {"_id": 1, "p": [{"k": 1}]},
    ]

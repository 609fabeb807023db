"""Matches go into the elements of a list; what is no document stays."""

from typing import Any

import pytest
from bson import DBRef
from pymongo.database import Database

from tests.worker_tasks.joins.scan.conftest import Rows
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput

PRODUCT = {"from": "products", "into": "items", "as": "product", "on": [{"local": "items.sku", "foreign": "_id"}]}


@pytest.fixture(autouse=True)
def products(scans: Database[Document]) -> None:
    scans.products.insert_many([{"_id": "a", "price": 5}, {"_id": "b", "price": 7}])


def items(scans: Database[Document], value: Any) -> None:
    scans.orders.insert_one({"_id": 1, "items": value})


@pytest.mark.parametrize(("shape", "found"), [("array", [{"price": 5}]), ("first", {"price": 5}), ("count", 1)])
def test_elements_that_are_no_documents_stay(
    shape: str, found: Any, scans: Database[Document], scan_rows: Rows
) -> None:
    items(scans, [5, None, "x", {"sku": "a"}, [{"sku": "a"}], {"sku": "a"}])
    kept = {} if shape == "count" else {"fields": ["price"]}
    joined = {"sku": "a", "product": found}
    (row,) = scan_rows("orders", PRODUCT | {"shape": shape} | kept)
    assert row["items"] == [5, None, "x", joined, [{"sku": "a"}], joined]


def test_fields_inside_elements_keep_what_project_keeps(scans: Database[Document], scan_rows: Rows) -> None:
    items(scans, [5, {"sku": "a", "n": 1}, [{"sku": "a", "n": 2}, 3], {}])
    (row,) = scan_rows("orders", PRODUCT | {"shape": "count"}, fields=["items.product", "items.sku"])
    assert row == {"items": [{"sku": "a", "product": 1}, [{"sku": "a"}], {"product": 0}]}


def test_a_value_that_is_no_list_stays(scans: Database[Document], scan_rows: Rows) -> None:
    items(scans, {"sku": "a", "n": 1})
    assert scan_rows("orders", PRODUCT, fields=["items"]) == [{"items": {"sku": "a", "n": 1}}]
    assert scan_rows("orders", PRODUCT, fields=["items.sku"]) == [{"items": {"sku": "a"}}]


def test_matches_go_into_dbrefs(scans: Database[Document], scan_rows: Rows) -> None:
    items(scans, [DBRef("products", "b")])
    join = PRODUCT | {"on": [{"local": "items.$id", "foreign": "_id"}], "shape": "first", "fields": ["price"]}
    (row,) = scan_rows("orders", join, fields=["items.$id", "items.product"])
    assert row == {"items": [{"$id": "b", "product": {"price": 7}}]}
    (row,) = scan_rows("orders", join)
    assert row["items"][0].as_doc().to_dict() == {"$ref": "products", "$id": "b", "product": {"price": 7}}


def test_rows_are_not_sorted_by_matches_inside_a_list(scan_rows: Rows) -> None:
    with pytest.raises(InvalidInput) as refused:
        scan_rows("orders", PRODUCT, sort=[["_id", 1], ["items.product.price", 1]])
    assert list(refused.value.errors) == ["join.sort.1"]

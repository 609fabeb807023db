"""Small joins in plain Python give the rows of the reference, and of a scan where the reference knows no such join."""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.random_joins import random_documents, random_spec, unordered
from tests.worker_tasks.joins.reference import joined, keeps
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan.layout import layout_of
from worker_tasks.joins.preflight.others import OtherReader, asked_filter
from worker_tasks.joins.preflight.small_join import SmallJoin, join_documents
from worker_tasks.joins.spec.spec import JoinSpec, parse

DATA_SETS, SPECS = 30, 40
NAME = "property_small"


@pytest.fixture(scope="module")
def database(servers: None) -> Iterator[Database[Document]]:
    yield connections().joins[NAME]
    connections().joins.drop_database(NAME)


def reader() -> OtherReader:
    return OtherReader("dovetail test", time.monotonic() + 60)


def rows_of(spec: JoinSpec, documents: list[Document]) -> list[Document]:
    reads = reader()
    return join_documents(layout_of(spec), documents, lambda join, keys: reads.documents(join, keys)[0])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_a_small_join_gives_the_rows_of_the_reference(seed: int, database: Database[Document]) -> None:
    rng = random.Random(seed)
    data = {name: random_documents(rng, name) for name in "lfg"}
    for name, stored in data.items():
        database.drop_collection(name)
        database[name].insert_many([dict(document) for document in stored])
    for _ in range(SPECS):
        spec = random_spec(rng).model_copy(update={"database": NAME})
        expected = unordered([dict(row) for row in joined(spec, data)], spec)
        left = [document for document in data["l"] if keeps(document, spec.match)]
        assert unordered(rows_of(spec, left), spec) == expected, f"{spec.canonical()}\n{data}"


ORDERS: list[Document] = [
    {"_id": 1, "city": "Oslo", "items": [{"sku": "a", "n": 2}, {"sku": "b"}, {"sku": "x"}, None, 5]},
    {"_id": 2, "city": "oslo ", "items": []},
    {"_id": 3, "city": None},
    {"_id": 4, "items": {"sku": "a"}},
]
PRODUCTS: list[Document] = [{"_id": "a", "price": 1}, {"_id": "b", "price": 2}]


def small(database: Database[Document], *joins: Document, **more: Any) -> list[Document]:
    for name, stored in {"orders": ORDERS, "products": PRODUCTS, "cities": [{"_id": " OSLO", "no": 1}]}.items():
        database.drop_collection(name)
        database[name].insert_many([dict(each) for each in stored])
    spec = parse({"database": NAME, "from": "orders", "joins": list(joins), **more})
    return rows_of(spec, [dict(each) for each in ORDERS])


def with_products(**more: Any) -> Document:
    return {"from": "products", "as": "product", "on": [{"local": "items.sku", "foreign": "_id"}], **more}


def test_matches_go_into_the_elements_of_a_list(database: Database[Document]) -> None:
    rows = small(database, with_products(into="items", shape="first", fields=["price"]), fields=["items"])
    assert rows == [
        {
            "items": [
                {"sku": "a", "n": 2, "product": {"price": 1}},
                {"sku": "b", "product": {"price": 2}},
                {"sku": "x"},
                None,
                5,
            ]
        },
        {"items": []},
        {},
        {"items": {"sku": "a"}},
    ]


def test_matches_in_elements_are_kept_without_the_rest(database: Database[Document]) -> None:
    rows = small(database, with_products(into="items", shape="count"), fields=["_id", "items.product"])
    assert rows[0] == {"_id": 1, "items": [{"product": 1}, {"product": 1}, {"product": 0}]}


def test_lists_are_expanded_before_the_joins(database: Database[Document]) -> None:
    expand = {"path": "items", "position": "line", "keep_empty": True}
    rows = small(database, with_products(shape="first"), expand=[expand], fields=["_id", "line", "product.price"])
    assert rows == [
        {"_id": 1, "line": 1, "product": {"price": 1}},
        {"_id": 1, "line": 2, "product": {"price": 2}},
        {"_id": 1, "line": 3},
        {"_id": 1, "line": 4},
        {"_id": 1, "line": 5},
        {"_id": 2, "line": None},
        {"_id": 3, "line": None},
        {"_id": 4, "line": None, "product": {"price": 1}},
    ]


def test_folded_texts_match(database: Database[Document]) -> None:
    on = [{"local": "city", "foreign": "_id", "fold": "both"}]
    cities = {"from": "cities", "as": "found", "on": on, "shape": "count"}
    assert [row["found"] for row in small(database, cities)] == [1, 1, 0, 0]


def test_rows_are_sorted_by_fields_that_the_join_does_not_keep(database: Database[Document]) -> None:
    first = with_products(shape="first", fields=["_id"], sort=[["price", -1]])
    rows = small(database, first, sort=[["product.price", -1], ["_id", 1]], fields=["_id", "product"])
    assert rows == [{"_id": 1, "product": {"_id": "b"}}, {"_id": 4, "product": {"_id": "a"}}, {"_id": 2}, {"_id": 3}]


def test_one_collection_alone_is_read(database: Database[Document]) -> None:
    assert small(database, fields=["city"], sort=[["_id", -1]]) == [
        {},
        {"city": None},
        {"city": "oslo "},
        {"city": "Oslo"},
    ]


@pytest.mark.parametrize(
    ("pair", "asked"),
    [
        ({}, {"_id": {"$in": ["Oslo", "oslo "]}}),
        ({"cast": "int"}, {"_id": {"$in": []}}),
        ({"fold": "case"}, None),
        ({"cast": "uuid"}, None),
    ],
    ids=str,
)
def test_mongodb_is_asked_for_keys_that_it_compares_alike(pair: Document, asked: Document | None) -> None:
    join = {"from": "cities", "as": "found", "on": [{"local": "city", "foreign": "_id", **pair}]}
    layout = layout_of(parse({"database": NAME, "from": "orders", "joins": [join]}))
    assert asked_filter(layout.others[0], SmallJoin(layout, ORDERS).keys(layout.others[0])) == asked

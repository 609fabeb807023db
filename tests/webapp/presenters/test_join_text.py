"""Joins as text."""

from typing import Any

import pytest

from webapp.presenters.join_text import KIND_PHRASES, SHAPE_LABELS, describe_join, describe_join_lines, describe_kind
from worker_tasks.joins.spec.kinds import KINDS, SHAPES


def test_every_kind_and_every_shape_has_a_phrase() -> None:
    assert list(KIND_PHRASES) == list(KINDS)
    assert list(SHAPE_LABELS) == list(SHAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_phrase_of_a_kind_names_both_collections(kind: str) -> None:
    assert {"users", "orders"} <= set(describe_kind(kind, "users", "orders").lower().replace(",", "").split())
    orders = {"from": "orders", "kind": kind, "on": [{"local": "_id", "foreign": "userId"}]}
    join = {"database": "shop", "from": "users", "joins": [orders]}
    assert "orders" in describe_join(join)
    assert describe_join_lines(join)[1][1].endswith("where _id = userId")


ON = [{"local": "_id", "foreign": "orderId"}]
OF_ITEMS = [{"local": "items.productId", "foreign": "_id"}]
PAYMENTS = {"from": "payments", "as": "payments", "on": ON}
PRODUCTS = {"from": "products", "as": "product", "into": "items", "shape": "first", "on": OF_ITEMS}


@pytest.mark.parametrize(
    ("join", "phrase"),
    [
        ({"joins": []}, "Orders alone"),
        ({"joins": [], "expand": [{"path": "items"}]}, "Orders, a row for each of items"),
        (
            {"joins": [PAYMENTS | {"shape": "rows"}], "expand": [{"path": "items"}]},
            "Orders with their payments, a row for each of items and for each match",
        ),
        ({"joins": [PRODUCTS]}, "Orders with products in each of items"),
        ({"joins": [PAYMENTS, PRODUCTS]}, "Orders with their payments, and products in each of items"),
        (
            {"joins": [PAYMENTS | {"from": {"source": "bank", "database": "b", "collection": "transfers"}}]},
            "Orders with their transfers",
        ),
    ],
)
def test_the_phrase_of_a_join_says_what_becomes_a_row_and_where_the_matches_are(
    join: dict[str, Any], phrase: str
) -> None:
    assert describe_join({"database": "shop", "from": "orders", **join}) == phrase


@pytest.mark.parametrize(
    ("join", "lines"),
    [
        (
            {"joins": [], "expand": [{"path": "items", "position": "line", "keep_empty": True}]},
            [("Rows", "one for each of items, its position in line; rows whose list is empty stay")],
        ),
        (
            {"joins": [PRODUCTS]},
            [
                ("Join", "rows with their products, where items.productId = _id"),
                ("Into", "product in each of items: the first match alone"),
            ],
        ),
        (
            {
                "joins": [
                    {
                        "from": {"source": "crm", "database": "crm", "collection": "people"},
                        "kind": "anti",
                        "on": [{"local": "by", "foreign": "_id", "cast": "uuidJavaLegacy", "fold": "case"}],
                    }
                ]
            },
            [("Join", "rows without crm: crm.people, where by as old UUID of Java = _id (ignore capitals)")],
        ),
    ],
)
def test_the_lines_of_a_join_name_every_part(join: dict[str, Any], lines: list[tuple[str, str]]) -> None:
    assert describe_join_lines({"database": "shop", "from": "orders", **join}) == [("From", "shop.orders"), *lines]


def test_the_left_side_is_named_with_its_source() -> None:
    left = {"source": "crm", "database": "sales", "collection": "people"}
    assert describe_join_lines({"database": "sales", "from": left, "joins": []}) == [("From", "crm: sales.people")]

"""Descriptions of joins that expand a list, or put matches into its elements."""

from typing import Any

import pytest

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import spec

PRODUCTS = {
    "from": "products",
    "into": "items",
    "as": "product",
    "shape": "first",
    "on": [{"local": "items.productId", "foreign": "_id"}],
}
SUPPLIERS = {
    "from": "suppliers",
    "into": "items",
    "as": "supplier",
    "on": [{"local": "items.product.supplierId", "foreign": "_id"}],
}
LINES = {"path": "items", "position": "line"}
PAYMENTS = {"from": "payments", "as": "payments", "on": [{"local": "_id", "foreign": "orderId"}]}


def described(*joins: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"database": "shop", "from": "orders", "joins": list(joins), **more}


def errors_of(description: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refusal:
        spec.parse_spec(description, ["shop"])
    return refusal.value.errors


@pytest.mark.parametrize(
    ("expand", "canonical"),
    [
        ("items", [{"path": "items"}]),
        ({"path": "items"}, [{"path": "items"}]),
        ({"path": "cart.items", "position": "line", "keep_empty": True}, None),
        (["items", {"path": "items.parts", "position": "part"}], [{"path": "items"}, {"path": "items.parts"}]),
        ([{"path": "items", "keep_empty": False, "position": None}], [{"path": "items"}]),
    ],
)
def test_an_expanded_list_has_one_canonical_form(expand: Any, canonical: Any) -> None:
    parsed = spec.parse_spec(described(expand=expand), ["shop"]).canonical()["expand"]
    if canonical is None:
        assert parsed == [expand]
    else:
        assert [each["path"] for each in parsed] == [each["path"] for each in canonical]
        assert spec.parse_spec(described(expand=parsed), ["shop"]).canonical()["expand"] == parsed


def test_matches_in_the_elements_of_a_list_can_be_joined_on() -> None:
    description = described(PRODUCTS, SUPPLIERS, PAYMENTS)
    parsed = spec.parse_spec(description, ["shop"])
    assert [join.target for join in parsed.joins] == ["items.product", "items.supplier", "payments"]
    assert parsed.canonical() == described(PRODUCTS, SUPPLIERS, PAYMENTS)


def test_the_list_may_be_one_that_an_earlier_join_made() -> None:
    into_payments = {**PRODUCTS, "into": "payments", "on": [{"local": "payments.cardId", "foreign": "_id"}]}
    assert len(spec.parse_spec(described(PAYMENTS, into_payments), ["shop"]).joins) == 2
    assert errors_of(described({**PAYMENTS, "shape": "first"}, into_payments)) == {
        "join.joins.1.into": "payments is no list: that join has the shape first."
    }


@pytest.mark.parametrize(
    ("description", "path", "reason"),
    [
        (described(expand=["a", "b", "c", "d"]), "join.expand", "at most 3"),
        (described(expand="$items"), "join.expand.0.path", "no field path"),
        (described(expand={"path": "items", "position": "a.b"}), "join.expand.0.position", "without dots"),
        (described(expand={"path": "items", "position": "items"}), "join.expand.0.position", "is taken"),
        (described(expand=["a", {"path": "items", "position": "a"}]), "join.expand.1.position", "is taken"),
        (
            described(expand=[{"path": "a", "position": "n"}, {"path": "b", "position": "n"}]),
            "join.expand.1.position",
            "",
        ),
        (described(expand={"path": "items", "index": "n"}), "join.expand.0.index", "is not known here"),
        (described(PAYMENTS, expand={"path": "items", "position": "payments"}), "join.joins.0.as", "is taken"),
        (described(PRODUCTS, expand="items"), "join.joins.0.into", "is expanded"),
        (described(PRODUCTS, expand={"path": "a", "position": "items"}), "join.joins.0.into", "is a number"),
        (described({**PRODUCTS, "into": "cart.items"}), "join.joins.0.into", "without dots"),
        (described({**PRODUCTS, "kind": "inner"}), "join.joins.0.kind", "only be a left one"),
        (described({**PRODUCTS, "shape": "rows"}), "join.joins.0.shape", "keeps the list whole"),
        (described({**PRODUCTS, "on": PAYMENTS["on"]}), "join.joins.0.on.0.local", "elements of items"),
        (described({**PRODUCTS, "as": None}), "join.joins.0.as", "is missing"),
        (described(PRODUCTS, {**SUPPLIERS, "into": None}), "join.joins.1.on.0.local", "inside the elements of items"),
        (described({**PRODUCTS, "shape": "count"}, SUPPLIERS), "join.joins.1.on.0.local", "is a number"),
        (described({**PRODUCTS, "fields": ["name"]}, SUPPLIERS), "join.joins.1.on.0.local", "is not among the fields"),
        (described(PRODUCTS, {**PAYMENTS, "as": "items"}), "join.joins.1.as", "puts its matches into"),
        (described(PRODUCTS, {**PAYMENTS, "as": "product"}), "join.joins.1.as", "is taken"),
    ],
)
def test_a_contradiction_is_refused_at_its_place(description: dict[str, Any], path: str, reason: str) -> None:
    errors = errors_of(description)
    assert list(errors) == [path]
    assert reason in errors[path]

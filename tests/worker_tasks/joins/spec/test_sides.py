"""The collections that a join reads: how a description names them, and which of them are open for joins."""

from typing import Any

import pytest

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import spec
from worker_tasks.joins.spec.sides import OpenDatabases, Side

OPEN: dict[str | None, list[str]] = {None: ["shop", "archive"], "crm": ["crm", "sales"]}
ON = [{"local": "_id", "foreign": "userId"}]
SHOP = {"database": "shop", "collection": "users"}
ACCOUNTS = {"source": "crm", "database": "crm", "collection": "accounts"}


def described(left: Any, *others: Any, **more: Any) -> dict[str, Any]:
    joins = [{"from": other, "as": f"j{number}", "on": ON} for number, other in enumerate(others)]
    return {"from": left, "joins": joins, **more}


@pytest.mark.parametrize(
    ("description", "sides"),
    [
        (
            described("users", "orders", database="shop"),
            [Side(None, "shop", "users"), Side(None, "shop", "orders")],
        ),
        (
            described("users", {"database": "archive", "collection": "orders"}, ACCOUNTS, database="shop"),
            [Side(None, "shop", "users"), Side(None, "archive", "orders"), Side("crm", "crm", "accounts")],
        ),
        (
            described(ACCOUNTS, "deals", {"database": "sales", "collection": "deals"}, database="crm"),
            [Side("crm", "crm", "accounts"), Side("crm", "crm", "deals"), Side("crm", "sales", "deals")],
        ),
        (
            described(ACCOUNTS, {"source": None, "database": "shop", "collection": "users"}, database="crm"),
            [Side("crm", "crm", "accounts"), Side(None, "shop", "users")],
        ),
    ],
)
def test_each_side_has_a_source_a_database_and_a_collection(description: Any, sides: list[Side]) -> None:
    parsed = spec.parse_spec(description, OPEN)
    assert parsed.sides == sides
    assert [parsed.left, *map(parsed.side, parsed.joins)] == sides
    assert parsed.canonical() == description


@pytest.mark.parametrize(
    ("description", "canonical"),
    [
        (
            described({"database": "shop", "collection": "users"}, {"collection": "orders"}),
            described("users", "orders", database="shop"),
        ),
        (
            described("users", {"source": None, "database": "shop", "collection": "orders"}, database="shop"),
            described("users", "orders", database="shop"),
        ),
        (
            described(ACCOUNTS, {"source": "crm", "collection": "deals"}),
            described(ACCOUNTS, "deals", database="crm"),
        ),
        (
            described({"source": "crm", "collection": "accounts"}, database="crm"),
            described(ACCOUNTS, database="crm"),
        ),
    ],
)
def test_one_meaning_has_one_canonical_form(description: Any, canonical: Any) -> None:
    parsed = spec.parse_spec(description, OPEN)
    assert parsed.canonical() == canonical
    assert parsed.fingerprint == spec.parse_spec(canonical, OPEN).fingerprint


def test_the_same_names_in_another_source_have_another_fingerprint() -> None:
    here = described({"source": None, "database": "crm", "collection": "accounts"})
    databases: OpenDatabases = {None: ["crm"], "crm": ["crm"]}
    one, other = (spec.parse_spec(each, databases) for each in (here, described(ACCOUNTS)))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("description", "path", "reason"),
    [
        (described("users"), "join.database", "is missing"),
        (described({"database": "shop"}), "join.from.collection", "is missing"),
        (described({"database": "shop", "collection": "a$b"}), "join.from.collection", "is no name"),
        (described({"database": 5, "collection": "a"}), "join.from.database", "valid string"),
        (described({"database": "shop", "collection": "a", "host": "b"}), "join.from.host", "is not known here"),
        (described({"source": "CRM", "database": "crm", "collection": "a"}), "join.from.source", "small letters"),
        (described({"source": "", "database": "crm", "collection": "a"}), "join.from.source", "small letters"),
        (described(ACCOUNTS, database="sales"), "join.from.database", "name it in one place"),
        (described("users", database="shop", source="crm"), "join.source", "is not known here"),
        (
            described("users", {"source": "crm", "collection": "a"}, database="shop"),
            "join.joins.0.from.database",
            "mis",
        ),
        (
            described("users", {"source": "c" * 41, "collection": "a"}, database="shop"),
            "join.joins.0.from.source",
            "40",
        ),
        (described("users", {"database": "shop"}, database="shop"), "join.joins.0.from.collection", "is missing"),
        (described("users", database="local"), "join.database", "MongoDB's own"),
        (described({"database": "admin", "collection": "a"}), "join.from.database", "MongoDB's own"),
        (
            described("users", {"database": "config", "collection": "a"}, database="shop"),
            "join.joins.0.from.database",
            "MongoDB's own",
        ),
    ],
)
def test_a_wrong_name_is_refused_at_its_place(description: Any, path: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        spec.parse_spec(description, OPEN)
    assert reason in refusal.value.errors[path]


@pytest.mark.parametrize("field", ["source", "database"])
def test_only_from_names_the_source_and_the_database_of_a_join(field: str) -> None:
    description = described("users", "orders", database="shop")
    description["joins"][0][field] = "crm"
    with pytest.raises(InvalidInput) as refusal:
        spec.parse_spec(description, OPEN)
    assert list(refusal.value.errors) == [f"join.joins.0.{field}"]


@pytest.mark.parametrize(
    ("description", "databases", "errors"),
    [
        (described("a", database="x"), OPEN, {"join.database": "x is not open for joins."}),
        (described("a", database="x"), ["shop"], {"join.database": "x is not open for joins."}),
        (
            described("a", {"database": "x", "collection": "b"}, database="shop"),
            OPEN,
            {"join.joins.0.from.database": "x is not open for joins."},
        ),
        (
            described({"source": "crm", "database": "shop", "collection": "a"}),
            OPEN,
            {"join.from.database": "shop is not open for joins in crm."},
        ),
        (
            described("a", {"source": "erp", "database": "x", "collection": "b"}, database="shop"),
            OPEN,
            {"join.joins.0.from.source": "unknown source “erp”: the known ones are crm."},
        ),
        (
            described(ACCOUNTS),
            ["shop"],
            {"join.from.source": "unknown source “crm”: no source has a name."},
        ),
        (
            described("a", database="shop"),
            {"crm": ["crm"]},
            {"join.from.source": "is missing: the known ones are crm."},
        ),
    ],
)
def test_every_side_must_be_open(description: Any, databases: OpenDatabases, errors: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        spec.parse_spec(description, databases)
    assert refusal.value.errors == errors

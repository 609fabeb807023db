"""Valid and invalid descriptions of joins, and which of them have the same fingerprint."""

from typing import Any

import pytest

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import spec

ON = [{"local": "_id", "foreign": "userId"}]
ORDERS = {"from": "orders", "as": "orders", "on": ON}
ITEMS = {"from": "items", "as": "items", "on": [{"local": "orders.item.id", "foreign": "_id"}]}
SIMPLE = {"database": "shop", "from": "users", "joins": [ORDERS]}
FULL: dict[str, Any] = {
    "database": "shop",
    "from": "users",
    "match": {"_id": "u1"},
    "joins": [
        {
            "from": "orders",
            "as": "orders",
            "kind": "left",
            "on": [{"local": "_id", "foreign": "userId"}],
            "match": {"status": "PAID"},
            "fields": ["amount", "status"],
            "sort": [["amount", -1]],
            "limit": 100,
            "shape": "array",
        }
    ],
    "fields": ["name", "orders"],
    "sort": [["name", 1]],
    "limit": 1000,
}


def parse(description: Any) -> spec.JoinSpec:
    return spec.parse_spec(description, databases=["shop"])


def joined(**changes: Any) -> dict[str, Any]:
    """The simple join with changes to its joined collection; None removes a field."""
    join = {field: value for field, value in {**ORDERS, **changes}.items() if value is not None}
    return {**SIMPLE, "joins": [join]}


def matching(condition: Any) -> dict[str, Any]:
    return {**SIMPLE, "match": condition}


def test_the_canonical_form_is_the_description_without_defaults() -> None:
    canonical = parse(FULL).canonical()
    expected = {
        **FULL,
        "joins": [{field: value for field, value in FULL["joins"][0].items() if field not in {"kind", "shape"}}],
    }
    assert canonical == expected


@pytest.mark.parametrize("fields", [["item"], ["item.id"], ["item.id.x"], None])
def test_a_later_join_can_use_fields_that_an_earlier_one_keeps(fields: list[str] | None) -> None:
    orders = ORDERS if fields is None else {**ORDERS, "fields": fields}
    assert len(parse({**SIMPLE, "joins": [orders, ITEMS]}).joins) == 2


def test_key_order_and_explicit_defaults_do_not_change_the_fingerprint() -> None:
    reordered = dict(reversed(list(FULL.items())))
    assert parse(reordered).fingerprint == parse(FULL).fingerprint
    assert parse(joined(kind="left", shape="array", sort=[])).fingerprint == parse(SIMPLE).fingerprint


def test_fingerprints_stay_the_same_between_versions() -> None:
    assert parse(SIMPLE).fingerprint == "982ee793d4ad3649967bdfc8a316a8e8"
    assert parse(FULL).fingerprint == "f5c55d9248e951ea7a2367cf418985ee"


def test_a_join_can_read_one_collection_alone() -> None:
    alone = {"database": "shop", "from": "users", "joins": []}
    assert parse(alone).canonical() == alone


def test_keys_may_lie_in_a_dbref_and_differ_in_case() -> None:
    pair = {"local": "customer.$id", "foreign": "_id", "cast": "uuidJavaLegacy", "fold": "both"}
    assert parse(joined(on=[pair])).canonical() == joined(on=[pair])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (matching({"city": "New York"}), matching({"city": "NewYork"})),
        (matching({"city": "Oslo"}), matching({"city": "oslo"})),
        (matching({"n": 1}), matching({"n": "1"})),
        (matching({"n": 1}), matching({"n": True})),
        (matching({"n": 1}), matching({"n": 1.0})),
        (matching({"n": None}), matching({"n": {"$exists": False}})),
        (joined(kind="left"), joined(kind="inner")),
        (SIMPLE, {**SIMPLE, "limit": 5}),
        ({**SIMPLE, "sort": [["a", 1], ["b", 1]]}, {**SIMPLE, "sort": [["b", 1], ["a", 1]]}),
    ],
)
def test_different_descriptions_have_different_fingerprints(one: Any, other: Any) -> None:
    assert parse(one).fingerprint != parse(other).fingerprint


@pytest.mark.parametrize(
    ("description", "path"),
    [
        (5, "join"),
        ({}, "join.database"),
        ({**SIMPLE, "database": "tasks"}, "join.database"),
        ({**SIMPLE, "from": "system.users"}, "join.from"),
        ({**SIMPLE, "from": {"db": "local", "coll": "oplog.rs"}}, "join.from.db"),
        ({**SIMPLE, "from": []}, "join.from"),
        ({**SIMPLE, "from": "a$b"}, "join.from"),
        ({"database": "shop", "from": "users"}, "join.joins"),
        ({**SIMPLE, "joins": [ORDERS] * 7}, "join.joins"),
        ({**SIMPLE, "joins": [ORDERS, ORDERS]}, "join.joins.1.as"),
        ({**SIMPLE, "limit": 0}, "join.limit"),
        ({**SIMPLE, "limit": "5"}, "join.limit"),
        ({**SIMPLE, "limit": True}, "join.limit"),
        ({**SIMPLE, "fields": ["$a"]}, "join.fields.0"),
        ({**SIMPLE, "fields": ["a..b"]}, "join.fields.0"),
        ({**SIMPLE, "sort": [["a", 2]]}, "join.sort.0.1"),
        ({**SIMPLE, "pipeline": [{"$out": "x"}]}, "join.pipeline"),
        (joined(on=[]), "join.joins.0.on"),
        (joined(on=None), "join.joins.0.on"),
        (joined(on=[{"local": "a"}]), "join.joins.0.on.0.foreign"),
        (joined(on=[{"local": "a", "foreign": "b", "cast": "bool"}]), "join.joins.0.on.0.cast"),
        (joined(on=[{"local": "a", "foreign": "b", "fold": "accents"}]), "join.joins.0.on.0.fold"),
        (joined(on=[{"local": "$id", "foreign": "b"}]), "join.joins.0.on.0.local"),
        (joined(on=[{"local": "a.$oid", "foreign": "b"}]), "join.joins.0.on.0.local"),
        (joined(on=[{"local": "a", "foreign": "b.$id$"}]), "join.joins.0.on.0.foreign"),
        (joined(on=[{"local": "__dovetail_keys", "foreign": "b"}]), "join.joins.0.on.0.local"),
        (joined(kind="cross"), "join.joins.0.kind"),
        (joined(shape="tree"), "join.joins.0.shape"),
        (joined(**{"as": "_id"}), "join.joins.0.as"),
        (joined(**{"as": "a.b"}), "join.joins.0.as"),
        (joined(**{"as": "__proto__"}), "join.joins.0.as"),
        (joined(**{"as": None}), "join.joins.0.as"),
        (joined(kind="semi"), "join.joins.0.as"),
        (joined(kind="anti", **{"as": None}, limit=5), "join.joins.0.limit"),
        (joined(kind="outer", shape="count"), "join.joins.0.shape"),
        (joined(kind="outer", limit=5), "join.joins.0.limit"),
        ({**SIMPLE, "joins": [ORDERS, {**ORDERS, "as": "again", "kind": "outer"}]}, "join.joins.1.kind"),
        ({**SIMPLE, "joins": [{**ORDERS, "fields": ["amount"]}, ITEMS]}, "join.joins.1.on.0.local"),
        ({**SIMPLE, "joins": [{**ORDERS, "shape": "count"}, ITEMS]}, "join.joins.1.on.0.local"),
        (joined(match={"$expr": {"$gt": ["$a", "$b"]}}), "join.joins.0.match.$expr"),
        (joined(pipeline=[]), "join.joins.0.pipeline"),
    ],
)
def test_an_invalid_description_is_refused_with_its_path(description: Any, path: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(description)
    assert path in refusal.value.errors


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"$where": "sleep(1000)"}, "$where"),
        ({"$function": {}}, "$function"),
        ({"$text": {"$search": "x"}}, "$text"),
        ({"$jsonSchema": {}}, "$jsonSchema"),
        ({"$comment": "x"}, "$comment"),
        ({"a": {"$where": "x"}}, "a.$where"),
        ({"a": {"$near": [0, 0]}}, "a.$near"),
        ({"a": {"b": 1}}, "a"),
        ({"a": [1]}, "a"),
        ({"a": {"$gt": {"b": 1}}}, "a.$gt"),
        ({"a": {"$gt": 1, "b": 2}}, "a"),
        ({"a": {"$in": []}}, "a.$in"),
        ({"a": {"$in": [{"$gt": 1}]}}, "a.$in.0"),
        ({"a": {"$in": list(range(1001))}}, "a.$in"),
        ({"a": {"$not": 5}}, "a.$not"),
        ({"a": {"$not": {"$where": "x"}}}, "a.$not.$where"),
        ({"a": {"$elemMatch": {"$where": "x"}}}, "a.$elemMatch.$where"),
        ({"a": {"$elemMatch": {"b": {"$function": 1}}}}, "a.$elemMatch.b.$function"),
        ({"a": {"$regex": ""}}, "a.$regex"),
        ({"a": {"$regex": {"$regex": "x"}}}, "a.$regex"),
        ({"a": {"$regex": "x", "$options": "x"}}, "a.$options"),
        ({"a": {"$options": "i"}}, "a.$options"),
        ({"a": {"$type": "javascript"}}, "a.$type"),
        ({"a": {"$size": -1}}, "a.$size"),
        ({"a": {"$mod": [0, 1]}}, "a.$mod"),
        ({"a": {"$exists": 1}}, "a.$exists"),
        ({"a": {"$oid": "short"}}, "a"),
        ({"a": {"$date": "yesterday"}}, "a"),
        ({"a": {"$numberDecimal": "many"}}, "a"),
        ({"a": {"$code": "x"}}, "a.$code"),
        ({"a": 2**63}, "a"),
        ({"a": "x" * 1001}, "a"),
        ({"$or": []}, "$or"),
        ({"$or": [{"$where": "x"}]}, "$or.0.$where"),
        ({"$and": {"a": 1}}, "$and"),
        ({"a.$b": 1}, "a.$b"),
        ({"$id": 1}, "$id"),
        ({"": 1}, ""),
        (
            {"$or": [{"$or": [{"$or": [{"$or": [{"$or": [{"$or": [{"a": 1}]}]}]}]}]}]},
            "$or.0.$or.0.$or.0.$or.0.$or.0.$or.0",
        ),
    ],
)
def test_a_forbidden_condition_is_refused_with_its_path(condition: Any, path: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(matching(condition))
    assert list(refusal.value.errors) == [f"join.match.{path}".rstrip(".")]


def test_a_description_nested_too_deep_is_refused() -> None:
    condition: Any = 1
    for _ in range(100_000):
        condition = {"a": condition}
    with pytest.raises(InvalidInput, match="nested too deep"):
        parse(matching(condition))


def test_the_number_of_conditions_is_limited() -> None:
    with pytest.raises(InvalidInput, match="more than 50 conditions"):
        parse(matching({f"field_{number}": 1 for number in range(51)}))


@pytest.mark.parametrize("type_", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_comparisons_take_plain_and_typed_values(type_: str) -> None:
    for value in (1, 1.5, "x", None, True, {"$oid": "0123456789abcdef01234567"}, {"$date": "2024-01-01T00:00:00Z"}):
        assert parse(matching({"a": {type_: value}})).match == {"a": {type_: value}}

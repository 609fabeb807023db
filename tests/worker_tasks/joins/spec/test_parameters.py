"""The parameters of a join are found, validated and filled."""

from typing import Any

import pytest

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import filters, parameters, spec, typed_values
from worker_tasks.joins.spec.parameters import MAX_PARAMETERS
from worker_tasks.joins.spec.sides import Side

FIELD_TYPES = {
    "amount": "decimal",
    "stars": "int",
    "at": "date",
    "userId": "objectId",
    "paid": "bool",
    "name": "string",
}
FILTERS: list[tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = [
    ({"name": {"$parameter": "who", "type": "string"}}, {"who": "Ann"}, {"name": "Ann"}),
    ({"name": {"$parameter": "who", "type": "string"}}, {"who": "5"}, {"name": "5"}),
    ({"stars": {"$gte": {"$parameter": "least", "type": "number"}}}, {"least": "4"}, {"stars": {"$gte": 4}}),
    ({"stars": {"$parameter": "stars", "type": "auto"}}, {"stars": "4"}, {"stars": 4}),
    ({"name": {"$parameter": "who", "type": "auto"}}, {"who": "4"}, {"name": "4"}),
    ({"new": {"$parameter": "who", "type": "auto"}}, {"who": "4"}, {"new": "4"}),
    (
        {"stars": {"$in": {"$parameter": "any", "type": "number"}}},
        {"any": "4, 5,"},
        {"stars": {"$in": [4, 5]}},
    ),
    (
        {"stars": {"$nin": [1, {"$parameter": "one", "type": "number"}]}},
        {"one": "5"},
        {"stars": {"$nin": [1, 5]}},
    ),
    ({"name": {"$regex": {"$parameter": "part", "type": "string"}}}, {"part": "a.b"}, {"name": {"$regex": "a.b"}}),
    (
        {"name": {"$regex": {"$parameter": "start", "type": "string", "prefix": "^"}, "$options": "i"}},
        {"start": "Al"},
        {"name": {"$regex": "^Al", "$options": "i"}},
    ),
    (
        {"$or": [{"paid": {"$parameter": "paid", "type": "auto"}}, {"name": "x"}]},
        {"paid": "True"},
        {"$or": [{"paid": True}, {"name": "x"}]},
    ),
    (
        {"items": {"$elemMatch": {"at": {"$not": {"$lt": {"$parameter": "since", "type": "date"}}}}}},
        {"since": "2013-02-01"},
        {"items": {"$elemMatch": {"at": {"$not": {"$lt": {"$date": "2013-02-01T00:00:00Z"}}}}}},
    ),
    ({"tags": {"$size": {"$parameter": "tags", "type": "number"}}}, {"tags": "2"}, {"tags": {"$size": 2}}),
    (
        {"name": {"$parameter": "same", "type": "string"}, "stars": {"$parameter": "same", "type": "number"}},
        {"same": "7"},
        {"name": "7", "stars": 7},
    ),
]


def type_of(side: Side, path: str) -> str | None:
    return FIELD_TYPES.get(path)


def join(other_match: Any, **more: Any) -> dict[str, Any]:
    """A join with this filter on the other collection."""
    orders = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}], "match": other_match}
    return {"database": "shop", "from": "users", "joins": [orders], **more}


@pytest.mark.parametrize(("match", "texts", "filled"), FILTERS)
def test_parameters_are_replaced_by_the_values_of_the_texts(
    match: dict[str, Any], texts: dict[str, str], filled: dict[str, Any]
) -> None:
    open_join = join(match, match=match)
    parameters.validate(open_join)
    assert parameters.fill(open_join, texts, type_of) == spec.parse(join(filled, match=filled))
    assert open_join == join(match, match=match), "the join itself must not change"


@pytest.mark.parametrize("match", [match for match, _, _ in FILTERS])
def test_a_join_with_an_open_value_is_refused(match: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"join\.match"):
        spec.parse(join({}, match=match))


def test_parameter_is_neither_a_typed_value_nor_an_operator() -> None:
    assert "$parameter" not in typed_values.FORMS.keys() | filters.OPERANDS.keys() | filters.LOGICAL


def test_each_parameter_is_found_with_its_path_and_field() -> None:
    inner = {"c": {"$elemMatch": {"d": {"$parameter": "one", "type": "date"}}}}
    match = {"$and": [{"a.b": {"$in": {"$parameter": "any", "type": "auto"}}}, inner]}
    first, second, third = parameters.find_parameters(join(match, match={"x": {"$parameter": "x", "type": "string"}}))
    assert (first.name, first.path, first.side, first.field) == ("x", "match.x", Side(None, "shop", "users"), "x")
    assert (second.path, second.field, second.is_list) == ("joins.0.match.$and.0.a.b.$in", "a.b", True)
    assert (third.path, third.field, third.is_list) == ("joins.0.match.$and.1.c.$elemMatch.d", "c.d", False)
    assert {each.side.collection for each in (second, third)} == {"orders"}


@pytest.mark.parametrize(
    ("match", "path", "message"),
    [
        ({"a": {"$parameter": "A", "type": "string"}}, "a", "small letters"),
        ({"a": {"$parameter": "a" * 41, "type": "string"}}, "a", "at most 40"),
        ({"a": {"$parameter": "a\n", "type": "string"}}, "a", "small letters"),
        ({"a": {"$parameter": 5, "type": "string"}}, "a", "small letters"),
        ({"a": {"$parameter": "a"}}, "a", "type must be one of auto, bool"),
        ({"a": {"$gt": {"$parameter": "a", "type": ["string"]}}}, "a.$gt", "type must be one of"),
        ({"a": {"$parameter": "a", "type": "string", "default": 1}}, "a", "default is not known"),
        ({"a": {"$parameter": "a", "type": "string", "prefix": "^"}}, "a", "goes with $regex"),
        ({"a": {"$regex": {"$parameter": "a", "type": "auto"}}}, "a.$regex", "type string"),
        ({"a": {"$regex": {"$parameter": "a", "type": "string", "prefix": "x"}}}, "a.$regex", "must be ^"),
        ({"a": {"$exists": {"$parameter": "a", "type": "string"}}}, "a.$exists", "true or false"),
        ({"a": {"$where": {"$parameter": "a", "type": "string"}}}, "a.$where", "not allowed"),
        ({"$and": [{"$parameter": "a", "type": "string"}]}, "$and", "list of filters"),
        ({"$or": {"$parameter": "a", "type": "string"}}, "$or", "list of filters"),
        ({"$parameter": "a", "type": "string"}, "", "object"),
        ({"a": {"b": {"$parameter": "a", "type": "string"}}}, "a", "plain value"),
    ],
)
def test_a_malformed_parameter_is_refused_with_its_path(match: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parameters.validate(join({}, match=match))
    assert message in refused.value.errors[f"join.match.{path}".rstrip(".")]


@pytest.mark.parametrize("description", [None, [], {}, {"joins": [1]}, join({}) | {"limit": {"$parameter": "a"}}])
def test_a_malformed_join_is_refused(description: Any) -> None:
    with pytest.raises(InvalidInput):
        parameters.validate(description)


def test_the_number_of_parameters_is_limited() -> None:
    values = [{"$parameter": f"p{number}", "type": "string"} for number in range(MAX_PARAMETERS + 1)]
    parameters.validate(join({"a": {"$in": values[1:]}}))
    with pytest.raises(InvalidInput, match="more than 100 values"):
        parameters.validate(join({"a": {"$in": values}}))


def test_a_filter_nested_too_deep_is_refused() -> None:
    match: Any = {"a": 1}
    for _ in range(60):
        match = {"$and": [match]}
    with pytest.raises(InvalidInput, match="nested"):
        parameters.validate(join(match))


@pytest.mark.parametrize(
    ("match", "texts", "message"),
    [
        ({"stars": {"$parameter": "a", "type": "number"}}, {"a": "four"}, "“four” is not a number."),
        ({"stars": {"$parameter": "a", "type": "number"}}, {}, "give a value"),
        ({"stars": {"$parameter": "a", "type": "number"}}, {"a": ""}, "give a value"),
        ({"stars": 1}, {"a": "4"}, "is not asked for"),
        ({"name": {"$parameter": "a", "type": "string"}}, {"a": "x" * 1001}, "at most 1,000 characters"),
        ({"a.b": {"$in": {"$parameter": "a", "type": "string"}}}, {"a": " , "}, "not empty"),
        ({"a": {"$in": {"$parameter": "a", "type": "string"}}}, {"a": f"b, {'x' * 1001}"}, "at most 1,000 characters"),
        ({"a": {"$size": {"$parameter": "a", "type": "number"}}}, {"a": "2.5"}, "whole number"),
        ({"a": {"$parameter": "a", "type": "date"}}, {"a": "soon"}, "is not a date"),
    ],
)
def test_a_missing_or_wrong_value_is_named(match: Any, texts: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parameters.fill(join(match), texts, type_of)
    assert refused.value.errors.keys() == {"parameters.a"}
    assert message in refused.value.errors["parameters.a"]


def test_all_errors_are_reported_at_once() -> None:
    match = {name: {"$parameter": name, "type": "number"} for name in ("a", "b", "c")}
    with pytest.raises(InvalidInput) as refused:
        parameters.fill(join(match), {"a": "x", "b": "1", "d": "2"}, type_of)
    assert refused.value.errors.keys() == {"parameters.a", "parameters.c", "parameters.d"}


def test_the_type_of_a_value_is_looked_up_in_the_source_of_its_side() -> None:
    in_crm = {"source": "crm", "database": "sales", "collection": "orders"}
    of_users, of_orders = ({"a": {"$parameter": name, "type": "auto"}} for name in ("x", "y"))
    joined = join(of_orders, match=of_users) | {"from": in_crm}
    assert [each.side for each in parameters.find_parameters(joined)] == [Side("crm", "sales", "orders")] * 2

"""The builder's form converts to and from JoinSpecs and query strings, and shows errors at their fields."""

import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from webapp.builder import field_errors
from webapp.builder.draft_text import describe_draft
from webapp.builder.drafts import Draft, DraftIncomplete
from webapp.builder.join_fields import join_as_fields, spec_as_fields
from webapp.presenters.join_text import describe_join_lines
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import parse
from worker_tasks.joins.spec.value_types import VALUE_TYPES

TYPES = {"amount": "decimal", "stars": "int", "at": "date", "_id": "objectId", "paid": "bool"}

WHOLE = {
    "database": "shop",
    "source": "users",
    "joins-0-source": "orders",
    "joins-0-on-0-local": "_id",
    "joins-0-on-0-foreign": "userId",
}


def type_of(side: Side, path: str) -> str | None:
    return TYPES.get(path)


@pytest.fixture(autouse=True)
def _inside_a_request(app: Flask) -> Any:
    with app.test_request_context():
        yield


def draft(**more: str) -> Draft:
    return Draft(MultiDict(WHOLE | {name.replace("__", "-"): value for name, value in more.items()}))


def asked(**more: str) -> dict[str, Any]:
    return draft(**more).join_document(type_of)


def test_defaults_are_left_out_of_the_join() -> None:
    join = {"from": "orders", "as": "orders", "kind": "left", "shape": "array"}
    on = [{"local": "_id", "foreign": "userId"}]
    assert asked() == {"database": "shop", "from": "users", "joins": [{**join, "on": on}]}


def test_a_join_that_embeds_nothing_has_no_shape_and_no_name() -> None:
    more = {"joins__0__kind": "anti", "joins__0__shape": "rows", "joins__0__name": "x", "joins__0__limit": "3"}
    (join,) = asked(**more)["joins"]
    assert join.keys() == {"from", "kind", "on"}


@pytest.mark.parametrize(
    ("row", "condition"),
    [
        ({"field": "name", "value": "Ann"}, {"name": "Ann"}),
        ({"field": "name", "operator": "ne", "value": "Ann"}, {"name": {"$ne": "Ann"}}),
        ({"field": "stars", "operator": "gte", "value": "4"}, {"stars": {"$gte": 4}}),
        ({"field": "stars", "operator": "in", "value": "4, 5,"}, {"stars": {"$in": [4, 5]}}),
        ({"field": "name", "operator": "contains", "value": "a.b"}, {"name": {"$regex": "a.b", "$options": "i"}}),
        ({"field": "name", "operator": "starts", "value": "Al"}, {"name": {"$regex": "^Al"}}),
        ({"field": "name", "operator": "there"}, {"name": {"$ne": None}}),
        ({"field": "name", "operator": "missing"}, {"name": None}),
        ({"field": "stars", "value": "4", "type": "string"}, {"stars": "4"}),
        ({"field": "amount", "value": "4.50"}, {"amount": {"$numberDecimal": "4.50"}}),
        ({"field": "at", "operator": "lt", "value": "2013-02-01"}, {"at": {"$lt": {"$date": "2013-02-01T00:00:00Z"}}}),
        ({"field": "paid", "value": "True"}, {"paid": True}),
        ({"field": "_id", "value": "A" * 24}, {"_id": {"$oid": "a" * 24}}),
    ],
)
def test_a_condition_is_parsed_by_the_type_of_its_field(row: dict[str, str], condition: dict[str, Any]) -> None:
    assert asked(**{f"filters__0__{name}": value for name, value in row.items()})["match"] == condition


def test_two_conditions_on_one_field_are_merged() -> None:
    rows = {"filters__0__field": "stars", "filters__0__operator": "gte", "filters__0__value": "2"}
    rows |= {"filters__1__field": "stars", "filters__1__operator": "lt", "filters__1__value": "5"}
    assert asked(**rows)["match"] == {"stars": {"$gte": 2, "$lt": 5}}


def test_conditions_that_cannot_be_merged_are_combined_by_and() -> None:
    rows = {"filters__0__field": "name", "filters__0__operator": "contains", "filters__0__value": "a"}
    rows |= {"filters__1__field": "name", "filters__1__operator": "contains", "filters__1__value": "b"}
    assert asked(**rows)["match"] == {
        "$and": [{"name": {"$regex": "a", "$options": "i"}}, {"name": {"$regex": "b", "$options": "i"}}]
    }


def test_a_raw_filter_is_added_to_the_conditions() -> None:
    more = {"filters__0__field": "name", "filters__0__value": "Ann", "raw": '{"tags": {"$size": 2}}'}
    assert asked(**more)["match"] == {"name": "Ann", "tags": {"$size": 2}}


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"filters__0__field": "stars", "filters__0__value": "four"}, "filters-0-value", "“four” is not a number."),
        ({"filters__0__field": "at", "filters__0__value": "May"}, "filters-0-value", "is not a date"),
        ({"filters__0__field": "_id", "filters__0__value": "5"}, "filters-0-value", "24 hexadecimal digits"),
        ({"filters__0__field": "paid", "filters__0__value": "yes"}, "filters-0-value", "true or false"),
        ({"filters__0__field": "name", "filters__0__operator": "contains"}, "filters-0-value", "text to look for"),
        ({"raw": "{"}, "raw", "Is no JSON"),
        ({"raw": "[]"}, "raw", "Must be an object"),
        ({"raw": '{"a":' * 5_000 + "1" + "}" * 5_000}, "raw", "nested too deep"),
        ({"limit": "many"}, "limit", "whole number"),
        ({"joins__0__limit": "-1"}, "joins-0-limit", "whole number"),
    ],
)
def test_invalid_input_is_reported_at_its_field(more: dict[str, str], field: str, words: str) -> None:
    form = draft(**more)
    with pytest.raises(DraftIncomplete, match="what is marked") as raised:
        form.join_document(type_of)
    field_errors.add_errors(form, raised.value.errors)
    assert words in errors_at(form, field)


@pytest.mark.parametrize("seed", range(20))
def test_parsing_a_form_repeatedly_does_not_change_it(seed: int) -> None:
    pick = random.Random(seed)
    prefixes = [f"{side}filters__{row}__" for side in ("", "joins__0__") for row in range(3)]
    rows = {f"{prefix}field": pick.choice([*TYPES, "name"]) for prefix in prefixes}
    rows |= {f"{prefix}value": pick.choice(["4", "x", "{", ""]) for prefix in prefixes}
    form = draft(**rows, raw=pick.choice(["{", "[]", "{}"]), limit=pick.choice(["x", "-1", "7"]), joins__0__limit="no")
    before = (form.data, list(errors_of(form)))
    found = []
    for _ in range(3):
        with pytest.raises(DraftIncomplete) as raised:
            form.join_document(type_of)
        found.append(raised.value.errors)
    assert found[0] == found[1] == found[2]
    assert (form.data, list(errors_of(form))) == before
    field_errors.add_errors(form, found[0])
    shown = list(errors_of(form))
    field_errors.add_errors(form, found[1])
    assert list(errors_of(form)) == shown
    assert sorted(shown) == sorted(message for messages in found[0].values() for message in messages)


def errors_of(form: Any) -> Iterator[str]:
    """The errors shown at individual fields."""
    for field in form:
        entries = getattr(field, "entries", None)
        if entries is None:
            yield from field.errors
        for entry in entries or []:
            yield from errors_of(entry.form)


def errors_at(form: Any, name: str) -> str:
    """The errors at the field of this name."""
    for field in form:
        if field.name == name:
            return " ".join(field.errors)
        for entry in getattr(field, "entries", []):
            if found := errors_at(entry.form, name):
                return found
    return ""


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("join.from", "source"),
        ("join.joins.0.from", "joins-0-source"),
        ("join.joins.0.on.0.local", "joins-0-on-0-local"),
        ("join.joins.0.as", "joins-0-name"),
        ("join.match.name", "filters-0-value"),
        ("join.match.other.$gt", "raw"),
        ("join.joins.0.limit", "joins-0-limit"),
        ("join.sort.0.0", "sort-0-field"),
        ("join.joins.0", "joins-0-source"),
        ("join.from.collection", "source"),
        ("join.from.database", "database"),
        ("join.from.source", "database"),
        ("join.joins.0.from.source", "joins-0-source"),
        ("join.joins.0.from.database", "joins-0-source"),
        ("join.joins.0.into", "joins-0-into"),
        ("join.joins.0.on.0.fold", "joins-0-on-0-fold"),
        ("join.expand", "source"),
        ("join.expand.0.path", "expand-1-path"),
        ("join.expand.0.position", "expand-1-position"),
    ],
)
def test_an_error_of_the_join_is_reported_at_its_form_field(path: str, field: str) -> None:
    form = draft(
        filters__0__field="name",
        filters__0__value="x",
        sort__0__field="name",
        expand__0__path="",
        expand__1__path="items",
    )
    field_errors.add_errors(form, field_errors.errors_by_field(form, {path: "is wrong."}))
    assert errors_at(form, field) == "Is wrong."


@pytest.mark.parametrize("seed", range(30))
def test_an_error_of_a_filter_is_reported_at_the_condition_of_its_field(seed: int) -> None:
    pick = random.Random(seed)
    # Only two letters, so that many names share a prefix or are nested.
    parts = ["".join(pick.choices("ab", k=pick.randint(1, 3))) for _ in range(30)]
    names = {".".join(pick.sample(parts, pick.randint(1, 3))) for _ in range(9)}
    conditions = pick.sample(sorted(names), len(names) - 1)
    form = draft(**{f"filters__{row}__field": name for row, name in enumerate(conditions)})
    for name in names:
        around = [name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)]
        row = next((conditions.index(each) for each in around if each in conditions), None)
        expected = "raw" if row is None else f"filters-{row}-value"
        for path in (name, f"{name}.$gt"):
            placed = field_errors.errors_by_field(form, {f"join.match.{path}": "is wrong."})
            assert placed == {expected: ["Is wrong."]}, (path, conditions)


def test_an_error_is_not_reported_at_a_field_with_the_same_prefix() -> None:
    form = draft(filters__0__field="a", filters__1__field="ab")
    assert list(field_errors.errors_by_field(form, {"join.match.ab": "is wrong."})) == ["filters-1-value"]


@pytest.mark.parametrize(
    ("missing", "step"),
    [
        ("database", "Choose a database."),
        ("source", "Choose the collection to begin with."),
        ("joins-0-source", "Choose the collection to bring in."),
        ("joins-0-on-0-local", "Choose the field that finds the matches in orders."),
        ("joins-0-on-0-foreign", "Choose the field of orders that _id equals."),
    ],
)
def test_an_incomplete_draft_names_the_next_step(missing: str, step: str) -> None:
    form = Draft(MultiDict({name: value for name, value in WHOLE.items() if name != missing}))
    assert form.next_step() == step
    with pytest.raises(DraftIncomplete):
        form.join_document(type_of)


JOINS: list[dict[str, Any]] = [
    {"match": {"name": "Ann", "stars": {"$gte": 2, "$lt": 5}, "at": {"$gt": {"$date": "2013-01-01T05:00:00Z"}}}},
    {"match": {"name": {"$regex": "osl", "$options": "i"}, "city": {"$regex": "Osl"}}},
    {"match": {"tags": {"$all": ["a", "b"]}, "name": {"$regex": "^Al"}, "city": None, "zip": {"$ne": None}}},
    {"match": {"$or": [{"a": 1}, {"b": 2}], "paid": True, "price": {"$in": [1, 2.5]}, "n": {"$in": ["a,b", "c"]}}},
    {"fields": ["name", "orders"], "sort": [["name", 1], ["city", -1]], "limit": 5},
    {"match": {"name": {"$regex": "{city}"}, "zip": {"$regex": "^{zip}"}, "city": {"$in": [" a", "b"]}, "n": "{n}"}},
]
#: Filters with a parameter that form rows can express.
PARAMETERS_IN_ROWS: list[dict[str, Any]] = [
    {"stars": {"$parameter": "stars", "type": "auto"}},
    {"stars": {"$gte": {"$parameter": "least", "type": "number"}, "$lt": {"$parameter": "below", "type": "auto"}}},
    {"name": {"$in": {"$parameter": "names", "type": "string"}}, "at": {"$ne": {"$parameter": "at", "type": "date"}}},
    {"name": {"$regex": {"$parameter": "part", "type": "string"}, "$options": "i"}},
    {"name": {"$regex": {"$parameter": "part", "type": "string", "prefix": "^"}}},
]
#: Filters with a parameter that only JSON can express.
PARAMETERS_IN_JSON: list[dict[str, Any]] = [
    {"name": {"$in": ["Ann", {"$parameter": "name", "type": "string"}]}},
    {"name": {"$in": [{"$parameter": "name", "type": "string"}]}},
    {"name": {"$regex": {"$parameter": "part", "type": "string"}}},
    {"$or": [{"name": {"$parameter": "name", "type": "auto"}}, {"stars": 5}]},
]


@pytest.mark.parametrize("more", JOINS)
def test_a_join_survives_the_round_trip_through_the_form(more: dict[str, Any]) -> None:
    first = {"from": "orders", "as": "orders", "kind": "inner", "shape": "first", "sort": [["amount", -1]], "limit": 2}
    first |= {"on": [{"local": "_id", "foreign": "userId", "cast": "string"}, {"local": "a", "foreign": "b"}]}
    second = {"from": "cities", "kind": "semi", "on": [{"local": "orders.city", "foreign": "_id"}], "match": {"n": 1}}
    whole = {"database": "shop", "from": "users", "joins": [first, second], **more}
    spec = parse(whole)
    again = parse(Draft(spec_as_fields(spec)).join_document(type_of))
    assert again.canonical() == spec.canonical()


ON = [{"local": "_id", "foreign": "userId"}]
ACCOUNTS = {"source": "crm", "database": "crm", "collection": "accounts"}
OF_ITEMS = {"into": "items", "on": [{"local": "items.productId", "foreign": "_id"}]}
WHOLES: list[dict[str, Any]] = [
    {"database": "shop", "from": "users", "joins": []},
    {"database": "shop", "from": "users", "match": {"city": "Oslo"}, "joins": [], "limit": 7},
    {"database": "shop", "from": "orders", "expand": "items", "joins": []},
    {
        "database": "shop",
        "from": "orders",
        "expand": [{"path": "items", "position": "line", "keep_empty": True}, "items.parts"],
        "joins": [{"from": "products", "as": "product", "on": [{"local": "items.productId", "foreign": "_id"}]}],
    },
    {"database": "shop", "from": "orders", "joins": [{"from": "products", "as": "product", **OF_ITEMS}]},
    {
        "database": "shop",
        "from": "orders",
        "joins": [{"from": "products", "as": "product", "shape": "first", "fields": ["name"], **OF_ITEMS}],
    },
    {
        "database": "shop",
        "from": "users",
        "joins": [{"from": "orders", "as": "o", "on": [{**ON[0], "cast": "uuidJavaLegacy", "fold": "both"}]}],
    },
    {
        "database": "shop",
        "from": "users",
        "joins": [
            {"from": ACCOUNTS, "as": "a", "on": ON},
            {"from": {"database": "archive", "collection": "orders"}, "kind": "anti", "on": ON},
        ],
    },
    {
        "from": ACCOUNTS,
        "match": {"city": "Oslo"},
        "joins": [
            {"from": "deals", "as": "deals", "on": ON},
            {"from": {"source": None, "database": "shop", "collection": "users"}, "as": "users", "on": ON},
        ],
    },
]


@pytest.mark.parametrize("whole", WHOLES)
def test_every_part_of_a_join_survives_the_form_and_its_address(whole: dict[str, Any]) -> None:
    spec = parse(whole)
    form = Draft(MultiDict(parse_qsl(Draft(spec_as_fields(spec)).query_string())))
    assert form.next_step() is None
    assert parse(form.join_document(type_of)).canonical() == spec.canonical()


@pytest.mark.parametrize("whole", WHOLES)
def test_a_draft_and_its_join_are_described_alike(whole: dict[str, Any]) -> None:
    spec = parse(whole)
    lines, expected = describe_draft(Draft(spec_as_fields(spec))), describe_join_lines(spec.canonical())
    # Conditions are in words in one of them, in JSON in the other.
    assert [line for line in lines if line[0] != "Only where"] == [line for line in expected if line[0] != "Only where"]


def test_matches_in_the_elements_of_a_list_keep_every_row() -> None:
    more = {"joins__0__into": "items", "joins__0__kind": "inner", "joins__0__shape": "rows"}
    (join,) = asked(**more, joins__0__on__0__local="items.productId")["joins"]
    assert (join["into"], join["kind"], join["shape"]) == ("items", "left", "array")


def test_a_draft_reads_a_collection_alone_only_if_it_says_so() -> None:
    fields = {"database": "shop", "source": "users"}
    assert Draft(MultiDict(fields)).next_step() == "Choose the collection to bring in."
    assert Draft(MultiDict(fields | {"alone": "y"})).join_document(type_of)["joins"] == []
    assert len(Draft(MultiDict(WHOLE | {"alone": "y"})).join_forms) == 1


@pytest.mark.parametrize("match", PARAMETERS_IN_ROWS + PARAMETERS_IN_JSON)
def test_a_parameter_survives_the_round_trip_through_the_form(match: dict[str, Any]) -> None:
    first = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}], "match": match}
    form = Draft(join_as_fields({"database": "shop", "from": "users", "match": match, "joins": [first]}))
    assert (form.raw.data is None) == (match in PARAMETERS_IN_ROWS)
    again = form.join_document(type_of, with_parameters=True)
    assert (again["match"], again["joins"][0]["match"]) == (match, match)


def test_the_query_string_has_every_field_without_its_default() -> None:
    typed = {"note": "why", "metadata-0-key": "ticket", "metadata-0-value": "T-1", "filters-0-field": "", "limit": "7"}
    form = Draft(MultiDict({**WHOLE, **typed, "joins-0-kind": "left", "csrf_token": "secret"}))
    written = dict(parse_qsl(form.query_string()))
    assert written == {
        **WHOLE,
        "note": "why",
        "metadata-0-key": "ticket",
        "metadata-0-value": "T-1",
        "limit": "7",
    }
    assert Draft(MultiDict(written)).query_string() == form.query_string()


def test_a_draft_too_long_for_a_url_has_no_query_string() -> None:
    assert draft(raw=json.dumps({"a": {"$in": ["x" * 900] * 9}})).query_string() == ""


def test_a_value_in_braces_is_a_parameter() -> None:
    form = draft(filters__0__field="stars", filters__0__value="{least}")
    assert form.join_document(type_of, with_parameters=True)["match"] == {
        "stars": {"$parameter": "least", "type": "auto"}
    }
    with pytest.raises(DraftIncomplete) as raised:
        form.join_document(type_of)
    (message,) = raised.value.errors["filters-0-value"]
    assert "asked for when the saved join is run" in message


def test_integers_stay_integers() -> None:
    assert [VALUE_TYPES["number"].read(text) for text in ("7", "-7", "7.0", "1e3")] == [7, -7, 7.0, 1000.0]
    assert isinstance(VALUE_TYPES["number"].read("7"), int)


def test_a_collection_joined_twice_gets_two_fields() -> None:
    more = {"joins__1__source": "orders", "joins__1__on__0__local": "a", "joins__1__on__0__foreign": "b"}
    assert [join["as"] for join in asked(**more)["joins"]] == ["orders", "orders_2"]

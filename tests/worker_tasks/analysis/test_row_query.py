"""Queries parsed from URL parameters and checked before a worker runs them."""

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from worker_tasks.analysis import reader, row_query
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.row_query import (
    MAX_CONDITIONS,
    MAX_SORT_COLUMNS,
    MAX_TEXT,
    WITHOUT_VALUE,
    Condition,
    Operator,
    RowQuery,
)
from worker_tasks.infra.errors import InvalidInput

PROFILE = Profile([Column(str(kind), [str(kind)], kind, 1, 0, 0) for kind in ColumnKind], 1, "0" * 64)
QUERY = RowQuery((("number", True), ("-text", False)), "fine", (Condition("number", Operator.GTE, "1,000.5"),))


def parse(
    sort: Any = (), text: str = "", columns: Any = ("number",), operators: Any = ("eq",), values: Any = ("1",)
) -> RowQuery:
    return row_query.parse_row_query(sort, text, columns, operators, values)


def complaints(refused: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    return set(refused.value.errors)


def test_a_query_is_parsed_from_parameters() -> None:
    parsed = parse(["-number", "--text", ""], " fine ", ["number", ""], ["gte", "eq"], ["1,000.5", "x"])
    assert parsed == RowQuery((("number", True), ("-text", True)), QUERY.text, QUERY.conditions)


def test_empty_parameters_select_everything() -> None:
    assert parse(columns=(), operators=(), values=()).is_everything
    assert parse(["", ""], "   ", [""], [""], [""]).is_everything
    assert not any(
        query.is_everything
        for query in (
            RowQuery((("a", False),)),
            RowQuery(text="a"),
            RowQuery(conditions=(Condition("a", Operator.THERE),)),
        )
    )


def test_a_column_named_twice_is_sorted_once() -> None:
    assert len(parse(["number", "-number", "text"]).sort) == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"text": "x" * (MAX_TEXT + 1)}, "q"),
        ({"values": ["x" * (MAX_TEXT + 1)]}, "value"),
        ({"operators": ["like"]}, "is"),
        ({"operators": []}, "where"),
        ({"columns": ["number", "text"]}, "where"),
        ({"sort": [f"c{number}" for number in range(MAX_SORT_COLUMNS + 1)]}, "sort"),
        (
            {
                name: [value] * (MAX_CONDITIONS + 1)
                for name, value in (("columns", "n"), ("operators", "eq"), ("values", "1"))
            },
            "where",
        ),
    ],
)
def test_an_invalid_parameter_is_named(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(**arguments)
    assert complaints(refused) == {field}


def test_parameters_at_their_limits_are_accepted() -> None:
    count = MAX_CONDITIONS
    query = parse(
        [f"c{n}" for n in range(MAX_SORT_COLUMNS)], "x" * MAX_TEXT, ["number"] * count, ["eq"] * count, ["1"] * count
    )
    assert (len(query.sort), len(query.text), len(query.conditions)) == (MAX_SORT_COLUMNS, MAX_TEXT, count)


@pytest.mark.parametrize("query", [QUERY, RowQuery()])
def test_a_query_survives_serialisation(query: RowQuery) -> None:
    assert RowQuery.from_document(json.loads(json.dumps(query.to_document()))) == query


def test_different_queries_have_different_row_orders() -> None:
    different = [
        RowQuery(),
        QUERY,
        RowQuery(text="fine"),
        RowQuery(text="Fine"),
        RowQuery((("a", True),)),
        RowQuery((("a", False),)),
        RowQuery((("a", False), ("b", False))),
        RowQuery((("b", False), ("a", False))),
        RowQuery(conditions=(Condition("a", Operator.EQ, "b"),)),
        RowQuery(conditions=(Condition("a", Operator.NE, "b"),)),
    ]
    assert len({reader.row_order_spec(query).name for query in different}) == len(different)
    assert reader.row_order_spec(RowQuery.from_document(QUERY.to_document())).name == reader.row_order_spec(QUERY).name


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (ColumnKind.INTEGER, " 1,000 ", Decimal(1000)),
        (ColumnKind.NUMBER, "-1.5e-7", Decimal("-1.5e-7")),
        (ColumnKind.DECIMAL, "1.10", Decimal("1.10")),
        (ColumnKind.BOOLEAN, " True ", True),
        (ColumnKind.BOOLEAN, "false", False),
        (ColumnKind.DATE, "2026-01-31T18:30+01:00", datetime(2026, 1, 31, 17, 30)),  # noqa: DTZ001
        (ColumnKind.DATE, "2026-01-31 18:30:01.5", datetime(2026, 1, 31, 18, 30, 1, 500_000)),  # noqa: DTZ001
        (ColumnKind.TEXT, " 12 ", " 12 "),
        (ColumnKind.ID, "65a000000000000000000001", "65a000000000000000000001"),
        (ColumnKind.TEXT, "", ""),
    ],
)
def test_a_value_is_parsed_by_the_type_of_its_column(kind: ColumnKind, text: str, expected: Any) -> None:
    assert row_query.parse_operand(Condition("x", Operator.EQ, text), kind) == (expected, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (kind, text)
            for kind in ("integer", "number", "decimal")
            for text in (
                "",
                "one",
                "NaN",
                "inf",
                "1.2.3",
                "--1",
                "1,5",
                "3,14",
                "1,23,456",
                "1,5000",
                ",500",
                "1_0",
                "²",
            )
        ),
        *(("boolean", text) for text in ("", "yes", "1")),
        *(("date", text) for text in ("", "yesterday", "2026-02-30", "2026-13-01", "0000-01-01", "12026-01-01")),
        ("date", "0001-01-01T00:00+14:00"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RowQuery(conditions=(Condition(kind, Operator.LTE, text),)).check(PROFILE)
    assert complaints(refused) == {"value"}
    assert kind in str(refused.value)


@pytest.mark.parametrize("operator", sorted(WITHOUT_VALUE - {Operator.UNMATCHED}))
@pytest.mark.parametrize("kind", ColumnKind)
def test_operators_without_a_value_ignore_it(operator: Operator, kind: ColumnKind) -> None:
    query = parse(columns=[str(kind)], operators=[str(operator)], values=["no number"])
    assert query.conditions == (Condition(str(kind), operator),)
    query.check(PROFILE)


def test_the_field_of_a_join_without_a_match_needs_no_column() -> None:
    query = parse(columns=["orders"], operators=["unmatched"], values=["1"])
    assert query.conditions == (Condition("orders", Operator.UNMATCHED),)
    query.check(replace(PROFILE, unmatched=["orders"]))
    with pytest.raises(InvalidInput) as refused:
        query.check(PROFILE)
    assert complaints(refused) == {"where"}


@pytest.mark.parametrize("kind", ColumnKind)
def test_text_operators_require_a_text(kind: ColumnKind) -> None:
    for operator in (Operator.CONTAINS, Operator.STARTS):
        RowQuery(conditions=(Condition(str(kind), operator, "x"),)).check(PROFILE)
        with pytest.raises(InvalidInput):
            RowQuery(conditions=(Condition(str(kind), operator),)).check(PROFILE)


def test_unknown_columns_are_refused_by_name() -> None:
    for query, field in (
        (RowQuery((("no", True),)), "sort"),
        (RowQuery(conditions=(Condition("no", Operator.NULL),)), "where"),
    ):
        with pytest.raises(InvalidInput, match="“no”") as refused:
            query.check(PROFILE)
        assert complaints(refused) == {field}


def test_the_last_day_of_the_calendar_is_accepted() -> None:
    RowQuery(conditions=(Condition("date", Operator.LTE, "9999-12-31"),)).check(PROFILE)

"""A view as it is typed into an address, read and checked before a worker sees it."""

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
VIEW = RowQuery((("number", True), ("-text", False)), "fine", (Condition("number", Operator.GTE, "1,000.5"),))


def read(
    sort: Any = (), text: str = "", columns: Any = ("number",), operators: Any = ("eq",), values: Any = ("1",)
) -> RowQuery:
    return row_query.parse_row_query(sort, text, columns, operators, values)


def complaints(refused: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    return set(refused.value.errors)


def test_a_view_is_read_as_it_is_said() -> None:
    read_view = read(["-number", "--text", ""], " fine ", ["number", ""], ["gte", "eq"], ["1,000.5", "x"])
    assert read_view == RowQuery((("number", True), ("-text", True)), VIEW.text, VIEW.conditions)


def test_nothing_said_is_everything() -> None:
    assert read(columns=(), operators=(), values=()).is_everything
    assert read(["", ""], "   ", [""], [""], [""]).is_everything
    assert not any(
        view.is_everything
        for view in (
            RowQuery((("a", False),)),
            RowQuery(text="a"),
            RowQuery(conditions=(Condition("a", Operator.THERE),)),
        )
    )


def test_a_column_that_is_named_twice_is_sorted_by_once() -> None:
    assert len(read(["number", "-number", "text"]).sort) == 2


@pytest.mark.parametrize(
    ("said", "field"),
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
def test_what_can_not_be_understood_is_refused_beside_its_field(said: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(**said)
    assert complaints(refused) == {field}


def test_as_much_as_may_be_said_is_understood() -> None:
    most = MAX_CONDITIONS
    view = read(
        [f"c{n}" for n in range(MAX_SORT_COLUMNS)], "x" * MAX_TEXT, ["number"] * most, ["eq"] * most, ["1"] * most
    )
    assert (len(view.sort), len(view.text), len(view.conditions)) == (MAX_SORT_COLUMNS, MAX_TEXT, most)


@pytest.mark.parametrize("view", [VIEW, RowQuery()])
def test_a_view_is_the_same_after_it_went_to_a_worker(view: RowQuery) -> None:
    assert RowQuery.from_document(json.loads(json.dumps(view.to_document()))) == view


def test_views_that_differ_have_different_orders() -> None:
    different = [
        RowQuery(),
        VIEW,
        RowQuery(text="fine"),
        RowQuery(text="Fine"),
        RowQuery((("a", True),)),
        RowQuery((("a", False),)),
        RowQuery((("a", False), ("b", False))),
        RowQuery((("b", False), ("a", False))),
        RowQuery(conditions=(Condition("a", Operator.EQ, "b"),)),
        RowQuery(conditions=(Condition("a", Operator.NE, "b"),)),
    ]
    assert len({reader.row_order_spec(view).name for view in different}) == len(different)
    assert reader.row_order_spec(RowQuery.from_document(VIEW.to_document())).name == reader.row_order_spec(VIEW).name


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
def test_a_value_is_read_as_one_of_its_column(kind: ColumnKind, text: str, expected: Any) -> None:
    assert row_query.parse_operand(Condition("x", Operator.EQ, text), kind) == (expected, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (kind, text)
            for kind in ("integer", "number", "decimal")
            for text in ("", "one", "NaN", "inf", "1.2.3", "--1")
        ),
        *(("boolean", text) for text in ("", "yes", "1")),
        *(("date", text) for text in ("", "yesterday", "2026-02-30", "2026-13-01", "0000-01-01", "12026-01-01")),
        ("date", "0001-01-01T00:00+14:00"),
    ],
)
def test_a_value_that_is_none_of_its_column_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RowQuery(conditions=(Condition(kind, Operator.LTE, text),)).check(PROFILE)
    assert complaints(refused) == {"value"}
    assert kind in str(refused.value)


@pytest.mark.parametrize("operator", sorted(WITHOUT_VALUE - {Operator.UNMATCHED}))
@pytest.mark.parametrize("kind", ColumnKind)
def test_what_takes_no_value_is_given_none(operator: Operator, kind: ColumnKind) -> None:
    view = read(columns=[str(kind)], operators=[str(operator)], values=["no number"])
    assert view.conditions == (Condition(str(kind), operator),)
    view.check(PROFILE)


def test_a_join_without_a_match_takes_no_value_and_need_be_no_column() -> None:
    view = read(columns=["orders"], operators=["unmatched"], values=["1"])
    assert view.conditions == (Condition("orders", Operator.UNMATCHED),)
    view.check(replace(PROFILE, unmatched=["orders"]))
    with pytest.raises(InvalidInput) as refused:
        view.check(PROFILE)
    assert complaints(refused) == {"where"}


@pytest.mark.parametrize("kind", ColumnKind)
def test_a_text_to_look_for_must_be_given(kind: ColumnKind) -> None:
    for operator in (Operator.CONTAINS, Operator.STARTS):
        RowQuery(conditions=(Condition(str(kind), operator, "x"),)).check(PROFILE)
        with pytest.raises(InvalidInput):
            RowQuery(conditions=(Condition(str(kind), operator),)).check(PROFILE)


def test_columns_that_are_not_there_are_refused_by_name() -> None:
    for view, field in (
        (RowQuery((("no", True),)), "sort"),
        (RowQuery(conditions=(Condition("no", Operator.NULL),)), "where"),
    ):
        with pytest.raises(InvalidInput, match="“no”") as refused:
            view.check(PROFILE)
        assert complaints(refused) == {field}


def test_the_last_day_that_there_is_can_be_asked_for() -> None:
    RowQuery(conditions=(Condition("date", Operator.LTE, "9999-12-31"),)).check(PROFILE)

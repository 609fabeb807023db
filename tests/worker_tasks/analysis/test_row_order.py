"""Rows found and sorted by a worker, checked against the same in Python."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import product
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from tests.worker_tasks.analysis.support import (
    NAMES,
    TEXTS,
    Built,
    built,
    built_artifact,
    numbers,
    random_documents,
    with_table,
)
from worker_tasks.analysis import artifacts, reader, row_query
from worker_tasks.analysis.artifacts import ArtifactState
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.results.summaries import Summary

pytestmark = pytest.mark.usefixtures("servers")

COUNT = 500
SIGNS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: lambda left, right: left == right,
    Operator.NE: lambda left, right: left != right,
    Operator.LT: lambda left, right: left < right,
    Operator.LTE: lambda left, right: left <= right,
    Operator.GT: lambda left, right: left > right,
    Operator.GTE: lambda left, right: left >= right,
}


@cache
def rows() -> list[Document]:
    return random_documents(11, COUNT)


@pytest.fixture(scope="module")
def table(servers: None) -> Iterator[Built]:
    """The table of random rows."""
    with built(rows(), parts=3) as table:
        yield table


def exact(number: Any) -> Decimal:
    return Decimal(str(number) if isinstance(number, Decimal128 | float) else number)


def milliseconds(date: Any) -> int:
    if isinstance(date, DatetimeMS):
        return int(date)
    since: timedelta = date - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1)


def by_number(number: Any) -> tuple[bool, Decimal]:
    """A sort key that puts NaN last."""
    decimal = exact(number)
    return decimal.is_nan(), Decimal(0) if decimal.is_nan() else decimal


KEYS: dict[str, Callable[[Any], Any]] = {
    "_id": int,
    "id": str,
    "text": str.encode,
    "whole": int,
    "double": by_number,
    "either": by_number,
    "exact": by_number,
    "flag": bool,
    "date": milliseconds,
    "list": len,
}


def ordered(documents: list[Document], name: str, *, descending: bool) -> list[int]:
    """Row numbers sorted by a field. Missing values come last; equal values keep their order."""
    present = [number for number, each in enumerate(documents) if each.get(name) is not None]
    absent = [number for number, each in enumerate(documents) if each.get(name) is None]
    present.sort(key=lambda number: KEYS[name](documents[number][name]), reverse=descending)
    return present + absent


def of_values(*values: Any) -> Summary:
    return with_table([{"x": each} for each in values])


def matching(table: Built | Summary, operator: Operator, text: str = "", column: str = "x") -> list[int]:
    """The numbers of the rows that meet a condition."""
    query = RowQuery(conditions=(Condition(column, operator, text),))
    return table.numbers(query) if isinstance(table, Built) else numbers(table, query)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", KEYS)
def test_rows_are_sorted_by_values_of_each_type(table: Built, name: str, descending: bool) -> None:
    assert table.numbers(RowQuery(sort=((name, descending),))) == ordered(rows(), name, descending=descending)


def test_rows_that_are_equal_in_one_column_are_sorted_by_the_next(table: Built) -> None:
    query = RowQuery(sort=(("flag", True), ("text", False), ("whole", True)))
    expected = list(range(COUNT))
    for name, descending in reversed(query.sort):
        places = {number: place for place, number in enumerate(ordered(rows(), name, descending=descending))}
        same = {number: KEYS[name](value) for number in expected if (value := rows()[number].get(name)) is not None}
        first: dict[Any, int] = {}
        for number in sorted(expected, key=lambda number: places[number]):
            first.setdefault(same.get(number), places[number])
        expected.sort(key=lambda number: first[same.get(number)])
    assert table.numbers(query) == expected


def test_numbers_that_are_equal_as_floats_are_sorted_exactly() -> None:
    base = 2**62
    large = [Int64(base + each) for each in (3, 1, 2, 0, 5, 4)]
    for more in ([], [0.5], [Decimal128("0.5")]):
        sorted_up = numbers(of_values(*large, *more), RowQuery(sort=(("x", False),)))
        assert sorted_up == ([6] if more else []) + [3, 1, 2, 0, 5, 4]
    close = [Decimal128(f"1234567890123456789.{each}") for each in (3, 1, 2)]
    assert numbers(of_values(*close), RowQuery(sort=(("x", True),))) == [0, 2, 1]


def test_decimals_outside_the_range_of_floats_are_sorted_correctly() -> None:
    values = ["1E+6000", "-1E+6000", "0", "1", "-1", "1E-6000"]
    summary = of_values(*map(Decimal128, values), None)
    assert numbers(summary, RowQuery(sort=(("x", False),))) == [1, 4, 2, 5, 3, 0, 6]
    assert matching(summary, Operator.GT, "1e300") == [0]
    assert matching(summary, Operator.LT, "-1e300") == [1]


@pytest.mark.parametrize("operator", SIGNS)
@pytest.mark.parametrize("name", ["whole", "double", "either", "exact"])
@pytest.mark.parametrize("text", ["0", "2.50", "-7.5", "1e300", str(2**63 - 1), "1,000"])
def test_numbers_are_compared_exactly(table: Built, name: str, operator: Operator, text: str) -> None:
    def meets(value: Any) -> bool:
        if value is None or exact(value).is_nan():
            return operator is Operator.NE
        return SIGNS[operator](exact(value), Decimal(text.replace(",", "")))

    expected = [number for number, each in enumerate(rows()) if meets(each.get(name))]
    assert matching(table, operator, text, name) == expected


def test_very_small_differences_count() -> None:
    values = [0.0, 1e-13, -1e-13, 5e-324, 0.1234567890123, 0.123456789012, 0.3, 0.30000000000000004, 1e-12]
    with built([{"x": each} for each in values]) as table:
        for each, operator in product(values, SIGNS):
            expected = [number for number, other in enumerate(values) if SIGNS[operator](other, each)]
            assert matching(table, operator, repr(each)) == expected


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 200, "1e-400", "0." + "0" * 200 + "1"])
def test_conditions_may_use_numbers_outside_the_range_of_floats(number: str) -> None:
    values = [1, 2.5, -3]
    for some in (values, values[::2]):
        expected = [place for place, each in enumerate(some) if Decimal(each) < Decimal(number)]
        with built([{"x": each} for each in some]) as table:
            assert matching(table, Operator.LT, number) == expected
            assert matching(table, Operator.EQ, number) == []
            assert matching(table, Operator.NE, number) == list(range(len(some)))


@pytest.mark.parametrize("operator", SIGNS)
@pytest.mark.parametrize("text", ["plain", "", "null", "b", "日本語", "it's", "\x1funit", "nul\x00inside"])
def test_text_is_compared_by_its_bytes(table: Built, operator: Operator, text: str) -> None:
    def meets(value: Any) -> bool:
        return operator is Operator.NE if value is None else SIGNS[operator](value.encode(), text.encode())

    expected = [number for number, each in enumerate(rows()) if meets(each.get("text"))]
    assert matching(table, operator, text, "text") == expected


@pytest.mark.parametrize("text", ["a", "PLAIN", '"', "'", ",\n", "é", "Ë", "%", "_", "\\", "👩", "e", "\x00"])
def test_text_search_ignores_case(table: Built, text: str) -> None:
    values = [(number, each["text"].lower()) for number, each in enumerate(rows()) if each.get("text") is not None]
    within = [number for number, each in values if text.lower() in each]
    starts = [number for number, each in values if each.startswith(text.lower())]
    assert matching(table, Operator.CONTAINS, text, "text") == within
    assert matching(table, Operator.STARTS, text, "text") == starts


@pytest.mark.parametrize("name", [*KEYS, "mixed", "nothing"])
def test_null_and_missing_values_are_found_separately(table: Built, name: str) -> None:
    present = [number for number, each in enumerate(rows()) if each.get(name) is not None]
    nulls = [number for number, each in enumerate(rows()) if name in each and each[name] is None]
    missing = [number for number, each in enumerate(rows()) if name not in each]
    assert matching(table, Operator.THERE, column=name) == present
    assert matching(table, Operator.NULL, column=name) == nulls
    assert matching(table, Operator.MISSING, column=name) == missing


@pytest.mark.parametrize("operator", SIGNS)
@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 23, 59, 59, 999_000, tzinfo=UTC)),
        ("2026-01-01T00:00:00.250Z", *[datetime(2026, 1, 1, microsecond=250_000, tzinfo=UTC)] * 2),
        ("2026-01-03T02:00+02:00", *[datetime(2026, 1, 3, tzinfo=UTC)] * 2),
        ("1969-12-31", DatetimeMS(-86_400_000), DatetimeMS(-1)),
        ("0001-01-01", DatetimeMS(-62_135_596_800_000), DatetimeMS(-62_135_510_400_001)),
    ],
)
def test_a_day_stands_for_all_its_instants(table: Built, operator: Operator, text: str, first: Any, last: Any) -> None:
    begin, end = milliseconds(first), milliseconds(last)

    def meets(value: Any) -> bool:
        if value is None:
            return operator is Operator.NE
        at = milliseconds(value)
        if operator in {Operator.EQ, Operator.NE}:
            return (begin <= at <= end) is (operator is Operator.EQ)
        return SIGNS[operator](at, begin if operator in {Operator.LT, Operator.GTE} else end)

    expected = [number for number, each in enumerate(rows()) if meets(each.get("date"))]
    assert matching(table, operator, text, "date") == expected


def test_rows_that_meet_all_conditions_are_sorted(table: Built) -> None:
    query = RowQuery(
        sort=(("whole", True),),
        conditions=(
            Condition("flag", Operator.EQ, "TRUE"),
            Condition("whole", Operator.GTE, "-3"),
            Condition("whole", Operator.LT, "9,000"),
            Condition("doc.n", Operator.THERE),
        ),
    )
    expected = [
        number
        for number, each in enumerate(rows())
        if each.get("flag") and each.get("whole") is not None and -3 <= each["whole"] < 9000
        if "n" in (each.get("doc") or {})
    ]
    assert len(expected) > 5
    assert table.numbers(query) == [n for n in ordered(rows(), "whole", descending=True) if n in expected]


def test_zero_differs_from_null() -> None:
    summary = of_values(0, None, 0.0, Decimal128("-0.00"), 1)
    assert matching(summary, Operator.EQ, "0") == [0, 2, 3]
    assert matching(summary, Operator.NE, "0") == [1, 4]


def test_the_text_search_covers_values_of_every_type_but_no_field_names() -> None:
    values: list[Any] = [
        "Fine Weather",
        1234.5,
        Decimal128("77.10"),
        datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        ObjectId("65a0000000000000000abcde"),
        True,
        ["deep", {"inside": "a list"}],
        {"weather": {"is": "nice", "n": 4321}},
        Int64(2**60),
    ]
    expected = {
        "weather": [0],
        "fine w": [0],
        "234.5": [1],
        "77.10": [2],
        "2026-03-04T05:06:07Z": [3],
        "ABCDE": [4],
        "true": [5],
        "a LIST": [6],
        "inside": [],
        "nice": [7],
        "4321": [7],
        str(2**60): [8],
        "nowhere": [],
        "n": [0, 7],
    }
    with built([{f"weather{number}": each} for number, each in enumerate(values)]) as table:
        assert {text: table.numbers(RowQuery(text=text)) for text in expected} == expected


def test_a_text_does_not_match_across_two_columns() -> None:
    summary = with_table([{"a": "one", "b": "two"}, {"a": "onetwo"}])
    assert numbers(summary, RowQuery(text="onetwo")) == [1]


@pytest.mark.parametrize("text", ['say "hi": he', ":colon", 'quote":', "a\\b", "line\nbreak", "é:"])
def test_text_in_lists_and_documents_is_found_with_special_characters(text: str) -> None:
    summary = with_table([{"x": ["first", text]}, {"x": ["other"]}, {"y": [{"k": text, "m": ""}]}, {"z": 1}])
    assert numbers(summary, RowQuery(text=text)) == [0, 2]


def test_columns_of_any_name_can_be_sorted_and_compared() -> None:
    with built([{name: (row + place) % 3 for place, name in enumerate(NAMES)} for row in range(3)]) as table:
        for place, name in enumerate(NAMES):
            expected = sorted(range(3), key=lambda row, place=place: (row + place) % 3)  # type: ignore[misc]
            assert table.numbers(RowQuery(sort=((name, False),))) == expected
            assert matching(table, Operator.GTE, "2", name) == expected[2:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-a", [1, 0, 2]),
        ("--a", [2, 0, 1]),
        ("desc -a", [2, 0, 1]),
        ("a", [2, 1, 0]),
        ("desc a", [0, 1, 2]),
        ("-b", [0, 1, 2]),
        ("desc b", [0, 1, 2]),
        ("desc c", [1, 0, 2]),
        ("-desc c", [2, 0, 1]),
    ],
)
def test_a_column_whose_name_begins_like_a_direction_can_be_sorted_both_ways(text: str, expected: list[int]) -> None:
    names = {"-a": (2, 1, 3), "a": (5, 4, 3), "b": (3, 2, 1), "desc c": (2, 1, 3), "c": (1, 2, 3)}
    with built([{name: values[row] for name, values in names.items()} for row in range(3)]) as table:
        assert table.numbers(row_query.parse_row_query([text], "", (), (), ())) == expected
        for column in names:
            downwards = row_query.descending_text(column, list(names))
            query = row_query.parse_row_query([downwards], "", (), (), ())
            assert query.sort_columns(list(names)) == [(column, True)]


def test_values_are_never_interpreted_as_sql() -> None:
    with built([{"x": each} for each in TEXTS]) as table:
        for number, text in enumerate(TEXTS):
            assert matching(table, Operator.EQ, text) == [number]
            assert number in table.numbers(RowQuery(text=text))


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (RowQuery(sort=(("no", False),)), "sort: names “no”"),
        (RowQuery(conditions=(Condition("no", Operator.EQ, "1"),)), "where: names “no”"),
        (RowQuery(conditions=(Condition("x", Operator.EQ, "one"),)), "“one” is not a number"),
    ],
)
def test_a_query_that_does_not_fit_the_columns_fails_with_a_message(query: RowQuery, complaint: str) -> None:
    summary = of_values(1, 2)
    artifact = built_artifact(summary, reader.row_order_spec(query))
    assert artifact.state is ArtifactState.FAILED
    assert complaint in (artifact.message or "")


@pytest.mark.parametrize("documents", [[], [{}], [{}, {}]], ids=str)
def test_nearly_empty_results_can_be_queried(documents: list[Document]) -> None:
    summary = with_table(documents)
    assert numbers(summary, RowQuery()) == list(range(len(documents)))
    assert numbers(summary, RowQuery(text="x")) == []


def test_pages_of_a_query_end_with_its_rows() -> None:
    summary = with_table(rows(), parts=3)
    query = RowQuery(sort=(("text", True),), text="e")
    order = numbers(summary, query)
    assert len(order) > 100
    assert [row.number for row in reader.read_rows(summary, query, 40, 60)] == order[40:100]
    assert [row.number for row in reader.read_rows(summary, query, len(order) - 3, 50)] == order[-3:]
    assert reader.read_rows(summary, query, len(order), 50) == []


def test_a_query_returns_all_of_many_rows() -> None:
    count = 60_000
    summary = with_table([{"n": number * 7919 % count} for number in range(count)])
    query = RowQuery(sort=(("n", True),))
    assert built_artifact(summary, reader.row_order_spec(query)).data == {"rows": count}
    packed = artifacts.read_range(summary, reader.row_order_spec(query), "numbers")
    assert [number * 7919 % count for number in reader.unpack_numbers(packed)] == list(range(count - 1, -1, -1))

"""The statistics of columns, checked against the same in Python."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from tests.worker_tasks.analysis.support import TEXTS, built, random_documents
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.statistics import BINS, MAX_VALUE_CHARACTERS, TOP

pytestmark = pytest.mark.usefixtures("servers")


def profiled(*values: Any) -> Column:
    """The profile of a column with these values."""
    with built([{"x": each} for each in values]) as table:
        return table.column("x")


def lower_median(values: list[Any]) -> Any:
    return sorted(values)[(len(values) - 1) // 2]


def borders(column: Column) -> list[tuple[float, float]]:
    return [(float(each.low), float(each.high)) for each in column.bins]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 999])
def test_integers_are_measured_exactly(count: int) -> None:
    values = [(number * 7919) % 1009 - 500 for number in range(count)]
    column = profiled(*values)
    assert (column.min, column.max) == (str(min(values)), str(max(values)))
    assert column.median == str(lower_median(values))
    assert column.distinct == len(set(values))
    assert column.is_unique


@pytest.mark.parametrize("seed", range(2))
def test_statistics_of_random_columns_are_correct(seed: int) -> None:
    documents = random_documents(seed, 300)
    with built(documents) as table:
        for name in ("text", "whole", "flag", "id"):
            values = [each[name] for each in documents if each.get(name) is not None]
            column, counted = table.column(name), Counter(values)
            assert column.distinct == len(counted), name
            assert sorted((count for _, count in column.top), reverse=True) == [count for _, count in column.top]
            if len(counted) < len(values):
                assert [count for _, count in column.top] == sorted(counted.values(), reverse=True)[:TOP]
            else:
                assert column.top == []
            if name == "flag":
                assert {text == "true": count for text, count in column.top} == counted
            elif name != "id":
                written = {str(each): count for each, count in counted.items()}
                assert all(written[text] == count for text, count in column.top)
                ordered = sorted(values, key=lambda each: each.encode() if isinstance(each, str) else each)
                assert (column.min, column.max) == (str(ordered[0]), str(ordered[-1]))


def test_lists_are_measured_by_their_lengths() -> None:
    column = profiled([], [1], [1], [1, 2], ["a"] * 20, [[1, 2, 3]])
    assert column.kind is ColumnKind.LIST
    assert (column.min, column.median, column.max) == ("0", "1", "20")
    assert column.top == [("1", 3), ("0", 1), ("2", 1), ("20", 1)]
    assert column.distinct is None
    assert not column.is_unique


def test_dates_are_measured_as_instants() -> None:
    start = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)
    column = profiled(*(start + timedelta(milliseconds=500 * number) for number in (4, 0, 1, 3, 2)))
    assert column.min == "2025-12-31T23:59:59Z"
    assert column.median == "2026-01-01T00:00:00Z"
    assert column.max == "2026-01-01T00:00:01Z"
    assert profiled(start + timedelta(milliseconds=7)).max == "2025-12-31T23:59:59.007Z"


def test_dates_outside_pythons_calendar_are_measured_too() -> None:
    far = [10**15 * number for number in range(-4, 5)]
    column = profiled(*map(DatetimeMS, far), DatetimeMS(-1), DatetimeMS(10**15))
    assert column.kind is ColumnKind.DATE
    assert column.min is not None
    assert column.min.startswith("-")
    assert column.median == "1970-01-01T00:00:00Z"
    assert sum(each.count for each in column.bins) == 11


@pytest.mark.parametrize(
    "values",
    [
        [Int64(-(2**63)), Int64(2**63 - 1), *range(20)],
        [Int64(2**63 - 1 - number) for number in range(20)],
        list(range(9)),
        list(range(12)),
        list(range(13)),
        [0] * 50 + list(range(100)),
        [number**3 for number in range(-20, 20)],
    ],
    ids=str,
)
def test_histograms_of_integers_count_each_value_once(values: list[int]) -> None:
    column = profiled(*values)
    bars = [(int(each.low), int(each.high), each.count) for each in column.bins]
    assert 1 < len(bars) <= BINS
    assert (bars[0][0], bars[-1][1]) == (min(values), max(values))
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bars))
    assert sum(count for *_, count in bars) == len(values)
    if max(map(abs, values)) < 2**53:
        assert [count for *_, count in bars] == [sum(low <= each <= high for each in values) for low, high, _ in bars]


def test_histograms_of_floats_count_each_finite_value_once() -> None:
    values = [number / 8 for number in range(-80, 80)]
    column = profiled(*values, math.nan, math.inf, -math.inf)
    assert len(column.bins) == BINS
    assert borders(column)[0][0] == min(values)
    assert borders(column)[-1][1] == pytest.approx(max(values), rel=1e-3)
    assert sum(each.count for each in column.bins) == len(values)
    assert max(each.count for each in column.bins) - min(each.count for each in column.bins) <= 1


@pytest.mark.parametrize(
    "values",
    [
        [1e307 * number for number in range(-10, 11)],
        [1.7976931348623157e308, -1.7976931348623157e308, *map(float, range(20))],
        [5e-324 * number for number in range(20)],
        [math.nan, math.inf, -math.inf, *(1e300 * number for number in range(9))],
        [Decimal128(f"1E+{number}") for number in range(0, 6145, 512)],
        [Decimal128(f"1E-{number}") for number in range(0, 6145, 512)],
        [Decimal128(f"1.{'0' * 30}{number:03d}") for number in range(20)],
        [Decimal128(text) for text in ("1E-320", "2E-320", "NaN", "-Infinity", *map(str, range(9)))],
    ],
    ids=lambda values: str(values)[:40],
)
def test_extreme_numbers_have_statistics(values: list[Any]) -> None:
    column = profiled(*values)
    assert column.filled == len(values)
    assert column.distinct == len(values)
    assert all(math.isfinite(border) for bar in borders(column) for border in bar)
    assert sum(each.count for each in column.bins) <= len(values)


def test_nan_is_greater_than_all_numbers() -> None:
    column = profiled(2.5, math.nan, -math.inf, 1, math.inf)
    assert (column.min, column.median, column.max) == ("-Infinity", "2.5", "NaN")


def test_decimals_keep_all_their_digits() -> None:
    column = profiled(*map(Decimal128, ["1.10", "-0.50", "1234567890123456789012345678901234", "1.10", "7"]))
    assert (column.min, column.median, column.max) == ("-0.50", "1.10", "1234567890123456789012345678901234")
    assert column.top[0] == ("1.10", 2)


def test_long_values_are_compared_completely_and_shown_in_part() -> None:
    long = "é" * MAX_VALUE_CHARACTERS
    column = profiled(long + "a", long + "b", long + "a", "z")
    assert column.distinct == 3
    assert column.top == [(long, 2), ("z", 1), (long, 1)]
    assert column.min == "z"


def test_only_the_most_frequent_values_are_listed() -> None:
    column = profiled(*(f"v{number}" for number in range(20) for _ in range(number + 1)))
    assert column.top == [(f"v{number}", number + 1) for number in range(19, 19 - TOP, -1)]
    assert column.distinct == 20


def test_unique_values_are_not_listed_as_frequent() -> None:
    column = profiled(*TEXTS)
    assert column.top == []
    assert column.is_unique
    assert not profiled("a", "a").is_unique


@pytest.mark.parametrize("values", [[None], [None, None]])
def test_a_column_of_nulls_has_no_statistics(values: list[Any]) -> None:
    column = profiled(*values)
    assert column == Column("x", ["x"], ColumnKind.NOTHING, 0, len(values), 0)
    assert not column.is_unique


def test_mixed_values_are_counted_by_value_and_type() -> None:
    column = profiled(1, "1", 1, [1], {"a": 1}, {"a": 1}, ObjectId("0" * 24))
    assert column.kind is ColumnKind.MIXED
    assert column.distinct == 5
    assert column.top[:2] == [("1", 2), ('{"a":1}', 2)]
    assert (column.min, column.max) == (None, None)


def test_a_profile_survives_serialisation() -> None:
    with built(random_documents(9, 100)) as table:
        assert Profile.from_document(table.profile.to_document()) == table.profile
        with pytest.raises(KeyError):
            table.profile.index_of("no such column")

"""Columns as text and as bars."""

import pytest

from webapp.presenters import column_text
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.profiles import Bin, Column


def column(kind: ColumnKind, **figures: object) -> Column:
    return Column(**{"name": "a", "path": ["a"], "kind": kind, "filled": 10, "nulls": 0, "missing": 0, **figures})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, "100 % filled"),
        ({"nulls": 10}, "50 % filled, 10 null"),
        ({"filled": 999, "missing": 1}, "over 99 % filled, 1 missing"),
        ({"empty": 5}, "50 % filled, 5 empty"),
    ],
)
def test_the_fullness_of_a_column_counts_nulls_missing_and_empty_values(figures: dict[str, int], words: str) -> None:
    assert column_text.describe_filled(column(ColumnKind.TEXT, **figures)) == words


@pytest.mark.parametrize(
    ("kind", "figures", "words"),
    [
        (ColumnKind.BOOLEAN, {"filled": 1, "top": [("true", 1)]}, "100 % true"),
        (ColumnKind.BOOLEAN, {"filled": 4, "top": [("false", 3), ("true", 1)]}, "25 % true"),
        (ColumnKind.BOOLEAN, {"filled": 2, "top": [("false", 2)]}, "0 % true"),
        (ColumnKind.INTEGER, {"min": "2013", "median": "2013", "max": "2013"}, "2013"),
        (ColumnKind.NUMBER, {"min": "0.1", "median": "1", "max": "12345678.901234567"}, "0.1 to 1.235e+07"),
        (ColumnKind.LIST, {"min": "0", "median": "1", "max": "9"}, "0 to 9 long"),
        (
            ColumnKind.DATE,
            {"min": "2026-01-02T03:04:05Z", "max": "2026-02-03T03:04:05Z"},
            "2026-01-02 to 2026-02-03",
        ),
        (ColumnKind.TEXT, {"distinct": 10}, "all different"),
        (ColumnKind.TEXT, {"distinct": 1}, "1 value"),
        (ColumnKind.NOTHING, {"filled": 0, "nulls": 10}, "empty"),
        (ColumnKind.MIXED, {}, "values of several types"),
    ],
)
def test_a_column_is_described_by_its_range_or_its_number_of_values(
    kind: ColumnKind, figures: dict[str, object], words: str
) -> None:
    assert column_text.describe_column_briefly(column(kind, **figures)) == words


def test_bars_stand_on_the_baseline_and_fill_the_chart() -> None:
    drawn = column_text.bars(
        column(ColumnKind.INTEGER, bins=[Bin("1", "1", 5), Bin("2", "3", 10), Bin("4", "5", 0)]), 90, 20
    )
    assert [(bar.x, bar.y, bar.width, bar.height) for bar in drawn] == [
        (0, 10, 29, 10),
        (30, 0, 29, 20),
        (60, 20, 29, 0),
    ]
    assert [bar.label for bar in drawn] == ["1: 5", "2 to 3: 10", "4 to 5: 0"]


def test_a_rare_value_has_a_visible_bar_and_an_empty_bin_has_none() -> None:
    first, second, third = column_text.bars(
        column(ColumnKind.INTEGER, bins=[Bin("1", "1", 1), Bin("2", "2", 0), Bin("3", "3", 9999)]), 90, 20
    )
    assert (first.height > 0, second.height, third.height) == (True, 0, 20)


def test_values_outside_the_chart_are_counted() -> None:
    of_five = column(ColumnKind.TEXT, distinct=5, top=[("a", 4), ("b", 2)])
    assert column_text.describe_others(of_five) == "3 other values: 4 rows"
    assert column_text.describe_others(column(ColumnKind.TEXT, distinct=2, top=[("a", 6), ("b", 4)])) == ""


def test_large_numbers_have_separators_and_years_have_none() -> None:
    whole = column(ColumnKind.INTEGER)
    assert [column_text.format_value(whole, each) for each in ("2013", "-2013", "20130")] == ["2013", "-2013", "20,130"]
    assert column_text.format_value(column(ColumnKind.TEXT), "") == "(empty text)"


def test_every_kind_of_column_has_a_label() -> None:
    assert list(column_text.KINDS) == list(ColumnKind)
    assert len({words.label for words in column_text.KINDS.values()}) == len(ColumnKind)

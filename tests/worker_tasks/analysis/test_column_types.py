"""The table of column types is complete and unambiguous."""

import pytest

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, common_kind


def test_every_kind_has_a_row() -> None:
    assert list(COLUMN_TYPES) == list(ColumnKind)


@pytest.mark.parametrize("source", ["json_types", "wrappers"])
def test_every_json_type_belongs_to_one_column_type(source: str) -> None:
    names = [name for each in COLUMN_TYPES.values() for name in getattr(each, source)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", ColumnKind)
def test_the_flags_and_expressions_of_a_type_are_consistent(kind: ColumnKind) -> None:
    row = COLUMN_TYPES[kind]
    assert not (row.is_json and row.is_digits)
    # A type with a median also has a minimum and a maximum.
    assert row.statistics is None or row.statistics.has_range or not row.statistics.has_median
    for expression in (row.stored, row.comparable, row.text, row.in_mixed, row.parquet):
        assert "{0}" not in expression("c0")
        assert "c0" in expression("c0")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (set(), ColumnKind.NOTHING),
        ({ColumnKind.LIST}, ColumnKind.LIST),
        ({ColumnKind.INTEGER, ColumnKind.NUMBER}, ColumnKind.NUMBER),
        ({ColumnKind.INTEGER, ColumnKind.DECIMAL}, ColumnKind.DECIMAL),
        ({ColumnKind.INTEGER, ColumnKind.NUMBER, ColumnKind.DECIMAL}, ColumnKind.DECIMAL),
        ({ColumnKind.INTEGER, ColumnKind.TEXT}, ColumnKind.MIXED),
        ({ColumnKind.ID, ColumnKind.TEXT}, ColumnKind.MIXED),
    ],
)
def test_the_common_kind_can_hold_all_values(kinds: set[ColumnKind], expected: ColumnKind) -> None:
    assert common_kind(kinds) is expected

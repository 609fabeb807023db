"""Typed numbers mean the same wherever they are typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind
from worker_tasks.joins.spec.typed_numbers import numeric_text, whole_number
from worker_tasks.joins.spec.value_types import VALUE_TYPES


@given(st.integers(-(10**15), 10**15))
def test_groups_of_three_digits_are_one_number(number: int) -> None:
    for text in (f"{number:,}", f" {number}", f"{number:,}.50"):
        expected = number if "." not in text else float(f"{number}.50")
        assert VALUE_TYPES["number"].read(text) == expected
        assert COLUMN_TYPES[ColumnKind.NUMBER].parse(text)[0] == expected


@pytest.mark.parametrize("text", ["1,5", "3,14", "1,23,456", "1,5000", "1,", ",500", "1.5,000", "1.234,56", "1 000"])
def test_a_comma_elsewhere_is_refused_in_every_place(text: str) -> None:
    for read in (numeric_text, whole_number, VALUE_TYPES["number"].read, VALUE_TYPES["decimal"].read):
        with pytest.raises(ValueError, match="is not a number"):
            read(text)
    with pytest.raises(ValueError, match="is not a number"):
        COLUMN_TYPES[ColumnKind.DECIMAL].parse(text)

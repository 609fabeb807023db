"""Every operator and every value type makes an allowed filter and survives a round trip through form rows."""

from collections import Counter

import pytest

from webapp.builder.filter_rows import filter_rows
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.bson_types import BSON_TYPES
from worker_tasks.joins.spec.operators import OPERATORS, FilterOperator, Operand, operator_of
from worker_tasks.joins.spec.value_types import TEXT, VALUE_TYPES, ValueType, value_type


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_each_operator_makes_an_allowed_filter_and_is_recognised_in_it(operator: FilterOperator) -> None:
    given = {Operand.NOTHING: None, Operand.VALUE: 4, Operand.VALUES: [4, 5], Operand.TEXT: "Al"}[operator.operand]
    match = filters.check_filter({"stars": operator.condition(given)})
    (row,), raw = filter_rows(match)
    assert (row["operator"], raw) == (operator.name, {})


def test_an_unknown_operator_is_refused_by_name() -> None:
    with pytest.raises(filters.FilterError, match=r"\$where is not allowed"):
        filters.check_filter({"stars": operator_of("where").condition("1")})


@pytest.mark.parametrize("written", VALUE_TYPES.values(), ids=VALUE_TYPES)
def test_the_example_of_each_type_survives_a_round_trip(written: ValueType) -> None:
    match = filters.check_filter({"field": written.read(written.example)})
    (row,), _ = filter_rows(match)
    assert VALUE_TYPES[row["type"]].read(row["value"]) == match["field"]
    assert row["type"] == written.name


def test_each_bson_type_has_one_value_type_at_most() -> None:
    counts = Counter(bson_type for each in VALUE_TYPES.values() for bson_type in each.bson_types)
    assert counts.keys() <= BSON_TYPES.keys()
    assert set(counts.values()) == {1}


def test_the_chosen_type_precedes_the_type_of_the_field_and_text() -> None:
    assert value_type("bool", "int").name == "bool"
    assert value_type("", "int").name == "number"
    assert value_type(None) is value_type("", "array") is value_type("no such type", "int") is TEXT

"""The operators of a filter's conditions as people choose them, one row each. Pure: no I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Operand(StrEnum):
    """What an operator is given."""

    NOTHING = "nothing"
    VALUE = "value"
    VALUES = "values"
    TEXT = "text"


@dataclass(frozen=True)
class FilterOperator:
    """``condition`` makes MongoDB's condition on the field of what is given.

    ``mongodb`` is MongoDB's operator, where that and the value are all there is to the condition. ``prefix`` goes in
    front of a text to look for.
    """

    name: str
    label: str
    operand: Operand
    condition: Callable[[Any], Any]
    mongodb: str | None = None
    prefix: str = ""


def _plain(name: str, label: str, operand: Operand = Operand.VALUE) -> FilterOperator:
    """An operator that MongoDB has under the same name."""
    return FilterOperator(name, label, operand, lambda given: {f"${name}": given}, f"${name}")


def _search(name: str, label: str, prefix: str = "") -> FilterOperator:
    """An operator that looks for a text."""
    return FilterOperator(name, label, Operand.TEXT, lambda text: {"$regex": f"{prefix}{text}"}, prefix=prefix)


OPERATORS: dict[str, FilterOperator] = {
    operator.name: operator
    for operator in (
        FilterOperator("eq", "is", Operand.VALUE, lambda value: value),
        _plain("ne", "is not"),
        _plain("gt", "more than"),
        _plain("gte", "at least"),
        _plain("lt", "less than"),
        _plain("lte", "at most"),
        _plain("in", "one of", Operand.VALUES),
        _plain("nin", "none of", Operand.VALUES),
        _search("contains", "contains"),
        _search("starts", "begins with", prefix="^"),
        FilterOperator("there", "is there", Operand.NOTHING, lambda _: {"$ne": None}),
        FilterOperator("missing", "is missing", Operand.NOTHING, lambda _: None),
    )
}

#: The names of operators by MongoDB's.
BY_MONGODB = {operator.mongodb: name for name, operator in OPERATORS.items() if operator.mongodb is not None}


def operator_of(name: str) -> FilterOperator:
    """The operator of this name; an unknown one is passed on, for the rules of filters to refuse it by name."""
    return OPERATORS.get(name) or _plain(name, name)

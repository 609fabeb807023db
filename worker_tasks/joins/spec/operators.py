"""The operators that people choose for a filter's conditions, one row each. Pure: no I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Operand(StrEnum):
    """The operand that an operator takes."""

    NOTHING = "nothing"
    VALUE = "value"
    VALUES = "values"
    TEXT = "text"


@dataclass(frozen=True)
class FilterOperator:
    """An operator in the list of choices.

    ``condition`` builds MongoDB's condition on the field from the operand. ``mongodb`` is MongoDB's name for the
    operator, if the condition is just that operator and the value. ``prefix`` precedes the search text, and ``options``
    are those of the search.
    """

    name: str
    label: str
    operand: Operand
    condition: Callable[[Any], Any]
    mongodb: str | None = None
    prefix: str = ""
    options: str = ""


def _plain(name: str, label: str, operand: Operand = Operand.VALUE) -> FilterOperator:
    """An operator with the same name in MongoDB."""
    return FilterOperator(name, label, operand, lambda value: {f"${name}": value}, f"${name}")


def _search(name: str, label: str, prefix: str = "", options: str = "") -> FilterOperator:
    """An operator that searches for a text."""
    return FilterOperator(
        name, label, Operand.TEXT, lambda text: search(f"{prefix}{text}", options), prefix=prefix, options=options
    )


def search(text: Any, options: str) -> dict[str, Any]:
    """MongoDB's condition for a search."""
    return {"$regex": text} | ({"$options": options} if options else {})


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
        # Capitals do not matter, as over a result. With a prefix they do, so that MongoDB can use an index.
        _search("contains", "contains", options="i"),
        _search("starts", "begins with", prefix="^"),
        FilterOperator("there", "is there", Operand.NOTHING, lambda _: {"$ne": None}),
        FilterOperator("missing", "is missing", Operand.NOTHING, lambda _: None),
    )
}

#: Names of operators, by MongoDB's names for them.
BY_MONGODB = {operator.mongodb: name for name, operator in OPERATORS.items() if operator.mongodb is not None}


def operator_of(name: str) -> FilterOperator:
    """The operator of this name. An unknown name passes through, so that the filter's own check refuses it."""
    return OPERATORS.get(name) or _plain(name, name)

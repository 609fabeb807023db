"""Queries for the rows of a result, and their validation. This module does no I/O.

The web application validates a query before a worker runs it, so that errors appear next to the form field.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, Operand
from worker_tasks.analysis.profiles import Profile
from worker_tasks.infra.errors import InvalidInput

#: The longest search text and the longest value of a condition, in characters.
MAX_TEXT = 300
MAX_CONDITIONS = 8
MAX_SORT_COLUMNS = 5


class Operator(StrEnum):
    """The comparison in a condition. The names are the same as in the builder's filters."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    CONTAINS = "contains"
    STARTS = "starts"
    THERE = "there"
    NULL = "null"
    MISSING = "missing"
    EMPTY = "empty"
    #: Applies to a field added by a join, even if the field is spread over several columns.
    UNMATCHED = "unmatched"


#: Operators that take no value.
WITHOUT_VALUE = frozenset({Operator.THERE, Operator.NULL, Operator.MISSING, Operator.EMPTY, Operator.UNMATCHED})
#: Operators that compare text.
TEXT_OPERATORS = frozenset({Operator.CONTAINS, Operator.STARTS})
#: Before the name of a column, in an order downwards that cannot be meant as another column.
DOWNWARDS = "desc "
EQUALITY = frozenset({Operator.EQ, Operator.NE})


@dataclass(frozen=True)
class Condition:
    """Compares a column with a value that a person typed, or selects the rows for which a join found no match."""

    column: str
    operator: Operator
    value: str = ""


@dataclass(frozen=True)
class RowQuery:
    """Selects the rows that meet all conditions and contain the search text.

    Each entry of ``sort`` names a column and says whether its order is descending. See :meth:`sort_columns` for names
    that begin like a direction.
    """

    sort: tuple[tuple[str, bool], ...] = ()
    text: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether the query selects all rows in their original order."""
        return not (self.sort or self.text or self.conditions)

    def sort_columns(self, names: Collection[str]) -> list[tuple[str, bool]]:
        """The columns to sort by, and whether each order is descending, in a result with columns of these names.

        A name that a column has is that column: ``-a`` is column ``-a`` if there is one, and ``a`` downwards otherwise.
        ``desc a`` is ``a`` downwards in any case.
        """
        return [_sort_column(name, names, descending=descending) for name, descending in self.sort]

    def to_document(self) -> dict[str, Any]:
        return {
            "sort": [list(each) for each in self.sort],
            "text": self.text,
            "conditions": [[each.column, str(each.operator), each.value] for each in self.conditions],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        return cls(
            tuple((column, descending) for column, descending in document["sort"]),
            document["text"],
            tuple(Condition(column, Operator(operator), value) for column, operator, value in document["conditions"]),
        )

    def check(self, profile: Profile) -> None:
        """Checks that the query fits the columns of a result.

        Raises:
            InvalidInput: the query does not fit; the error names the parameter ``sort``, ``where`` or ``value``.
        """
        kinds = {column.name: column.kind for column in profile.columns}
        for column, _ in self.sort_columns(kinds):
            if column not in kinds:
                raise InvalidInput({"sort": f"names “{column}”, which is no column of this result."})
        for condition in self.conditions:
            if condition.operator is Operator.UNMATCHED:
                if condition.column not in profile.unmatched:
                    message = f"names “{condition.column}”, which is no join whose rows without a match are known."
                    raise InvalidInput({"where": message})
                continue
            if condition.column not in kinds:
                raise InvalidInput({"where": f"names “{condition.column}”, which is no column of this result."})
            try:
                parse_operand(condition, kinds[condition.column])
            except ValueError as error:
                raise InvalidInput({"value": f"of {condition.column}: {error}"}) from None


def _sort_column(name: str, names: Collection[str], *, descending: bool) -> tuple[str, bool]:
    if descending and f"-{name}" in names:
        return f"-{name}", False
    if not descending and name not in names and name.startswith(DOWNWARDS):
        return name.removeprefix(DOWNWARDS), True
    return name, descending


def descending_text(column: str, names: Collection[str]) -> str:
    """The parameter ``sort`` for a column downwards, in a result with columns of these names."""
    return f"{DOWNWARDS}{column}" if f"-{column}" in names else f"-{column}"


def parse_row_query(
    sort: Sequence[str], text: str, columns: Sequence[str], operators: Sequence[str], values: Sequence[str]
) -> RowQuery:
    """Parses the parameters of a URL.

    Args:
        sort: names of columns, with a leading ``-`` or ``desc`` for descending order.
        text: the text to search for.
        columns: the column of each condition; conditions without a column are ignored.
        operators: the operator of each condition.
        values: the value of each condition.

    Raises:
        InvalidInput: a parameter is invalid; the error names the parameter.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput({"q": f"must be text of at most {MAX_TEXT} characters."})
    if len(sort) > MAX_SORT_COLUMNS:
        raise InvalidInput({"sort": f"may name at most {MAX_SORT_COLUMNS} columns."})
    if not len(columns) == len(operators) == len(values):
        raise InvalidInput({"where": "and is and value must come equally often."})
    conditions = []
    for column, operator, value in zip(columns, operators, values, strict=True):
        if not column:
            continue
        if operator not in set(Operator):
            raise InvalidInput({"is": f"must be one of {', '.join(Operator)}."})
        if len(value) > MAX_TEXT:
            raise InvalidInput({"value": f"must be text of at most {MAX_TEXT} characters."})
        conditions.append(Condition(column, Operator(operator), "" if Operator(operator) in WITHOUT_VALUE else value))
    if len(conditions) > MAX_CONDITIONS:
        raise InvalidInput({"where": f"may name at most {MAX_CONDITIONS} columns."})
    return RowQuery(parse_sort(sort), text.strip(), tuple(conditions))


def parse_sort(sort: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    """Parses the parameters ``sort``. A column that is named twice has the last direction."""
    return tuple({each.removeprefix("-"): each.startswith("-") for each in sort if each}.items())


def parse_operand(condition: Condition, kind: ColumnKind) -> Operand:
    """Parses the value of a condition for a column of this kind.

    Raises:
        ValueError: the value does not fit; the message says why.
    """
    if condition.operator in WITHOUT_VALUE:
        return None, None
    text = condition.value
    if condition.operator in TEXT_OPERATORS:
        if not text:
            raise ValueError("give the text to look for.")
        return text, None
    operand = COLUMN_TYPES[kind].parse(text)
    if kind is ColumnKind.LIST and isinstance(operand[0], str) and condition.operator not in EQUALITY:
        raise ValueError("give a number of values: a list is less or more than another by its length.")
    return operand

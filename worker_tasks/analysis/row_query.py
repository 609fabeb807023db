"""How a person looks at a result: which of its rows, in which order; checked against its columns. Pure: no I/O.

Values are checked here, before a worker sees them, so that what is wrong is said beside the field it was typed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, Operand
from worker_tasks.analysis.profiles import Profile
from worker_tasks.infra.errors import InvalidInput

#: Characters of a text that is looked for.
MAX_TEXT = 300
MAX_CONDITIONS = 8
MAX_SORT_COLUMNS = 5


class Operator(StrEnum):
    """How a column is compared; the names are those of the builder's conditions."""

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
    #: Of the field that a join brings in, whatever columns it is spread over.
    UNMATCHED = "unmatched"


#: Operators that take no value.
WITHOUT_VALUE = frozenset({Operator.THERE, Operator.NULL, Operator.MISSING, Operator.EMPTY, Operator.UNMATCHED})
#: Operators that compare text.
TEXT_OPERATORS = frozenset({Operator.CONTAINS, Operator.STARTS})


@dataclass(frozen=True)
class Condition:
    """A column, by its name, compared with a value as it was typed; or a join that is to have found nothing."""

    column: str
    operator: Operator
    value: str = ""


@dataclass(frozen=True)
class RowQuery:
    """Rows that meet all conditions and in which a text occurs, sorted by columns, each with whether it descends."""

    sort: tuple[tuple[str, bool], ...] = ()
    text: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether it is all rows as they were joined."""
        return not (self.sort or self.text or self.conditions)

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
        """Refuses what these columns can not be asked.

        Raises:
            InvalidInput: names what is wrong, as ``sort``, ``q``, ``where`` or ``value``.
        """
        kinds = {column.name: column.kind for column in profile.columns}
        for column, _ in self.sort:
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


def parse_row_query(
    sort: Sequence[str], text: str, columns: Sequence[str], operators: Sequence[str], values: Sequence[str]
) -> RowQuery:
    """A view as an address says it: ``-`` before a column that descends; conditions side by side.

    Raises:
        InvalidInput: names what can not be understood.
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
    ordered = {each.removeprefix("-"): each.startswith("-") for each in sort if each}
    return RowQuery(tuple(ordered.items()), text.strip(), tuple(conditions))


def parse_operand(condition: Condition, kind: ColumnKind) -> Operand:
    """The value of a condition, as one of this kind.

    Raises:
        ValueError: it is none; says so.
    """
    if condition.operator in WITHOUT_VALUE:
        return None, None
    text = condition.value
    if condition.operator in TEXT_OPERATORS:
        if not text:
            raise ValueError("give the text to look for.")
        return text, None
    return COLUMN_TYPES[kind].parse(text)

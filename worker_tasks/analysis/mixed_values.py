"""Values in columns of several types: their order, and those that a condition compares. This module does no I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker_tasks.analysis import extended_values
from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, Expression, Operand, kind_of, mixed_text

#: The type for comparing exact numbers: DuckDB's widest decimal, with 12 digits after the decimal point.
EXACT = "DECIMAL(38, 12)"

_NUMBERS = (ColumnKind.INTEGER, ColumnKind.NUMBER, ColumnKind.DECIMAL)
#: The order of types in MongoDB: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
_NUMBER, _TEXT, _DOCUMENT, _LIST, _BINARY, _ID, _BOOLEAN, _DATE = 2, 3, 4, 5, 6, 7, 8, 9
_RANKS_OF_KINDS = {
    **dict.fromkeys(_NUMBERS, _NUMBER),
    ColumnKind.TEXT: _TEXT,
    ColumnKind.DOCUMENT: _DOCUMENT,
    ColumnKind.LIST: _LIST,
    ColumnKind.BOOLEAN: _BOOLEAN,
    ColumnKind.DATE: _DATE,
}
#: Of values without a column type of their own.
_RANKS_OF_WRAPPERS = {
    "$minKey": 1,
    "$binary": _BINARY,
    "$timestamp": 10,
    "$regularExpression": 11,
    "$dbPointer": 12,
    "$code": 13,
    "$maxKey": 14,
}


def _json(column: str) -> str:
    return f"{column}::JSON"


def _numbers(column: str) -> str:
    """SQL for the numbers of a column as their digits; NULL for other values."""
    kinds = ", ".join(f"'{kind}'" for kind in _NUMBERS)
    digits = COLUMN_TYPES[ColumnKind.DECIMAL].stored(_json(column))
    return f"CASE WHEN {kind_of(_json(column))} IN ({kinds}) THEN {digits} END"


def _of_kind(kind: ColumnKind) -> Expression:
    """SQL for the values of a kind; NULL for other values."""
    type_ = COLUMN_TYPES[kind]
    return lambda column: f"CASE WHEN {kind_of(_json(column))} = '{kind}' THEN {type_.stored(_json(column))} END"


def sort_values(column: str) -> list[str]:
    """SQL for the values that sort a mixed column: the types in MongoDB's order, and the values within each type."""
    json, dates = _json(column), _of_kind(ColumnKind.DATE)(column)
    number = (
        f"coalesce(TRY_CAST({_numbers(column)} AS DOUBLE), epoch_ms({dates}), {_far_date(json)}, "
        f"CASE WHEN json_type({json}) = 'ARRAY' THEN json_array_length({json}) END)"
    )
    return [_rank(column), number, f"TRY_CAST({_numbers(column)} AS {EXACT})", mixed_text(column)]


def _far_date(json: str) -> str:
    """SQL for the milliseconds of a date outside the range of columns of dates; NULL for other values."""
    return f'TRY_CAST(({json}->>\'$."$date"."$numberLong"\') AS DOUBLE)'


def _rank(column: str) -> str:
    json = _json(column)
    wrapper = f"json_keys({json})[1]"
    wrappers = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in _RANKS_OF_WRAPPERS.items())
    kinds = " ".join(f"WHEN '{kind}' THEN {rank}" for kind, rank in _RANKS_OF_KINDS.items())
    return (
        f"CASE WHEN {column} IS NULL THEN NULL ELSE coalesce(CASE {kind_of(json)} {kinds} "
        f"WHEN '{ColumnKind.ID}' THEN CASE {wrapper} WHEN '$oid' THEN {_ID} ELSE {_BINARY} END "
        f"WHEN '{ColumnKind.MIXED}' THEN CASE {wrapper} {wrappers} "
        f"WHEN '$date' THEN CASE WHEN {_far_date(json)} IS NOT NULL THEN {_DATE} END END END, {_DOCUMENT}) END"
    )


@dataclass(frozen=True)
class Reading:
    """A typed text as a value of one type.

    Attributes:
        value: SQL for the values of this type in a column; NULL for other values.
        operand: the value that the text stands for.
    """

    value: Expression
    operand: Operand


def readings(text: str) -> Iterator[Reading]:
    """All readings of a text. An order between two values is that of the first one."""
    for kind, value in ((ColumnKind.DECIMAL, _numbers), (ColumnKind.DATE, _of_kind(ColumnKind.DATE))):
        try:
            operand = COLUMN_TYPES[kind].parse(text)
        except ValueError:
            continue
        yield Reading(value, operand)
    if re.fullmatch(f"{extended_values.OID}|{extended_values.UUID}", text):
        yield Reading(_of_kind(ColumnKind.ID), (text, None))
    yield Reading(_of_kind(ColumnKind.TEXT), (text, None))
    # Whatever has no type of its own, such as a list, equals its JSON, and true equals “true”.
    yield Reading(mixed_text, (text, None))

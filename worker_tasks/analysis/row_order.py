"""The rows of a view, found and sorted: their numbers, in order."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from worker_tasks.analysis import engine
from worker_tasks.analysis.column_types import ColumnType
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery, parse_operand

#: What exact numbers are compared as: DuckDB's widest, half of it behind the point.
EXACT = "DECIMAL(38, 12)"
#: An empty text in SQL.
NOTHING = "''"
#: A regular expression for a string in JSON.
STRING = r'"(?:[^"\\]|\\.)*"'
SIGNS = {
    Operator.EQ: "=",
    Operator.NE: "<>",
    Operator.LT: "<",
    Operator.LTE: "<=",
    Operator.GT: ">",
    Operator.GTE: ">=",
}


def row_numbers(database: duckdb.DuckDBPyConnection, profile: Profile, view: RowQuery) -> Iterator[bytes]:
    """The numbers of a view's rows, packed, from the table that is open as ``shown``.

    Raises:
        InvalidInput: the view does not go with these columns.
        duckdb.Error: it takes too much, or too long.
    """
    view.check(profile)
    query, parameters = select_rows(profile, view, "number")
    yield from engine.fetch_numbers(database.execute(query, parameters))


def select_rows(profile: Profile, view: RowQuery, what: str) -> tuple[str, list[Any]]:
    """A query for something of each of a view's rows, and its parameters."""
    conditions, sought, parameters = [], [], []
    for condition in view.conditions:
        if condition.operator is Operator.UNMATCHED:
            conditions.append(f"u{profile.unmatched.index(condition.column)}")
            continue
        number = profile.index_of(condition.column)
        text, values = _compared(number, profile.columns[number], condition)
        conditions.append(text)
        parameters += values
    if view.text:
        # In JSON it stands as JSON writes it.
        for is_json, text in ((False, view.text), (True, json.dumps(view.text, ensure_ascii=False)[1:-1])):
            columns = [
                _sought(f"c{number}", column.type)
                for number, column in enumerate(profile.columns)
                if column.type.is_json is is_json
            ]
            sought.append(f"contains(lower(concat_ws(chr(31), {', '.join(columns) or NOTHING})), lower(?))")
            parameters.append(text)
        conditions.append(f"({' OR '.join(sought)})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {what} FROM shown{where} ORDER BY {', '.join([*_sorted_by(profile, view), 'number'])}", parameters


def _sought(column: str, kind: ColumnType) -> str:
    """What a text is looked for in: of nested values not the names of their fields."""
    if kind.is_json:
        return rf"regexp_replace({column}, '({STRING}[^:])|{STRING}:', '\1', 'g')"
    return kind.text(column)


def _sorted_by(profile: Profile, view: RowQuery) -> Iterator[str]:
    for name, descending in view.sort:
        number = profile.index_of(name)
        kind = profile.columns[number].type
        # What is not there stands last either way.
        direction = "DESC NULLS LAST" if descending else "ASC NULLS LAST"
        yield f"{kind.comparable(f'c{number}')} {direction}"
        if kind.is_digits:
            # Those that are the same as floating-point numbers.
            yield f"TRY_CAST(c{number} AS {EXACT}) {direction}"


def _compared(number: int, of: Column, condition: Condition) -> tuple[str, list[Any]]:
    column, kind, operator = f"c{number}", of.type, condition.operator
    is_null = f"n{number}" if of.nulls else "false"
    if operator is Operator.THERE:
        return f"{column} IS NOT NULL", []
    if operator is Operator.NULL:
        return is_null, []
    if operator is Operator.MISSING:
        return f"({column} IS NULL AND NOT {is_null})", []
    if operator is Operator.EMPTY:
        return f"coalesce({column}::VARCHAR IN ('', '[]', '{{}}'), true)", []
    value, after = parse_operand(condition, of.kind)
    if operator is Operator.CONTAINS:
        return f"contains(lower({kind.text(column)}), lower(?))", [value]
    if operator is Operator.STARTS:
        return f"starts_with(lower({kind.text(column)}), lower(?))", [value]
    if kind.is_number:
        return _of_number(column, kind, operator), [str(value)] * 3
    if after is not None:
        return _of_day(column, operator), _days(operator, value, after)
    return _or_nothing(f"coalesce({column} {SIGNS[operator]} ?, false)", column, operator), [value]


def _or_nothing(text: str, column: str, operator: Operator) -> str:
    """What is not there is not equal either, as in MongoDB."""
    return f"({text} OR {column} IS NULL)" if operator is Operator.NE else text


def _of_number(column: str, kind: ColumnType, operator: Operator) -> str:
    """Where they are the same as floating-point numbers, the exact ones tell."""
    sign, of_same = SIGNS[operator], operator in {Operator.EQ, Operator.LTE, Operator.GTE}
    # What is no number is neither less nor greater.
    number = f"nullif({column}, 'NaN')" if kind.is_digits else column
    exact, double = f"TRY_CAST({number} AS {EXACT})", f"TRY_CAST({number} AS DOUBLE)"
    return (
        f"CASE WHEN {double} = CAST(? AS DOUBLE) THEN coalesce({exact} {sign} TRY_CAST(? AS {EXACT}), {of_same}) "
        f"ELSE coalesce({double} {sign} CAST(? AS DOUBLE), {operator is Operator.NE}) END"
    )


def _of_day(column: str, operator: Operator) -> str:
    if operator is Operator.EQ:
        return f"coalesce({column} >= ? AND {column} < ?, false)"
    if operator is Operator.NE:
        return f"({column} IS NULL OR {column} < ? OR {column} >= ?)"
    sign = {Operator.LT: "<", Operator.LTE: "<", Operator.GT: ">=", Operator.GTE: ">="}[operator]
    return f"coalesce({column} {sign} ?, false)"


def _days(operator: Operator, first: Any, after: Any) -> list[Any]:
    if operator in {Operator.EQ, Operator.NE}:
        return [first, after]
    return [after if operator in {Operator.LTE, Operator.GT} else first]

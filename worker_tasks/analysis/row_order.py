"""Finds and sorts the rows of a query. Yields their numbers in order."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb

from worker_tasks.analysis import engine, mixed_values
from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, ColumnType
from worker_tasks.analysis.mixed_values import EXACT
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery, parse_operand

#: The SQL literal of an empty string.
EMPTY_TEXT = "''"
#: A regular expression for a JSON string.
JSON_STRING = r'"(?:[^"\\]|\\.)*"'
SIGNS = {
    Operator.EQ: "=",
    Operator.NE: "<>",
    Operator.LT: "<",
    Operator.LTE: "<=",
    Operator.GT: ">",
    Operator.GTE: ">=",
}


def row_numbers(database: duckdb.DuckDBPyConnection, profile: Profile, query: RowQuery) -> Iterator[bytes]:
    """Yields the packed row numbers of a query on the table open as ``shown``.

    Raises:
        InvalidInput: the query does not fit the columns.
        duckdb.Error: the query exceeds the limits of memory or time.
    """
    query.check(profile)
    sql, parameters = select_rows(profile, query, "number")
    yield from engine.fetch_numbers(database.execute(sql, parameters))


def select_rows(profile: Profile, query: RowQuery, selected: str) -> tuple[str, list[Any]]:
    """Builds SQL that selects an expression for each row of a query, in order. Returns the SQL and its parameters."""
    conditions, searches, parameters = [], [], []
    for condition in query.conditions:
        if condition.operator is Operator.UNMATCHED:
            conditions.append(f"u{profile.unmatched.index(condition.column)}")
            continue
        number = profile.index_of(condition.column)
        sql, values = _condition(number, profile.columns[number], condition)
        conditions.append(sql)
        parameters += values
    if query.text:
        # JSON columns contain text with JSON's escapes, so the search text needs them too.
        for is_json, text in ((False, query.text), (True, json.dumps(query.text, ensure_ascii=False)[1:-1])):
            columns = [
                _searchable(f"c{number}", column.type)
                for number, column in enumerate(profile.columns)
                if column.type.is_json is is_json
            ]
            searches.append(f"contains(lower(concat_ws(chr(31), {', '.join(columns) or EMPTY_TEXT})), lower(?))")
            parameters.append(text)
        conditions.append(f"({' OR '.join(searches)})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = ", ".join([*_sort_terms(profile, query), "number"])
    return f"SELECT {selected} FROM shown{where} ORDER BY {order}", parameters


def _searchable(column: str, type_: ColumnType) -> str:
    """SQL for the searchable text of a value. Leaves out the field names of nested values."""
    if type_.is_json:
        return rf"regexp_replace({column}, '({JSON_STRING}[^:])|{JSON_STRING}:', '\1', 'g')"
    return type_.text(column)


def _sort_terms(profile: Profile, query: RowQuery) -> Iterator[str]:
    for name, descending in query.sort_columns(profile.names):
        number = profile.index_of(name)
        # Missing values come last in both directions.
        direction = "DESC NULLS LAST" if descending else "ASC NULLS LAST"
        for term in _sort_values(f"c{number}", profile.columns[number].type):
            yield f"{term} {direction}"


def _sort_values(column: str, type_: ColumnType) -> list[str]:
    """SQL for the values that sort a column, each among rows with equal values before."""
    if type_.kind is ColumnKind.MIXED:
        return mixed_values.sort_values(column)
    if type_.is_digits:
        # The second one sorts exact numbers that are equal as floating-point numbers.
        return [type_.comparable(column), f"TRY_CAST({column} AS {EXACT})"]
    return [type_.comparable(column)]


def _condition(number: int, described: Column, condition: Condition) -> tuple[str, list[Any]]:
    """SQL for a condition on column ``number``, and its parameters."""
    column, type_, operator = f"c{number}", described.type, condition.operator
    is_null = f"n{number}" if described.nulls else "false"
    if operator is Operator.THERE:
        return f"{column} IS NOT NULL", []
    if operator is Operator.NULL:
        return is_null, []
    if operator is Operator.MISSING:
        return f"({column} IS NULL AND NOT {is_null})", []
    if operator is Operator.EMPTY:
        return f"coalesce({column}::VARCHAR IN ('', '[]', '{{}}'), true)", []
    value, after = parse_operand(condition, described.kind)
    if operator is Operator.CONTAINS:
        return f"contains(lower({type_.text(column)}), lower(?))", [value]
    if operator is Operator.STARTS:
        return f"starts_with(lower({type_.text(column)}), lower(?))", [value]
    if type_.kind is ColumnKind.MIXED:
        return _mixed_condition(column, operator, value)
    if isinstance(value, Decimal):
        return _number_condition(type_.comparable(column) if type_.of_lengths else column, type_, operator), [
            str(value)
        ] * 3
    if after is not None:
        return _day_condition(column, operator), _day_parameters(operator, value, after)
    return _or_missing(f"coalesce({column} {SIGNS[operator]} ?, false)", column, operator), [value]


def _mixed_condition(column: str, operator: Operator, text: str) -> tuple[str, list[Any]]:
    """Compares with the values of the types that the text can be read as. A type is neither less nor more than another.

    A text such as “5” equals the number and the text. It is less or more than numbers alone.
    """
    if operator is Operator.NE:
        equal, parameters = _mixed_condition(column, Operator.EQ, text)
        return f"NOT {equal}", parameters
    terms, parameters = [], []
    for reading in mixed_values.readings(text):
        value, after = reading.operand
        compared = reading.value(column)
        if isinstance(value, Decimal):
            sql, values = _number_condition(compared, COLUMN_TYPES[ColumnKind.DECIMAL], operator), [str(value)] * 3
        elif after is not None:
            sql, values = _day_condition(compared, operator), _day_parameters(operator, value, after)
        else:
            sql, values = f"coalesce({compared} {SIGNS[operator]} ?, false)", [value]
        terms.append(sql)
        parameters += values
        if operator is not Operator.EQ:
            break
    return f"({' OR '.join(terms)})", parameters


def _or_missing(sql: str, column: str, operator: Operator) -> str:
    """Counts a missing value as not equal, as MongoDB does."""
    return f"({sql} OR {column} IS NULL)" if operator is Operator.NE else sql


def _number_condition(column: str, type_: ColumnType, operator: Operator) -> str:
    """SQL that compares numbers as floating-point numbers first, and exactly if those are equal."""
    sign, if_equal = SIGNS[operator], operator in {Operator.EQ, Operator.LTE, Operator.GTE}
    # NaN is neither less nor greater than a number.
    number = f"nullif({column}, 'NaN')" if type_.is_digits else column
    exact, double = f"TRY_CAST({number} AS {EXACT})", f"TRY_CAST({number} AS DOUBLE)"
    return (
        f"CASE WHEN {double} = CAST(? AS DOUBLE) THEN coalesce({exact} {sign} TRY_CAST(? AS {EXACT}), {if_equal}) "
        f"ELSE coalesce({double} {sign} CAST(? AS DOUBLE), {operator is Operator.NE}) END"
    )


def _day_condition(column: str, operator: Operator) -> str:
    if operator is Operator.EQ:
        return f"coalesce({column} >= ? AND {column} < ?, false)"
    if operator is Operator.NE:
        return f"({column} IS NULL OR {column} < ? OR {column} >= ?)"
    sign = {Operator.LT: "<", Operator.LTE: "<", Operator.GT: ">=", Operator.GTE: ">="}[operator]
    return f"coalesce({column} {sign} ?, false)"


def _day_parameters(operator: Operator, first: Any, after: Any) -> list[Any]:
    if operator in {Operator.EQ, Operator.NE}:
        return [first, after]
    return [after if operator in {Operator.LTE, Operator.GT} else first]

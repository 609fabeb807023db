"""Computes the statistics of a table's columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, Statistics
from worker_tasks.analysis.profiles import Bin, Column

#: Tables with more columns are measured in narrower pieces.
NARROW_COLUMNS = 50
#: The number of bars in a histogram.
BINS = 12
#: The number of frequent values to list. A column with at most this many distinct values needs no histogram.
TOP = 8
#: Values are cut to this many characters.
MAX_VALUE_CHARACTERS = 80


@dataclass(frozen=True)
class TableColumn:
    """A column before its statistics are computed. The attributes are those of :class:`Column`."""

    path: list[str]
    kind: ColumnKind
    filled: int
    nulls: int
    missing: int


def column_statistics(database: duckdb.DuckDBPyConnection, columns: Sequence[TableColumn], table: str) -> list[Column]:
    """Computes the statistics of a table's columns. The n-th column is called ``c<n>`` in the table."""
    if len(columns) <= NARROW_COLUMNS:
        return [_measure(database, table, f"c{number}", column) for number, column in enumerate(columns)]
    measured = []
    for first in range(0, len(columns), NARROW_COLUMNS):
        some = dict(enumerate(columns[first : first + NARROW_COLUMNS], start=first))
        # Each query on a table takes longer the more columns the table has.
        selected = ", ".join(f"c{number}" for number in some)
        database.execute(f"CREATE OR REPLACE TEMP TABLE narrow AS SELECT {selected} FROM {table}")
        measured += [_measure(database, "narrow", f"c{number}", column) for number, column in some.items()]
    database.execute("DROP TABLE narrow")
    return measured


def _measure(database: duckdb.DuckDBPyConnection, table: str, name: str, described: TableColumn) -> Column:
    type_, source = COLUMN_TYPES[described.kind], f"FROM {table} WHERE {name} IS NOT NULL"
    column = Column(
        ".".join(described.path), described.path, described.kind, described.filled, described.nulls, described.missing
    )
    statistics = type_.statistics
    if not column.filled or statistics is None:
        return column
    measured, text, identity = type_.comparable(name), f"left({type_.text(name)}, {MAX_VALUE_CHARACTERS})", name
    if statistics.of_lengths:
        text, identity = f"{measured}::VARCHAR", measured
    distinct, minimum, maximum, half, empty = _row(
        database,
        f"SELECT count(DISTINCT {identity}), "
        f"{f'arg_min({text}, {measured}), arg_max({text}, {measured})' if statistics.has_range else 'NULL, NULL'}, "
        f"{f'quantile_disc({measured}, 0.5)' if statistics.has_median else 'NULL'}, "
        f"count(*) FILTER (WHERE {type_.empty(name)}) {source}",
    )
    median = None
    if statistics.has_median:
        (median,) = _row(database, f"SELECT {text} {source} AND {measured} = ? LIMIT 1", [half])
    top: list[tuple[str, int]] = []
    if distinct < column.filled or statistics.all_named:
        top = database.execute(
            f"SELECT {text}, count(*) AS times {source} GROUP BY {identity} , 1 "
            f"ORDER BY times DESC, {identity} LIMIT {TOP}"
        ).fetchall()
    return replace(
        column,
        # Lists are compared by length only, so the number of distinct lists is unknown.
        distinct=None if statistics.of_lengths else distinct,
        min=minimum,
        median=median,
        max=maximum,
        top=top,
        bins=_bins(database, statistics, measured, source) if median is not None and distinct > TOP else [],
        empty=empty,
    )


def _row(database: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
    return database.execute(query, parameters).fetchone() or (None,)


def _bins(database: duckdb.DuckDBPyConnection, statistics: Statistics, measured: str, source: str) -> list[Bin]:
    """Counts the values in bars of equal width. Returns no bars if the values have no range that can be divided."""
    value, is_integral = statistics.scale(measured), statistics.is_integral
    finite = f"{source} AND isfinite({value}::DOUBLE)"
    minimum, maximum = database.execute(f"SELECT min({value}), max({value}) {finite}").fetchone() or (None, None)
    if minimum is None or minimum == maximum:
        return []
    number = min(BINS, maximum - minimum + 1) if is_integral else BINS
    # Integer arithmetic instead of math.ceil, because a float cannot hold all digits of large integers.
    width = -(-(maximum - minimum + 1) // number) if is_integral else (maximum - minimum) / number
    if not 0 < width < math.inf:
        return []
    counts = dict(
        database.execute(
            f"SELECT least(floor(({value}::DOUBLE - {minimum}) / {width})::INTEGER, {number - 1}) AS bar, count(*) "
            f"{finite} GROUP BY bar"
        ).fetchall()
    )
    bars = []
    for bar in range(number):
        low = minimum + bar * width
        if low > maximum:
            break
        high = min(low + width - 1, maximum) if is_integral else low + width
        bars.append(Bin(statistics.border(low), statistics.border(high), counts.get(bar, 0)))
    return bars

"""The figures of each column of a table: how many values there are, how far they reach, which are frequent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, Statistics
from worker_tasks.analysis.profiles import Bin, Column

#: Bars of a chart.
BINS = 12
#: Values that are named; a column of no more is told by naming all of them.
TOP = 8
#: Characters of a value that are shown.
MAX_VALUE_CHARACTERS = 80


@dataclass(frozen=True)
class TableColumn:
    """A column as it was found: where, what, and how many values, nulls and rows without it."""

    path: list[str]
    kind: ColumnKind
    filled: int
    nulls: int
    missing: int


def column_statistics(database: duckdb.DuckDBPyConnection, columns: Sequence[TableColumn], table: str) -> list[Column]:
    """Measures the columns of a table, in which ``c<n>`` is the n-th."""
    return [_figures(database, table, f"c{number}", column) for number, column in enumerate(columns)]


def _figures(database: duckdb.DuckDBPyConnection, table: str, name: str, column: TableColumn) -> Column:
    kind, found = COLUMN_TYPES[column.kind], f"FROM {table} WHERE {name} IS NOT NULL"
    bare = Column(".".join(column.path), column.path, column.kind, column.filled, column.nulls, column.missing)
    statistics = kind.statistics
    if not column.filled or statistics is None:
        return bare
    measured, shown, told_by = kind.comparable(name), f"left({kind.text(name)}, {MAX_VALUE_CHARACTERS})", name
    if statistics.of_lengths:
        shown, told_by = f"{measured}::VARCHAR", measured
    distinct = _one(database, f"SELECT count(DISTINCT {told_by}) {found}")
    least = most = middle = None
    if statistics.has_range:
        least = _one(database, f"SELECT arg_min({shown}, {measured}) {found}")
        most = _one(database, f"SELECT arg_max({shown}, {measured}) {found}")
    if statistics.has_median:
        half = _one(database, f"SELECT quantile_disc({measured}, 0.5) {found}")
        middle = _one(database, f"SELECT {shown} {found} AND {measured} = ? LIMIT 1", [half])
    top: list[tuple[str, int]] = []
    if distinct < column.filled or statistics.all_named:
        top = database.execute(
            f"SELECT {shown}, count(*) AS times {found} GROUP BY {told_by} , 1 "
            f"ORDER BY times DESC, {told_by} LIMIT {TOP}"
        ).fetchall()
    bins = _bins(database, statistics, measured, found) if middle is not None and distinct > TOP else []
    return Column(
        **vars(bare)
        | {
            # Lists are not told apart, only their lengths are.
            "distinct": None if statistics.of_lengths else distinct,
            "min": least,
            "median": middle,
            "max": most,
            "top": top,
            "bins": bins,
            "empty": _one(database, f"SELECT count(*) {found} AND {kind.empty(name)}"),
        }
    )


def _one(database: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] = ()) -> Any:
    row = database.execute(query, parameters).fetchone()
    return row[0] if row else None


def _bins(database: duckdb.DuckDBPyConnection, statistics: Statistics, measured: str, found: str) -> list[Bin]:
    """The values in bars of the same width."""
    value, whole = statistics.scale(measured), statistics.whole
    finite = f"{found} AND isfinite({value}::DOUBLE)"
    least, most = database.execute(f"SELECT min({value}), max({value}) {finite}").fetchone() or (None, None)
    if least is None or least == most:
        return []
    number = min(BINS, most - least + 1) if whole else BINS
    # Not by math.ceil: whole numbers may have more digits than a floating-point one.
    width = -(-(most - least + 1) // number) if whole else (most - least) / number
    if not 0 < width < math.inf:
        return []
    counted = dict(
        database.execute(
            f"SELECT least(floor(({value}::DOUBLE - {least}) / {width})::INTEGER, {number - 1}) AS bar, count(*) "
            f"{finite} GROUP BY bar"
        ).fetchall()
    )
    bars = []
    for bar in range(number):
        low = least + bar * width
        if low > most:
            break
        high = min(low + width - 1, most) if whole else low + width
        bars.append(Bin(statistics.border(low), statistics.border(high), counted.get(bar, 0)))
    return bars

"""The figures of each column of a table: how many values there are, how far they reach, which are frequent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from worker_tasks.reading.profiles import NESTED, NUMBERS, Bin, Column, ColumnKind

#: Bars of a chart.
BINS = 12
#: Values that are named; a column of no more is told by naming all of them.
TOP = 8
#: Characters of a value that are shown.
SHOWN = 80
#: Significant digits of the borders of bars.
DIGITS = 4
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Described:
    """A column as it was found: where, what, and how many values, nulls and rows without it."""

    path: list[str]
    kind: ColumnKind
    filled: int
    nulls: int
    missing: int


def comparable(column: str, kind: ColumnKind) -> str:
    """What a column's values are sorted and measured by, in SQL."""
    if kind in {ColumnKind.NUMBER, ColumnKind.DECIMAL}:
        return f"TRY_CAST({column} AS DOUBLE)"
    if kind is ColumnKind.LIST:
        return f"json_array_length({column})"
    return column


def text_of(column: str, kind: ColumnKind) -> str:
    """A column's values as text, in SQL: instants as ISO 8601, whatever is nested as JSON."""
    if kind is ColumnKind.DATE:
        return (
            f"CASE WHEN microsecond({column}) % 1000000 = 0 THEN strftime({column}, '%Y-%m-%dT%H:%M:%SZ') "
            f"ELSE strftime({column}, '%Y-%m-%dT%H:%M:%S.%gZ') END"
        )
    return f"{column}::VARCHAR"


def figures_of(database: duckdb.DuckDBPyConnection, columns: Sequence[Described], table: str) -> list[Column]:
    """Measures the columns of a table, in which ``c<n>`` is the n-th."""
    return [_figures(database, table, f"c{number}", column) for number, column in enumerate(columns)]


def _figures(database: duckdb.DuckDBPyConnection, table: str, name: str, column: Described) -> Column:
    kind, found = column.kind, f"FROM {table} WHERE {name} IS NOT NULL"
    bare = Column(".".join(column.path), column.path, kind, column.filled, column.nulls, column.missing)
    if not column.filled or kind in NESTED - {ColumnKind.LIST, ColumnKind.MIXED}:
        return bare
    measured, shown = comparable(name, kind), f"left({text_of(name, kind)}, {SHOWN})"
    if kind is ColumnKind.LIST:
        shown = f"{measured}::VARCHAR"
    distinct = _one(database, f"SELECT count(DISTINCT {measured if kind is ColumnKind.LIST else name}) {found}")
    least = most = middle = None
    if kind not in {ColumnKind.BOOLEAN, ColumnKind.MIXED}:
        least = _one(database, f"SELECT arg_min({shown}, {measured}) {found}")
        most = _one(database, f"SELECT arg_max({shown}, {measured}) {found}")
    if kind in NUMBERS | {ColumnKind.DATE, ColumnKind.LIST}:
        half = _one(database, f"SELECT quantile_disc({measured}, 0.5) {found}")
        middle = _one(database, f"SELECT {shown} {found} AND {measured} = ? LIMIT 1", [half])
    top: list[tuple[str, int]] = []
    # Of true and false there is no least and no most; what there is is told by naming it.
    if distinct < column.filled or kind is ColumnKind.BOOLEAN:
        top = database.execute(
            f"SELECT {shown}, count(*) AS times {found} GROUP BY {measured if kind is ColumnKind.LIST else name} , 1 "
            f"ORDER BY times DESC, {measured if kind is ColumnKind.LIST else name} LIMIT {TOP}"
        ).fetchall()
    bins = _bins(database, kind, measured, found) if middle is not None and distinct > TOP else []
    return Column(
        **vars(bare)
        | {
            # Lists are not told apart, only their lengths are.
            "distinct": None if kind is ColumnKind.LIST else distinct,
            "least": least,
            "middle": middle,
            "most": most,
            "top": top,
            "bins": bins,
            "empty": _one(database, f"SELECT count(*) {found} AND {_emptiness(name, kind)}"),
        }
    )


def _emptiness(name: str, kind: ColumnKind) -> str:
    """Whether there is nothing in a value, in SQL."""
    if kind is ColumnKind.LIST:
        return f"json_array_length({name}) = 0"
    return f"{name} = ''" if kind is ColumnKind.TEXT else "false"


def _one(database: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] = ()) -> Any:
    row = database.execute(query, parameters).fetchone()
    return row[0] if row else None


def _bins(database: duckdb.DuckDBPyConnection, kind: ColumnKind, measured: str, found: str) -> list[Bin]:
    """The values in bars of the same width."""
    value = f"epoch_ms({measured})" if kind is ColumnKind.DATE else measured
    finite = f"{found} AND isfinite({value}::DOUBLE)"
    least, most = database.execute(f"SELECT min({value}), max({value}) {finite}").fetchone() or (None, None)
    if least is None or least == most:
        return []
    whole = kind in {ColumnKind.INTEGER, ColumnKind.LIST, ColumnKind.DATE}
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
        bars.append(Bin(_border(kind, low), _border(kind, high), counted.get(bar, 0)))
    return bars


def _border(kind: ColumnKind, value: float) -> str:
    """Where a bar begins or ends, as text."""
    if kind is ColumnKind.DATE:
        try:
            return (EPOCH + timedelta(milliseconds=value)).isoformat(timespec="seconds").replace("+00:00", "Z")
        except OverflowError:
            # A year that Python has no dates for.
            return f"{value} ms"
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"

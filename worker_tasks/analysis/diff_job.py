"""Compares two results of the same join. Pairs their rows by key, and compares the values of each pair.

If several rows have the same key, equal rows are paired first. Values are compared as text. Nested values, and columns
with different types in the two results, are compared as JSON. A field that only one result spreads over columns is
compared as a whole. A column that only one result has is missing in every row of the other one.

Null and a missing field count as different values. If a column is spread over its fields, an empty document and a
missing field count as equal.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from worker_tasks.analysis import engine
from worker_tasks.analysis.engine import MAX_ROW_BYTES
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.result_diff import ResultDiff, common_columns, default_key
from worker_tasks.analysis.result_table import pointer
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.scratch_database import literal

#: SQL literals that stand for null and for a missing field, and the prefix of all values.
NULL, MISSING, VALUE = "'null'", "'missing'", "'='"


@dataclass(frozen=True)
class _Side:
    """One of the two results: its table, its profile, and the fields whose whole JSON the table ``whole`` holds."""

    name: str
    profile: Profile
    whole: Mapping[str, str]

    @property
    def rows(self) -> str:
        """SQL for the rows of the result, with the whole fields."""
        return f"{self.name} JOIN whole_{self.name} USING (number)" if self.whole else self.name


#: Yields the rows of the older or the newer result as JSON, in order.
Lines = Callable[[], Iterable[bytes]]


def compare_results(  # noqa: PLR0913, PLR0917 - two results
    database: duckdb.DuckDBPyConnection,
    older: Profile,
    newer: Profile,
    key: Sequence[str],
    lines: tuple[Lines, Lines],
    folder: Path,
) -> ResultDiff:
    """Compares the tables open as ``older`` and ``newer``. Creates the table ``pairs`` with the paired row numbers.

    Args:
        key: the columns that identify a row; if empty, the default key.
        lines: the rows of the two results, for fields that only one of them spreads.
        folder: a folder for temporary files.

    Raises:
        InvalidInput: a key column is not in both results.
        duckdb.Error: the comparison exceeds the limits of memory or time.
    """
    common = common_columns(older, newer)
    for name in key:
        if name not in common:
            raise InvalidInput({"key": f"names “{name}”, which is not a column of both results."})
    key = list(key) or default_key(older, newer)
    fields = fields_of_two_shapes(older, newer)
    before, after = (
        _side(database, name, profile, fields, read, folder)
        for name, profile, read in zip(("older", "newer"), (older, newer), lines, strict=True)
    )
    columns = [*_compared_columns(older, newer, fields), *fields]
    for side, other in ((before, after), (after, before)):
        values = [_value(side, other, name) for name in columns]
        keys = [_key(side, other, name) for name in key]
        database.execute(
            f"CREATE TABLE keyed_{side.name} AS SELECT number, {_concatenated(keys or values)} AS key, "
            f"md5({_concatenated(values)}) AS digest FROM {side.rows}"
        )
    repeated = any(_is_repeated(database, side) for side in ("older", "newer"))
    first, second = (
        _numbered(*sides) if repeated else f"(SELECT *, 1 AS turn FROM keyed_{sides[0]})"
        for sides in (("older", "newer"), ("newer", "older"))
    )
    database.execute(
        "CREATE TABLE pairs AS SELECT older.number AS was, newer.number AS is_now, older.digest = newer.digest AS same "
        f"FROM {first} AS older FULL JOIN {second} AS newer USING (key, turn)"
    )
    counts = database.execute(
        "SELECT count(*) FILTER (was IS NULL), count(*) FILTER (is_now IS NULL), count(*) FILTER (NOT same), "
        "count(*) FILTER (same) FROM pairs"
    ).fetchone() or (0, 0, 0, 0)
    added, gone, changed, same = counts
    return ResultDiff(
        key=key,
        added=added,
        gone=gone,
        changed=changed,
        same=same,
        repeated=repeated,
        changes=_changes(database, before, after, columns) if changed else {},
        only_older=[column.name for column in older.columns if column.name not in common],
        only_newer=[column.name for column in newer.columns if column.name not in common],
    )


def fields_of_two_shapes(older: Profile, newer: Profile) -> list[str]:
    """The top-level fields of which one result has a column, and the other one has columns for its nested fields."""
    fields: dict[str, None] = {}
    for one, other in ((older, newer), (newer, older)):
        paths = {tuple(column.path) for column in one.columns}
        for column in other.columns:
            if any(tuple(column.path[:length]) in paths for length in range(1, len(column.path))):
                fields[column.path[0]] = None
    return list(fields)


def _compared_columns(older: Profile, newer: Profile, fields: Collection[str]) -> list[str]:
    columns = [*older.columns, *newer.columns]
    return list(dict.fromkeys(column.name for column in columns if column.path[0] not in fields))


def _side(  # noqa: PLR0913, PLR0917 - a result and the place for its fields
    database: duckdb.DuckDBPyConnection, name: str, profile: Profile, fields: list[str], lines: Lines, folder: Path
) -> _Side:
    """Creates the table with the JSON of these fields, if there are any."""
    if not fields:
        return _Side(name, profile, {})
    file = folder / f"{name}.ndjson"
    with file.open("wb") as output:
        output.writelines(line + b"\n" for line in lines())
    database.execute(
        f"CREATE TABLE lines AS SELECT json FROM read_ndjson_objects({literal(str(file))}, "
        f"maximum_object_size={MAX_ROW_BYTES})"
    )
    file.unlink()
    whole = {field: f"w{number}" for number, field in enumerate(fields)}
    selected = ", ".join(f"json_extract(json, {pointer(field)})::VARCHAR AS {each}" for field, each in whole.items())
    database.execute(f"CREATE TABLE whole_{name} AS SELECT rowid AS number, {selected} FROM lines")
    database.execute("DROP TABLE lines")
    return _Side(name, profile, whole)


def _value(side: _Side, other: _Side, name: str) -> str:
    """SQL for a column's value as text; never NULL. A column that the result lacks is missing in each row."""
    if name in side.whole:
        return f"coalesce({VALUE} || {side.whole[name]}, {MISSING})"
    return _key(side, other, name) if name in side.profile.names else MISSING


def _key(side: _Side, other: _Side, name: str) -> str:
    """SQL for the value of a column that the result has."""
    profile = side.profile
    number = profile.index_of(name)
    column = profile.columns[number]
    kinds = {each.kind for each in other.profile.columns if each.name == name}
    is_same_kind = not kinds or column.kind in kinds
    text = ((column.type.compared or column.type.text) if is_same_kind else column.type.in_mixed)(f"c{number}")
    absent = f"CASE WHEN n{number} THEN {NULL} ELSE {MISSING} END" if column.nulls else MISSING
    return f"coalesce({VALUE} || {text}, {absent})"


def _concatenated(values: list[str]) -> str:
    return f"to_json([{', '.join(values)}])::VARCHAR" if values else "''"


def _numbered(side: str, other: str) -> str:
    """SQL for the rows of one side, numbered within each key. Rows that also exist on the other side come first."""
    nth = "row_number() OVER (PARTITION BY digest ORDER BY number) AS nth"
    return (
        "(SELECT number, key, digest, "
        "row_number() OVER (PARTITION BY key ORDER BY shared IS NULL, digest, nth) AS turn "
        f"FROM (SELECT *, {nth} FROM keyed_{side}) "
        f"LEFT JOIN (SELECT digest, {nth}, true AS shared FROM keyed_{other}) USING (digest, nth))"
    )


def _is_repeated(database: duckdb.DuckDBPyConnection, side: str) -> bool:
    row = database.execute(f"SELECT count(*) > count(DISTINCT key) FROM keyed_{side}").fetchone()
    return bool(row and row[0])


def _changes(database: duckdb.DuckDBPyConnection, older: _Side, newer: _Side, columns: list[str]) -> dict[str, int]:
    """The number of changed values of each column, in descending order."""
    changes: dict[str, int] = {}
    for name in columns:
        was, is_now = _value(older, newer, name), _value(newer, older, name)
        row = database.execute(
            f"SELECT count(*) FROM (SELECT was, is_now FROM pairs WHERE NOT same) "
            f"JOIN (SELECT number, {was} AS before FROM {older.rows}) AS o ON o.number = was "
            f"JOIN (SELECT number, {is_now} AS after FROM {newer.rows}) AS n ON n.number = is_now WHERE before <> after"
        ).fetchone()
        if row and row[0]:
            changes[name] = row[0]
    return dict(sorted(changes.items(), key=lambda each: -each[1]))


#: SQL for the lists of row numbers in a comparison, keyed by the names under which they are stored.
LISTS = {
    "added": "SELECT is_now FROM pairs WHERE was IS NULL ORDER BY is_now",
    "gone": "SELECT was FROM pairs WHERE is_now IS NULL ORDER BY was",
    "changed_from": "SELECT was FROM pairs WHERE NOT same ORDER BY is_now",
    "changed_to": "SELECT is_now FROM pairs WHERE NOT same ORDER BY is_now",
}


def diff_row_numbers(database: duckdb.DuckDBPyConnection, name: str) -> Iterator[bytes]:
    """Yields one of the lists of row numbers, packed."""
    return engine.fetch_numbers(database.execute(LISTS[name]))

"""Compares two results of the same join. Pairs their rows by key, and compares the values of each pair.

If several rows have the same key, equal rows are paired first. Values are compared as text. Nested values, and columns
with different types in the two results, are compared as JSON.

Null and a missing field count as different values. If a column is spread over its fields, an empty document and a
missing field count as equal.
"""

from collections.abc import Iterator, Sequence

import duckdb

from worker_tasks.analysis import engine
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.result_diff import ResultDiff, common_columns, default_key
from worker_tasks.infra.errors import InvalidInput

#: SQL literals that stand for null and for a missing field, and the prefix of all values.
NULL, MISSING, VALUE = "'null'", "'missing'", "'='"


def compare_results(
    database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, key: Sequence[str]
) -> ResultDiff:
    """Compares the tables open as ``older`` and ``newer``. Creates the table ``pairs`` with the paired row numbers.

    Args:
        key: the columns that identify a row; if empty, the default key.

    Raises:
        InvalidInput: a key column is not in both results.
        duckdb.Error: the comparison exceeds the limits of memory or time.
    """
    columns = common_columns(older, newer)
    for name in key:
        if name not in columns:
            raise InvalidInput({"key": f"names “{name}”, which is not a column of both results."})
    key = list(key) or default_key(older, newer)
    for side, profile, other in (("older", older, newer), ("newer", newer, older)):
        values = [_value(profile, other, name) for name in columns]
        keys = [_value(profile, other, name) for name in key]
        database.execute(
            f"CREATE TABLE keyed_{side} AS "
            f"SELECT number, {_concatenated(keys or values)} AS key, md5({_concatenated(values)}) AS digest FROM {side}"
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
        changes=_changes(database, older, newer, columns) if changed else {},
        only_older=[column.name for column in older.columns if column.name not in columns],
        only_newer=[column.name for column in newer.columns if column.name not in columns],
    )


def _value(profile: Profile, other: Profile, name: str) -> str:
    """SQL for a column's value as text; never NULL."""
    number = profile.index_of(name)
    column = profile.columns[number]
    is_same_kind = column.kind is other.columns[other.index_of(name)].kind
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


def _changes(database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, columns: list[str]) -> dict[str, int]:
    """The number of changed values of each column, in descending order."""
    changes: dict[str, int] = {}
    for name in columns:
        was, is_now = _value(older, newer, name), _value(newer, older, name)
        row = database.execute(
            f"SELECT count(*) FROM (SELECT was, is_now FROM pairs WHERE NOT same) "
            f"JOIN (SELECT number, {was} AS before FROM older) AS o ON o.number = was "
            f"JOIN (SELECT number, {is_now} AS after FROM newer) AS n ON n.number = is_now WHERE before <> after"
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

"""Two results of the same join beside each other: their rows paired by key, their values compared.

Rows of the same key are paired in the order of their values. Values are compared as text, nested ones as their JSON;
null is another value than a field that is missing.
"""

from array import array
from collections.abc import Iterator, Sequence

import duckdb

from worker_tasks.errors import InvalidInput
from worker_tasks.reading.comparison import Comparison, common, usual_key
from worker_tasks.reading.figures import text_of
from worker_tasks.reading.profiles import Profile

#: Row numbers that are fetched at once.
FETCHED = 50_000
#: What stands for null, and for nothing at all; and what parts values.
NULL, MISSING, UNIT = "chr(1)", "chr(2)", "chr(31)"


def compare(database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, key: Sequence[str]) -> Comparison:
    """Compares the tables that are open as ``older`` and ``newer``; the pairs are then in the table ``pairs``.

    Args:
        key: the columns that tell a row from all others; none for those that usually do.

    Raises:
        InvalidInput: one of these columns is not in both.
        duckdb.Error: it takes too much, or too long.
    """
    columns = common(older, newer)
    for name in key:
        if name not in columns:
            raise InvalidInput({"key": f"names “{name}”, which is not a column of both results."})
    by = list(key) or usual_key(older, newer)
    for side, profile in (("older", older), ("newer", newer)):
        values = [_value(profile, name) for name in columns]
        keys = [_value(profile, name) for name in by]
        database.execute(
            f"CREATE TABLE keyed_{side} AS "
            f"SELECT number, {_joined(keys or values)} AS key, md5({_joined(values)}) AS digest FROM {side}"
        )
    repeated = any(_is_repeated(database, side) for side in ("older", "newer"))
    turn = "row_number() OVER (PARTITION BY key ORDER BY digest, number)" if repeated else "1"
    database.execute(
        "CREATE TABLE pairs AS SELECT older.number AS was, newer.number AS is_now, older.digest = newer.digest AS same "
        f"FROM (SELECT *, {turn} AS turn FROM keyed_older) AS older "
        f"FULL JOIN (SELECT *, {turn} AS turn FROM keyed_newer) AS newer USING (key, turn)"
    )
    counted = database.execute(
        "SELECT count(*) FILTER (was IS NULL), count(*) FILTER (is_now IS NULL), count(*) FILTER (NOT same), "
        "count(*) FILTER (same) FROM pairs"
    ).fetchone() or (0, 0, 0, 0)
    added, gone, changed, same = counted
    return Comparison(
        key=by,
        added=added,
        gone=gone,
        changed=changed,
        same=same,
        repeated=repeated,
        changes=_changes(database, older, newer, columns) if changed else {},
        only_older=[column.name for column in older.columns if column.name not in columns],
        only_newer=[column.name for column in newer.columns if column.name not in columns],
    )


def _value(profile: Profile, name: str) -> str:
    """A column's value as text, in SQL; never NULL."""
    number = profile.number_of(name)
    column = profile.columns[number]
    nothing = f"CASE WHEN n{number} THEN {NULL} ELSE {MISSING} END" if column.nulls else MISSING
    return f"coalesce({text_of(f'c{number}', column.kind)}, {nothing})"


def _joined(values: list[str]) -> str:
    return f"concat_ws({UNIT}, {', '.join(values)})" if values else "''"


def _is_repeated(database: duckdb.DuckDBPyConnection, side: str) -> bool:
    found = database.execute(f"SELECT count(*) > count(DISTINCT key) FROM keyed_{side}").fetchone()
    return bool(found and found[0])


def _changes(database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, columns: list[str]) -> dict[str, int]:
    """How many values of each column changed, the most first."""
    found: dict[str, int] = {}
    for name in columns:
        was, is_now = _value(older, name), _value(newer, name)
        row = database.execute(
            f"SELECT count(*) FROM (SELECT was, is_now FROM pairs WHERE NOT same) "
            f"JOIN (SELECT number, {was} AS before FROM older) AS o ON o.number = was "
            f"JOIN (SELECT number, {is_now} AS after FROM newer) AS n ON n.number = is_now WHERE before <> after"
        ).fetchone()
        if row and row[0]:
            found[name] = row[0]
    return dict(sorted(found.items(), key=lambda each: -each[1]))


#: The row numbers of a comparison, by the name they are kept under.
LISTS = {
    "added": "SELECT is_now FROM pairs WHERE was IS NULL ORDER BY is_now",
    "gone": "SELECT was FROM pairs WHERE is_now IS NULL ORDER BY was",
    "changed_from": "SELECT was FROM pairs WHERE NOT same ORDER BY is_now",
    "changed_to": "SELECT is_now FROM pairs WHERE NOT same ORDER BY is_now",
}


def numbers_of(database: duckdb.DuckDBPyConnection, what: str) -> Iterator[bytes]:
    """One of these lists, packed."""
    found = database.execute(LISTS[what])
    while rows := found.fetchmany(FETCHED):
        yield array("I", (number for (number,) in rows)).tobytes()

"""Two results of the same join beside each other: their rows paired by key, their values compared.

Of rows of the same key those are paired first that are the same. Values are compared as text, nested ones as their
JSON, as are those of a column that is of another kind in the other result. Null is another value than a field that is
missing; an empty document, where others are spread over columns, is not.
"""

from collections.abc import Iterator, Sequence

import duckdb

from worker_tasks.analysis import engine
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.result_diff import ResultDiff, common_columns, default_key
from worker_tasks.infra.errors import InvalidInput

#: What stands for null, and for nothing at all, and before each value.
NULL, MISSING, VALUE = "'null'", "'missing'", "'='"


def compare_results(
    database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, key: Sequence[str]
) -> ResultDiff:
    """Compares the tables that are open as ``older`` and ``newer``; the pairs are then in the table ``pairs``.

    Args:
        key: the columns that tell a row from all others; none for those that usually do.

    Raises:
        InvalidInput: one of these columns is not in both.
        duckdb.Error: it takes too much, or too long.
    """
    columns = common_columns(older, newer)
    for name in key:
        if name not in columns:
            raise InvalidInput({"key": f"names “{name}”, which is not a column of both results."})
    by = list(key) or default_key(older, newer)
    for side, profile, other in (("older", older, newer), ("newer", newer, older)):
        values = [_value(profile, other, name) for name in columns]
        keys = [_value(profile, other, name) for name in by]
        database.execute(
            f"CREATE TABLE keyed_{side} AS "
            f"SELECT number, {_joined(keys or values)} AS key, md5({_joined(values)}) AS digest FROM {side}"
        )
    repeated = any(_is_repeated(database, side) for side in ("older", "newer"))
    first, second = (
        _in_turn(*sides) if repeated else f"(SELECT *, 1 AS turn FROM keyed_{sides[0]})"
        for sides in (("older", "newer"), ("newer", "older"))
    )
    database.execute(
        "CREATE TABLE pairs AS SELECT older.number AS was, newer.number AS is_now, older.digest = newer.digest AS same "
        f"FROM {first} AS older FULL JOIN {second} AS newer USING (key, turn)"
    )
    counted = database.execute(
        "SELECT count(*) FILTER (was IS NULL), count(*) FILTER (is_now IS NULL), count(*) FILTER (NOT same), "
        "count(*) FILTER (same) FROM pairs"
    ).fetchone() or (0, 0, 0, 0)
    added, gone, changed, same = counted
    return ResultDiff(
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


def _value(profile: Profile, other: Profile, name: str) -> str:
    """A column's value as text, in SQL; never NULL."""
    number = profile.index_of(name)
    column = profile.columns[number]
    is_same_kind = column.kind is other.columns[other.index_of(name)].kind
    text = (column.type.text if is_same_kind else column.type.in_mixed)(f"c{number}")
    nothing = f"CASE WHEN n{number} THEN {NULL} ELSE {MISSING} END" if column.nulls else MISSING
    return f"coalesce({VALUE} || {text}, {nothing})"


def _joined(values: list[str]) -> str:
    return f"to_json([{', '.join(values)}])::VARCHAR" if values else "''"


def _in_turn(side: str, other: str) -> str:
    """The rows of one side, those of the same key numbered: first those that the other side has as well."""
    nth = "row_number() OVER (PARTITION BY digest ORDER BY number) AS nth"
    return (
        "(SELECT number, key, digest, "
        "row_number() OVER (PARTITION BY key ORDER BY there IS NULL, digest, nth) AS turn "
        f"FROM (SELECT *, {nth} FROM keyed_{side}) "
        f"LEFT JOIN (SELECT digest, {nth}, true AS there FROM keyed_{other}) USING (digest, nth))"
    )


def _is_repeated(database: duckdb.DuckDBPyConnection, side: str) -> bool:
    found = database.execute(f"SELECT count(*) > count(DISTINCT key) FROM keyed_{side}").fetchone()
    return bool(found and found[0])


def _changes(database: duckdb.DuckDBPyConnection, older: Profile, newer: Profile, columns: list[str]) -> dict[str, int]:
    """How many values of each column changed, the most first."""
    found: dict[str, int] = {}
    for name in columns:
        was, is_now = _value(older, newer, name), _value(newer, older, name)
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


def diff_row_numbers(database: duckdb.DuckDBPyConnection, what: str) -> Iterator[bytes]:
    """One of these lists, packed."""
    return engine.fetch_numbers(database.execute(LISTS[what]))

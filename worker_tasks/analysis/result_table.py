"""A result as a table of typed columns, in Parquet, with each column's figures: what all other readings begin with.

In the table column ``c<n>`` holds the n-th column's values, and ``n<n>`` whether one that is not there is null; the
names are in the profile, because DuckDB takes ``name`` and ``Name`` for the same. ``u<n>`` is whether the row is one of
those without a match that were noted of the n-th join in the profile. Numbers other than whole ones are
kept as the digits that were written, so that none is lost.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import duckdb

from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis.column_types import (
    BY_JSON_TYPE,
    BY_WRAPPER,
    COLUMN_TYPES,
    ColumnKind,
    ColumnType,
    common_kind,
)
from worker_tasks.analysis.engine import MAX_ROW_BYTES, literal
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.statistics import TableColumn, column_statistics
from worker_tasks.results import result_store
from worker_tasks.results.result_store import SEPARATOR, Summary, Unmatched

#: Fields of a document that are spread over columns; one with more is most likely a map, and stays one column.
MAX_FIELDS = 100
MAX_COLUMNS = 1_000
#: How deep documents inside documents are spread.
MAX_DEPTH = 8


@dataclass(frozen=True)
class ResultTable:
    """The Parquet file, its profile, and the offset of each row in the value, with one more for the end."""

    file: Path
    profile: Profile
    offsets: bytes


@dataclass
class _Source:
    """A column before it has a type: ``column`` of ``table`` is its JSON, missing where the field is."""

    path: list[str]
    table: str
    column: str
    kind: ColumnKind = ColumnKind.NOTHING
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def type(self) -> ColumnType:
        return COLUMN_TYPES[self.kind]


def build_table(summary: Summary, database: duckdb.DuckDBPyConnection, folder: Path) -> ResultTable:
    """Reads a whole result.

    Raises:
        ResultGone: it expired or was discarded meanwhile.
        duckdb.Error: it is too big, or takes too long.
        redis.exceptions.RedisError: Redis does not answer.
    """
    digest, offsets = _fetch(summary, folder / "rows.ndjson")
    # By its lines, and not by DuckDB's own reading of JSON, which would take null for missing.
    database.execute(
        f"CREATE TABLE rows AS SELECT json FROM read_ndjson_objects({literal(str(folder / 'rows.ndjson'))}, "
        f"maximum_object_size={MAX_ROW_BYTES})"
    )
    (folder / "rows.ndjson").unlink()
    sources = _spread(database, summary.columns) if summary.columns else []
    unmatched = _unmatched(database, summary)
    file = folder / "table.parquet"
    _write(database, sources, unmatched, file)
    columns = column_statistics(database, _described(sources), "typed")
    return ResultTable(file, Profile(columns, summary.count, digest, unmatched), offsets)


def _fetch(summary: Summary, file: Path) -> tuple[str, bytes]:
    """Writes each row on a line of its own; the checksum of the whole value, and where its rows are."""
    digest = hashlib.sha256()
    lengths = array("L")

    def value() -> Iterator[bytes]:
        for chunk in result_store.read_chunks(summary):
            digest.update(chunk)
            yield chunk

    with file.open("wb") as lines:
        for line in result_store.split_lines(value()):
            lengths.append(len(line))
            lines.write(line + b"\n")
    starts = accumulate((length + len(SEPARATOR) for length in lengths), initial=1)
    return digest.hexdigest(), reader.pack_numbers(starts)


def _spread(database: duckdb.DuckDBPyConnection, names: list[str]) -> list[_Source]:
    """The columns, documents spread over those of their fields."""
    level = _extracted(database, "level0", "rows", "json", [], names)
    tables = ["level0"]
    spread = level
    for depth in range(1, MAX_DEPTH + 1):
        deeper: dict[int, list[_Source]] = {}
        taken = {source.name for source in spread}
        columns = len(spread)
        for source in level:
            fields = _fields_of(database, source)
            names = [f"{source.name}.{each}" for each in fields]
            if not fields or taken & set(names) or columns + len(fields) - 1 > MAX_COLUMNS:
                continue
            columns += len(fields) - 1
            table = f"level{depth}_{len(deeper)}"
            deeper[id(source)] = _extracted(database, table, source.table, source.column, source.path, fields)
            taken |= set(names)
            tables.append(table)
        if not deeper:
            break
        spread = [each for source in spread for each in deeper.get(id(source), [source])]
        level = [each for found in deeper.values() for each in found]
    database.execute(f"CREATE VIEW spread AS SELECT * FROM {' POSITIONAL JOIN '.join(tables)}")
    return spread


def _unmatched(database: duckdb.DuckDBPyConnection, summary: Summary) -> list[str]:
    """Makes the table ``unmatched`` of the rows in which each join found nothing, as it was noted of them.

    Returns:
        The fields that the joins bring in. One is left out if its rows are not those that were noted: another version
        noted others.
    """
    names = [name for name, noted in summary.unmatched.items() if noted.count]
    columns = ", ".join(
        f"coalesce(json_extract(json, {_pointer(name)})::VARCHAR IN ('[]', '0', 'null'), true) AS found{number}"
        for number, name in enumerate(names)
    )
    if not names:
        return []
    database.execute(f"CREATE TABLE found AS SELECT {columns} FROM rows")
    known = {
        number: name for number, name in enumerate(names) if _is_as_noted(database, number, summary.unmatched[name])
    }
    chosen = ", ".join(f"found{number} AS u{place}" for place, number in enumerate(known))
    if known:
        database.execute(f"CREATE VIEW unmatched AS SELECT {chosen} FROM found")
    return list(known.values())


def _is_as_noted(database: duckdb.DuckDBPyConnection, number: int, noted: Unmatched) -> bool:
    of_join = f"FROM found WHERE found{number}"
    count = database.execute(f"SELECT count(*) {of_join}").fetchone()
    first = database.execute(f"SELECT rowid {of_join} ORDER BY rowid LIMIT {len(noted.rows)}").fetchall()
    return count == (noted.count,) and [row for (row,) in first] == noted.rows


def _pointer(name: str) -> str:
    """A field's JSON pointer, as it is written in SQL."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1"))


def _extracted(  # noqa: PLR0913, PLR0917 - out of what, into what
    database: duckdb.DuckDBPyConnection, table: str, within: str, column: str, path: list[str], names: list[str]
) -> list[_Source]:
    """Makes a table of these fields of a JSON column, and looks at what their values are."""
    pointers = ", ".join(map(_pointer, names))
    # What is inside of null is null, and not missing.
    columns = ", ".join(
        f"CASE WHEN is_null THEN 'null'::JSON ELSE found[{number + 1}] END AS {table}_{number}"
        for number in range(len(names))
    )
    database.execute(
        f"CREATE TABLE {table} AS SELECT {columns} FROM (SELECT json_extract({column}, [{pointers}]) AS found, "
        f"coalesce(json_type({column}) = 'NULL', false) AS is_null FROM {within})"
    )
    sources = [_Source([*path, name], table, f"{table}_{number}") for number, name in enumerate(names)]
    for source in sources:
        _look_at(database, source)
    return sources


def _look_at(database: duckdb.DuckDBPyConnection, source: _Source) -> None:
    """Finds out what a column's values are."""
    table, column = source.table, source.column
    found = database.execute(
        f"SELECT json_type({column}) AS type, "
        f"CASE WHEN json_type({column}) = 'OBJECT' AND len(json_keys({column})) = 1 "
        f"AND starts_with(json_keys({column})[1], '$') THEN json_keys({column})[1] END AS wrapper, count(*) "
        f"FROM {table} GROUP BY ALL"
    ).fetchall()
    kinds: set[ColumnKind] = set()
    for json_type, wrapper, count in found:
        if json_type is None or json_type == "NULL":
            name = "missing" if json_type is None else "nulls"
            source.counts[name] = count
            continue
        source.counts["filled"] = source.counts.get("filled", 0) + count
        kinds.add(BY_JSON_TYPE[json_type] if wrapper is None else BY_WRAPPER.get(wrapper, ColumnKind.MIXED))
    source.kind = common_kind(kinds)
    if (fits := source.type.fits) is not None:
        row = database.execute(f"SELECT {fits(column)} FROM {table}").fetchone()
        if row is not None and not row[0]:
            source.kind = ColumnKind.MIXED


def _fields_of(database: duckdb.DuckDBPyConnection, source: _Source) -> list[str]:
    """The fields of a column's documents, as first seen; none where it is to stay whole."""
    if not source.type.spreads:
        return []
    table, column = source.table, source.column
    found = database.execute(
        f"SELECT name FROM (SELECT unnest(json_keys({column})) AS name, "
        f"generate_subscripts(json_keys({column}), 1) AS place, rowid AS number "
        f"FROM {table} WHERE json_type({column}) = 'OBJECT') "
        f"GROUP BY name ORDER BY min(number), min(place) LIMIT {MAX_FIELDS + 1}"
    ).fetchall()
    return [name for (name,) in found] if len(found) <= MAX_FIELDS else []


def _write(database: duckdb.DuckDBPyConnection, sources: list[_Source], unmatched: Sequence[str], file: Path) -> None:
    columns = []
    for number, source in enumerate(sources):
        there = f"nullif({source.column}, 'null'::JSON)" if source.counts.get("nulls") else source.column
        columns.append(f"{source.type.stored(there)} AS c{number}")
        if source.counts.get("nulls"):
            columns.append(f"coalesce(json_type({source.column}) = 'NULL', false) AS n{number}")
    columns += [f"u{number}" for number in range(len(unmatched))]
    # Parquet needs a column, and a result may have none.
    chosen = ", ".join(columns) or "true AS nothing"
    origin = ("spread" if sources else "rows") + (" POSITIONAL JOIN unmatched" if unmatched else "")
    database.execute(f"CREATE TABLE typed AS SELECT {chosen} FROM {origin}")
    database.execute(f"COPY typed TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)")


def _described(sources: list[_Source]) -> list[TableColumn]:
    return [
        TableColumn(source.path, source.kind, *(source.counts.get(name, 0) for name in ("filled", "nulls", "missing")))
        for source in sources
    ]


def open_table(summary: Summary, database: duckdb.DuckDBPyConnection, folder: Path, name: str = "shown") -> Profile:
    """Opens the table that was built of a result, as the view ``name``, with its rows' numbers as ``number``.

    Raises:
        ResultGone: it is not there any more.
        redis.exceptions.RedisError: Redis does not answer.
    """
    state = artifacts.find_artifact(summary, artifacts.TABLE)
    if state is None or not state.is_done:
        raise result_store.ResultGone(f"{summary.key}: no table")
    file = folder / f"{name}.parquet"
    with file.open("wb") as copy:
        for chunk in artifacts.read_artifact(summary, artifacts.TABLE, "table", state.data["size"]):
            copy.write(chunk)
    database.execute(
        f"CREATE VIEW {name} AS SELECT *, file_row_number AS number "
        f"FROM read_parquet({literal(str(file))}, file_row_number=true)"
    )
    return reader.profile_of(summary)

"""Builds a Parquet table of typed columns from a result, and its profile. All other artifacts are built from the table.

The table has these columns:

* ``c<n>`` holds the values of the n-th column in the profile.
* ``n<n>`` is true where the n-th field is null, to tell null from a missing field. Exists only if there are nulls.
* ``u<n>`` is true if the n-th join in the profile found no match for the row.

Only the profile has the names of fields, because DuckDB does not distinguish ``name`` from ``Name``. Numbers that are
not integers keep their original digits.
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
    COLUMN_TYPES,
    ColumnKind,
    ColumnType,
    common_kind,
    kind_of,
    shape_of,
)
from worker_tasks.analysis.engine import MAX_ROW_BYTES
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.statistics import TableColumn, column_statistics
from worker_tasks.infra.scratch_database import literal
from worker_tasks.results import result_store
from worker_tasks.results.result_store import SEPARATOR
from worker_tasks.results.summaries import Summary, Unmatched

#: Documents with at most this many fields are spread over columns. Larger documents are probably maps, and stay in one
#: column.
MAX_FIELDS = 100
MAX_COLUMNS = 1_000
#: Nested documents are spread over columns down to this level.
MAX_DEPTH = 8
#: The number of columns that one query extracts, and whose shapes one query counts. More would take too much memory.
EXTRACTED_COLUMNS, COUNTED_COLUMNS = 100, 50
#: The shapes of nulls and of missing fields.
NULL, MISSING = "NULL", "missing"


@dataclass(frozen=True)
class ResultTable:
    """A Parquet table with its profile.

    ``offsets`` contains the packed offset of each row in the result, followed by the offset of the result's end.
    """

    file: Path
    profile: Profile
    offsets: bytes


@dataclass
class _Source:
    """A column whose type is being determined.

    Its JSON is in ``column`` of the database table ``table``, with NULL for a missing field.
    """

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
    """Reads a complete result and builds its table.

    Raises:
        ResultGone: the result expired or was discarded in the meantime.
        duckdb.Error: the table exceeds the limits of memory or time.
        redis.exceptions.RedisError: Redis does not answer.
    """
    digest, offsets = _fetch(summary, folder / "rows.ndjson")
    # Reads lines of JSON instead of using DuckDB's own JSON reader, which cannot tell null from a missing field.
    database.execute(
        f"CREATE TABLE rows AS SELECT json FROM read_ndjson_objects({literal(str(folder / 'rows.ndjson'))}, "
        f"maximum_object_size={MAX_ROW_BYTES})"
    )
    (folder / "rows.ndjson").unlink()
    sources = _spread(database, summary.columns) if summary.columns else []
    unmatched = _unmatched(database, summary)
    file = folder / "table.parquet"
    _write(database, sources, unmatched, file)
    columns = column_statistics(database, _table_columns(sources), "typed")
    return ResultTable(file, Profile(columns, summary.count, digest, unmatched), offsets)


def _fetch(summary: Summary, file: Path) -> tuple[str, bytes]:
    """Writes one row per line. Returns the checksum of the whole value and the packed offsets of its rows."""
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
    """Expands documents into their fields. Returns all columns, and creates the view ``spread`` with them."""
    root = _Source([], "rows", "json")
    level = _extract(database, "level0", root, names)
    tables = list(dict.fromkeys(source.table for source in level))
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
            deeper[id(source)] = _extract(database, table, source, fields)
            taken |= set(names)
            tables += dict.fromkeys(each.table for each in deeper[id(source)])
        if not deeper:
            break
        spread = [each for source in spread for each in deeper.get(id(source), [source])]
        level = [each for sources in deeper.values() for each in sources]
    database.execute(f"CREATE VIEW spread AS SELECT * FROM {' POSITIONAL JOIN '.join(tables)}")
    return spread


def _unmatched(database: duckdb.DuckDBPyConnection, summary: Summary) -> list[str]:
    """Creates the view ``unmatched``, which marks the rows in which each join found no match.

    Returns:
        The fields that the joins add. Leaves out a field if its marked rows differ from the rows recorded during the
        join, which can happen if another version ran the join.
    """
    names = [name for name, recorded in summary.unmatched.items() if recorded.count]
    columns = ", ".join(
        f"coalesce(json_extract(json, {pointer(name)})::VARCHAR IN ('[]', '0', 'null'), true) AS unmatched{number}"
        for number, name in enumerate(names)
    )
    if not names:
        return []
    database.execute(f"CREATE TABLE marked AS SELECT {columns} FROM rows")
    agreeing = {number: name for number, name in enumerate(names) if _agrees(database, number, summary.unmatched[name])}
    selected = ", ".join(f"unmatched{number} AS u{place}" for place, number in enumerate(agreeing))
    if agreeing:
        database.execute(f"CREATE VIEW unmatched AS SELECT {selected} FROM marked")
    return list(agreeing.values())


def _agrees(database: duckdb.DuckDBPyConnection, number: int, recorded: Unmatched) -> bool:
    """Whether the rows marked for a join are the same as those recorded while the join ran."""
    of_join = f"FROM marked WHERE unmatched{number}"
    count = database.execute(f"SELECT count(*) {of_join}").fetchone()
    first = database.execute(f"SELECT rowid {of_join} ORDER BY rowid LIMIT {len(recorded.rows)}").fetchall()
    return count == (recorded.count,) and [row for (row,) in first] == recorded.rows


def pointer(name: str) -> str:
    """A field's JSON pointer as an SQL literal."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1"))


def _extract(database: duckdb.DuckDBPyConnection, table: str, parent: _Source, names: list[str]) -> list[_Source]:
    """Creates tables with the given fields of a JSON column, and determines their types."""
    sources = []
    for first in range(0, len(names), EXTRACTED_COLUMNS):
        some = names[first : first + EXTRACTED_COLUMNS]
        part = f"{table}_from{first}" if first else table
        pointers = ", ".join(map(pointer, some))
        # The fields of null are null, not missing.
        columns = ", ".join(
            f"CASE WHEN is_null THEN 'null'::JSON ELSE extracted[{number + 1}] END AS {part}_{number}"
            for number in range(len(some))
        )
        database.execute(
            f"CREATE TABLE {part} AS SELECT {columns} FROM "
            f"(SELECT json_extract({parent.column}, [{pointers}]) AS extracted, "
            f"coalesce(json_type({parent.column}) = 'NULL', false) AS is_null FROM {parent.table})"
        )
        found = [_Source([*parent.path, name], part, f"{part}_{number}") for number, name in enumerate(some)]
        _determine_types(database, part, found)
        sources += found
    return sources


def _determine_types(database: duckdb.DuckDBPyConnection, table: str, sources: list[_Source]) -> None:
    """Sets the kinds of the columns of one table, and counts their values, nulls and missing fields."""
    for first in range(0, len(sources), COUNTED_COLUMNS):
        some = sources[first : first + COUNTED_COLUMNS]
        values = f"unnest(range({len(some)})) AS place, unnest([{', '.join(each.column for each in some)}]) AS value"
        counted = database.execute(
            f"SELECT place, coalesce({shape_of('value')}, '{MISSING}') AS shape, count(*) "
            f"FROM (SELECT {values} FROM {table}) GROUP BY ALL"
        ).fetchall()
        for place, source in enumerate(some):
            _set_type(database, source, {shape: count for at, shape, count in counted if at == place})


def _set_type(database: duckdb.DuckDBPyConnection, source: _Source, counts: dict[str, int]) -> None:
    """Sets the kind and the counts of a column with these shapes."""
    names = {NULL: "nulls", MISSING: "missing"}
    source.counts = {names[shape]: count for shape, count in counts.items() if shape in names}
    shapes = counts.keys() - names.keys()
    if shapes:
        source.counts["filled"] = sum(counts[shape] for shape in shapes)
    if shapes <= BY_JSON_TYPE.keys():
        source.kind = common_kind({BY_JSON_TYPE[shape] for shape in shapes})
        return
    # Objects may only look like values of a type.
    kinds = database.execute(f"SELECT DISTINCT {kind_of(source.column, shapes)} FROM {source.table}").fetchall()
    source.kind = common_kind({ColumnKind(kind) for (kind,) in kinds if kind is not None})


def _fields_of(database: duckdb.DuckDBPyConnection, source: _Source) -> list[str]:
    """The fields of a column's documents in order of appearance; empty if the column is not spread."""
    if not source.type.spreads:
        return []
    table, column = source.table, source.column
    names = database.execute(
        f"SELECT name FROM (SELECT unnest(json_keys({column})) AS name, "
        f"generate_subscripts(json_keys({column}), 1) AS place, rowid AS number "
        f"FROM {table} WHERE json_type({column}) = 'OBJECT') "
        f"GROUP BY name ORDER BY min(number), min(place) LIMIT {MAX_FIELDS + 1}"
    ).fetchall()
    return [name for (name,) in names] if len(names) <= MAX_FIELDS else []


def _write(database: duckdb.DuckDBPyConnection, sources: list[_Source], unmatched: Sequence[str], file: Path) -> None:
    columns = []
    for number, source in enumerate(sources):
        value = f"nullif({source.column}, 'null'::JSON)" if source.counts.get("nulls") else source.column
        columns.append(f"{source.type.stored(value)} AS c{number}")
        if source.counts.get("nulls"):
            columns.append(f"coalesce(json_type({source.column}) = 'NULL', false) AS n{number}")
    columns += [f"u{number}" for number in range(len(unmatched))]
    # Parquet needs at least one column, and a result may have none.
    selected = ", ".join(columns) or "true AS nothing"
    origin = ("spread" if sources else "rows") + (" POSITIONAL JOIN unmatched" if unmatched else "")
    database.execute(f"CREATE TABLE typed AS SELECT {selected} FROM {origin}")
    database.execute(f"COPY typed TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)")


def _table_columns(sources: list[_Source]) -> list[TableColumn]:
    return [
        TableColumn(source.path, source.kind, *(source.counts.get(name, 0) for name in ("filled", "nulls", "missing")))
        for source in sources
    ]


def open_table(summary: Summary, database: duckdb.DuckDBPyConnection, folder: Path, name: str = "shown") -> Profile:
    """Opens a result's table as the view ``name``, with the row numbers in column ``number``. Returns its profile.

    Raises:
        ResultGone: the table was not built, or has expired.
        redis.exceptions.RedisError: Redis does not answer.
    """
    table = artifacts.find_artifact(summary, artifacts.TABLE)
    if table is None or not table.is_done:
        raise result_store.ResultGone(f"{summary.key}: no table")
    file = folder / f"{name}.parquet"
    with file.open("wb") as copy:
        for chunk in artifacts.read_artifact(summary, artifacts.TABLE, "table", table.data["size"]):
            copy.write(chunk)
    database.execute(
        f"CREATE VIEW {name} AS SELECT *, file_row_number AS number "
        f"FROM read_parquet({literal(str(file))}, file_row_number=true)"
    )
    return reader.profile_of(summary)

"""Exports a result, or a selection of it, as CSV, Parquet, JSON or JSON lines. For Excel, see export_excel.py."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import orjson

from worker_tasks.analysis import reader, row_order
from worker_tasks.analysis.export_selection import Selection, provenance
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.infra.connections import Document
from worker_tasks.infra.scratch_database import identifier, literal
from worker_tasks.results import result_store
from worker_tasks.results.summaries import Summary

#: A spreadsheet takes text that starts like this for a formula, unless the text is a number:
#: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = r"^[=+\-@\t\r]"
NUMBER = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
#: The number of digits in DuckDB's widest decimal.
MAX_DIGITS = 38
#: DuckDB writes CSV fast, but holds buffers for each column.
MAX_COPIED_COLUMNS = 200
#: The number of rows to read at once, and between two progress reports.
BATCH_ROWS = 500


@dataclass(frozen=True)
class ExportContext:
    """Everything that is needed to write a file. The table of the result must be open as ``shown``.

    Attributes:
        selection: the part of the result to export.
        task: the task that the file was requested for.
        run_task: the task whose run produced the result.
        embed_provenance: whether to add the provenance in a format that does not always contain it.
        report: takes the number of rows written so far and the total number of rows.
    """

    summary: Summary
    database: duckdb.DuckDBPyConnection
    profile: Profile
    selection: Selection
    task: Document
    run_task: Document
    embed_provenance: bool
    report: Callable[[int, int], None]

    @cached_property
    def provenance(self) -> Document:
        """The provenance of the file."""
        return provenance(self.task, self.run_task, self.summary, self.profile.sha256, self.selection, self.row_count)

    @cached_property
    def column_indexes(self) -> list[int]:
        """The indexes of the selected columns in the profile."""
        names = self.selection.columns or [column.name for column in self.profile.in_order(self.run_task.get("join"))]
        return [self.profile.index_of(name) for name in names]

    @property
    def columns(self) -> list[Column]:
        return [self.profile.columns[number] for number in self.column_indexes]

    @cached_property
    def row_count(self) -> int:
        """The number of selected rows. Creates the table ``chosen`` for them, unless all rows are selected."""
        if self.selection.query.is_everything:
            return self.summary.count
        query, parameters = row_order.select_rows(self.profile, self.selection.query, "number")
        self.database.execute(
            f"CREATE TABLE chosen AS SELECT number, row_number() OVER () AS place FROM ({query})", parameters
        )
        counted = self.database.execute("SELECT count(*) FROM chosen").fetchone()
        return counted[0] if counted else 0

    def build_query(self, expression: Callable[[int, Column], str]) -> str:
        """SQL that selects an expression for each selected column of each selected row, in order."""
        selected = [
            f"{expression(number, column)} AS {identifier(f'c{place}')}"
            for place, (number, column) in enumerate(zip(self.column_indexes, self.columns, strict=True))
        ]
        if self.selection.query.is_everything:
            return f"SELECT {', '.join(selected)} FROM shown"
        return f"SELECT {', '.join(selected)} FROM chosen JOIN shown USING (number) ORDER BY place"


def write_csv(context: ExportContext, file: Path) -> None:
    """Writes CSV as in RFC 4180. Nested fields have dotted names, lists are JSON, and formulas are escaped."""
    with file.open("wb") as output:
        if context.embed_provenance:
            text = json.dumps(context.provenance, ensure_ascii=False, indent=1, default=str)
            output.writelines(f"# {line}\n".encode() for line in text.splitlines())
        if not context.columns:
            return
        header = ",".join(_quoted(_escaped(column.name)) for column in context.columns)
        output.write(f"{header}\n".encode())
        rows = context.row_count
        query = context.build_query(_cell if len(context.columns) > 1 else _only_cell)
        if len(context.columns) > MAX_COPIED_COLUMNS:
            _write_lines(context, query, output)
        else:
            _copy_lines(context, query, file.with_suffix(".lines"), output)
        context.report(rows, rows)


def _copy_lines(context: ExportContext, query: str, lines: Path, output: BinaryIO) -> None:
    context.database.execute(f"COPY ({query}) TO {literal(str(lines))} (FORMAT csv, HEADER false, NULLSTR '')")
    with lines.open("rb") as body:
        shutil.copyfileobj(body, output, result_store.CHUNK_BYTES)
    lines.unlink()


def _write_lines(context: ExportContext, query: str, output: BinaryIO) -> None:
    """Writes the same lines as :func:`_copy_lines`, in memory that grows with one batch of rows alone."""
    cursor = context.database.execute(query)
    done = 0
    while rows := cursor.fetchmany(BATCH_ROWS):
        for row in rows:
            line = ",".join("" if value is None else _quoted(_as_text(value)) or '""' for value in row)
            output.write(f"{line}\n".encode())
        done += len(rows)
        context.report(done, context.row_count)


def _as_text(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(number: int, column: Column) -> str:
    text = column.type.text(f"c{number}")
    if not column.type.may_be_formula:
        return text
    is_formula = f"regexp_matches({text}, {literal(FORMULA)}) AND NOT regexp_matches({text}, {literal(NUMBER)})"
    return f"CASE WHEN {is_formula} THEN '''' || {text} ELSE {text} END"


def _only_cell(number: int, column: Column) -> str:
    """SQL for a cell in a file with one column. The cell is never NULL, because readers would skip an empty line."""
    return f"coalesce({_cell(number, column)}, '')"


def _escaped(name: str) -> str:
    return f"'{name}" if name[:1] in set("=+-@\t\r") else name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\r\n') else name


def write_parquet(context: ExportContext, file: Path) -> None:
    """Writes Parquet with typed columns: timestamps in UTC, exact decimals, and lists and documents as JSON.

    The provenance is in the metadata of the file.
    """
    rows = context.row_count
    # Make the names unique, because DuckDB does not distinguish names that differ only in case.
    taken: dict[str, str] = {}
    for column in context.columns:
        # DuckDB refuses empty names.
        name = column.name or "_"
        while name.lower() in taken:
            name += "_"
        taken[name.lower()] = name
    names = ", ".join(f"c{place} AS {identifier(name)}" for place, name in enumerate(taken.values()))
    provenance_json = literal(json.dumps(context.provenance, ensure_ascii=False, default=str))
    typed = partial(_typed, context.database)
    query = f"SELECT {names} FROM ({context.build_query(typed)})" if names else "SELECT true AS nothing WHERE false"
    context.database.execute(
        f"COPY ({query}) TO {literal(str(file))} "
        f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{provenance: {provenance_json}}})"
    )
    context.report(rows, rows)


def _typed(database: duckdb.DuckDBPyConnection, number: int, column: Column) -> str:
    name = f"c{number}"
    return _exact(database, name) if column.type.is_exact else column.type.parquet(name)


def _exact(database: duckdb.DuckDBPyConnection, name: str) -> str:
    """SQL for a decimal that can hold all values of the column, or for text if they need too many digits."""
    row = database.execute(
        f"SELECT bool_and(regexp_full_match({name}, '-?\\d+(\\.\\d+)?')), "
        f"max(length(split_part(ltrim({name}, '-'), '.', 1))), max(length(split_part({name}, '.', 2))) FROM shown"
    ).fetchone()
    is_plain, integer, fraction = row or (False, 0, 0)
    if not is_plain or integer + fraction > MAX_DIGITS:
        return name
    return f"{name}::DECIMAL({max(1, integer + fraction)}, {fraction})"


def write_json(context: ExportContext, file: Path) -> None:
    """Writes a JSON array with one document per line.

    If the provenance is embedded, writes an object instead, with the fields ``provenance`` and ``rows``.
    """
    with file.open("wb") as output:
        if context.embed_provenance:
            output.write(b'{"provenance":' + orjson.dumps(context.provenance, default=str) + b',\n"rows":')
        output.write(b"[")
        for number, line in enumerate(_lines(context)):
            output.write((result_store.SEPARATOR if number else b"") + line)
        output.write(b"]}" if context.embed_provenance else b"]")


def write_ndjson(context: ExportContext, file: Path) -> None:
    """Writes one document per line. If the provenance is embedded, it comes first, on a separate line."""
    with file.open("wb") as output:
        if context.embed_provenance:
            output.write(orjson.dumps({"provenance": context.provenance}, default=str) + b"\n")
        output.writelines(line + b"\n" for line in _lines(context))


def _lines(context: ExportContext) -> Iterator[bytes]:
    paths = [column.path for column in context.columns] if context.selection.columns else None
    for number, line in enumerate(_document_lines(context)):
        if number % BATCH_ROWS == 0:
            context.report(number, context.row_count)
        yield line if paths is None else orjson.dumps(pick_fields(orjson.loads(line), paths))


def _document_lines(context: ExportContext) -> Iterable[bytes]:
    total = context.row_count
    if context.selection.query.is_everything:
        yield from result_store.read_lines(context.summary)
        return
    context.database.execute("SELECT number FROM chosen ORDER BY place")
    numbers = [number for (number,) in context.database.fetchall()]
    for first in range(0, total, BATCH_ROWS):
        for row in reader.read_rows_at(context.summary, numbers[first : first + BATCH_ROWS]):
            yield orjson.dumps(row.document)


def pick_fields(document: Document, paths: list[list[str]]) -> Document:
    """A copy of a document with only the fields at these paths."""
    picked: Document = {}
    for path in paths:
        inner: Any = document
        for name in path:
            if not isinstance(inner, dict) or name not in inner:
                break
            inner = inner[name]
        else:
            parent = picked
            for name in path[:-1]:
                parent = parent.setdefault(name, {})
            parent[path[-1]] = inner
    return picked

"""A result, or an excerpt of it, as a file: CSV, Parquet, JSON, lines of JSON. Excel is in workbook.py."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import duckdb
import orjson

from worker_tasks.analysis import reader, row_order
from worker_tasks.analysis.engine import identifier, literal
from worker_tasks.analysis.export_selection import Selection, provenance
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store
from worker_tasks.results.result_store import Summary

#: What a spreadsheet takes for the beginning of a formula, unless it is a number:
#: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = r"^[=+\-@\t\r]"
NUMBER = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
#: Digits of DuckDB's widest exact number.
MAX_DIGITS = 38
#: Row numbers, and rows, that are read at once.
PICKED = 500


@dataclass(frozen=True)
class ExportContext:
    """What a file is made of: a result whose table is open as ``shown``, and what of it is wanted.

    ``task`` is the one that asked for it, ``run_by`` the one whose run made it.
    ``inside`` is whether a format that has no place for the provenance carries it all the same. ``report`` is told the
    rows so far, and how many there will be.
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
        """Where the file comes from."""
        return provenance(self.task, self.run_task, self.summary, self.profile.sha256, self.selection, self.row_count)

    @cached_property
    def column_indexes(self) -> list[int]:
        """The numbers of the columns that are wanted."""
        names = self.selection.columns or [column.name for column in self.profile.in_order(self.run_task.get("join"))]
        return [self.profile.index_of(name) for name in names]

    @property
    def columns(self) -> list[Column]:
        return [self.profile.columns[number] for number in self.column_indexes]

    @cached_property
    def row_count(self) -> int:
        """How many rows are wanted; where not all are, they are then in the table ``chosen``, in their order."""
        if self.selection.query.is_everything:
            return self.summary.count
        query, parameters = row_order.select_rows(self.profile, self.selection.query, "number")
        self.database.execute(
            f"CREATE TABLE chosen AS SELECT number, row_number() OVER () AS place FROM ({query})", parameters
        )
        found = self.database.execute("SELECT count(*) FROM chosen").fetchone()
        return found[0] if found else 0

    def build_query(self, expression: Callable[[int, Column], str]) -> str:
        """A query for something of each wanted column of each wanted row."""
        what = [
            f"{expression(number, column)} AS {identifier(f'c{place}')}"
            for place, (number, column) in enumerate(zip(self.column_indexes, self.columns, strict=True))
        ]
        if self.selection.query.is_everything:
            return f"SELECT {', '.join(what)} FROM shown"
        return f"SELECT {', '.join(what)} FROM chosen JOIN shown USING (number) ORDER BY place"


def write_csv(context: ExportContext, file: Path) -> None:
    """RFC 4180: nested fields under dotted names, lists as JSON, what a spreadsheet would run made text."""
    with file.open("wb") as whole:
        if context.embed_provenance:
            card = json.dumps(context.provenance, ensure_ascii=False, indent=1, default=str)
            whole.writelines(f"# {line}\n".encode() for line in card.splitlines())
        if not context.columns:
            return
        header = ",".join(_quoted(_harmless(column.name)) for column in context.columns)
        whole.write(f"{header}\n".encode())
        lines = file.with_suffix(".lines")
        rows = context.row_count
        query = context.build_query(_cell if len(context.columns) > 1 else _only_cell)
        context.database.execute(f"COPY ({query}) TO {literal(str(lines))} (FORMAT csv, HEADER false, NULLSTR '')")
        with lines.open("rb") as more:
            shutil.copyfileobj(more, whole, result_store.CHUNK_BYTES)
        lines.unlink()
        context.report(rows, rows)


def _cell(number: int, column: Column) -> str:
    text = column.type.text(f"c{number}")
    if not column.type.may_be_formula:
        return text
    runs = f"regexp_matches({text}, {literal(FORMULA)}) AND NOT regexp_matches({text}, {literal(NUMBER)})"
    return f"CASE WHEN {runs} THEN '''' || {text} ELSE {text} END"


def _only_cell(number: int, column: Column) -> str:
    """Never NULL, so that a row without a value is no empty line, which readers skip."""
    return f"coalesce({_cell(number, column)}, '')"


def _harmless(name: str) -> str:
    return f"'{name}" if name[:1] in set("=+-@\t\r") else name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\r\n') else name


def write_parquet(context: ExportContext, file: Path) -> None:
    """Typed columns: instants in UTC, exact decimals, lists and documents as JSON; the provenance in its metadata."""
    rows = context.row_count
    # DuckDB takes names that differ in their letters' case alone for the same.
    taken: dict[str, str] = {}
    for column in context.columns:
        # Nor is a name without a letter one.
        name = column.name or "_"
        while name.lower() in taken:
            name += "_"
        taken[name.lower()] = name
    names = ", ".join(f"c{place} AS {identifier(name)}" for place, name in enumerate(taken.values()))
    card = literal(json.dumps(context.provenance, ensure_ascii=False, default=str))
    typed = partial(_typed, context.database)
    query = f"SELECT {names} FROM ({context.build_query(typed)})" if names else "SELECT true AS nothing WHERE false"
    context.database.execute(
        f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{provenance: {card}}})"
    )
    context.report(rows, rows)


def _typed(database: duckdb.DuckDBPyConnection, number: int, column: Column) -> str:
    name = f"c{number}"
    return _exact(database, name) if column.type.is_exact else column.type.parquet(name)


def _exact(database: duckdb.DuckDBPyConnection, name: str) -> str:
    """As a decimal of as many digits as its values have; where they do not all fit, the digits as text."""
    found = database.execute(
        f"SELECT bool_and(regexp_full_match({name}, '-?\\d+(\\.\\d+)?')), "
        f"max(length(split_part(ltrim({name}, '-'), '.', 1))), max(length(split_part({name}, '.', 2))) FROM shown"
    ).fetchone()
    plain, whole, fraction = found or (False, 0, 0)
    if not plain or whole + fraction > MAX_DIGITS:
        return name
    return f"{name}::DECIMAL({max(1, whole + fraction)}, {fraction})"


def write_json(context: ExportContext, file: Path) -> None:
    """One JSON array, a document a line; with its provenance inside an object with ``provenance`` and ``rows``."""
    with file.open("wb") as whole:
        if context.embed_provenance:
            whole.write(b'{"provenance":' + orjson.dumps(context.provenance, default=str) + b',\n"rows":')
        whole.write(b"[")
        for number, line in enumerate(_lines(context)):
            whole.write((result_store.SEPARATOR if number else b"") + line)
        whole.write(b"]}" if context.embed_provenance else b"]")


def write_ndjson(context: ExportContext, file: Path) -> None:
    """One document a line; with its provenance inside on a line before them."""
    with file.open("wb") as whole:
        if context.embed_provenance:
            whole.write(orjson.dumps({"provenance": context.provenance}, default=str) + b"\n")
        whole.writelines(line + b"\n" for line in _lines(context))


def _lines(context: ExportContext) -> Iterator[bytes]:
    paths = [column.path for column in context.columns] if context.selection.columns else None
    for number, line in enumerate(_whole_lines(context)):
        if number % PICKED == 0:
            context.report(number, context.row_count)
        yield line if paths is None else orjson.dumps(pick_fields(orjson.loads(line), paths))


def _whole_lines(context: ExportContext) -> Iterable[bytes]:
    total = context.row_count
    if context.selection.query.is_everything:
        yield from result_store.read_lines(context.summary)
        return
    context.database.execute("SELECT number FROM chosen ORDER BY place")
    numbers = [number for (number,) in context.database.fetchall()]
    for first in range(0, total, PICKED):
        for row in reader.read_rows_at(context.summary, numbers[first : first + PICKED]):
            yield orjson.dumps(row.document)


def pick_fields(document: Document, paths: list[list[str]]) -> Document:
    """Some fields of a document, each where it was."""
    found: Document = {}
    for path in paths:
        inner: Any = document
        for name in path:
            if not isinstance(inner, dict) or name not in inner:
                break
            inner = inner[name]
        else:
            within = found
            for name in path[:-1]:
                within = within.setdefault(name, {})
            within[path[-1]] = inner
    return found

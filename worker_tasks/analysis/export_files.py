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
    excerpt: Selection
    task: Document
    run_by: Document
    inside: bool
    report: Callable[[int, int], None]

    @cached_property
    def card(self) -> Document:
        """Where the file comes from."""
        return provenance(self.task, self.run_by, self.summary, self.profile.sha256, self.excerpt, self.rows)

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers of the columns that are wanted."""
        names = self.excerpt.columns or [column.name for column in self.profile.in_order(self.run_by.get("join"))]
        return [self.profile.number_of(name) for name in names]

    @property
    def columns(self) -> list[Column]:
        return [self.profile.columns[number] for number in self.numbers]

    @cached_property
    def rows(self) -> int:
        """How many rows are wanted; where not all are, they are then in the table ``chosen``, in their order."""
        if self.excerpt.view.is_everything:
            return self.summary.count
        query, parameters = row_order.select_rows(self.profile, self.excerpt.view, "number")
        self.database.execute(
            f"CREATE TABLE chosen AS SELECT number, row_number() OVER () AS place FROM ({query})", parameters
        )
        found = self.database.execute("SELECT count(*) FROM chosen").fetchone()
        return found[0] if found else 0

    def query(self, expression: Callable[[int, Column], str]) -> str:
        """A query for something of each wanted column of each wanted row."""
        what = [
            f"{expression(number, column)} AS {identifier(f'c{place}')}"
            for place, (number, column) in enumerate(zip(self.numbers, self.columns, strict=True))
        ]
        if self.excerpt.view.is_everything:
            return f"SELECT {', '.join(what)} FROM shown"
        return f"SELECT {', '.join(what)} FROM chosen JOIN shown USING (number) ORDER BY place"


def write_csv(making: ExportContext, file: Path) -> None:
    """RFC 4180: nested fields under dotted names, lists as JSON, what a spreadsheet would run made text."""
    with file.open("wb") as whole:
        if making.inside:
            card = json.dumps(making.card, ensure_ascii=False, indent=1, default=str)
            whole.writelines(f"# {line}\n".encode() for line in card.splitlines())
        if not making.columns:
            return
        header = ",".join(_quoted(_harmless(column.name)) for column in making.columns)
        whole.write(f"{header}\n".encode())
        lines = file.with_suffix(".lines")
        rows = making.rows
        query = making.query(_cell if len(making.columns) > 1 else _only_cell)
        making.database.execute(f"COPY ({query}) TO {literal(str(lines))} (FORMAT csv, HEADER false, NULLSTR '')")
        with lines.open("rb") as more:
            shutil.copyfileobj(more, whole, result_store.CHUNK_BYTES)
        lines.unlink()
        making.report(rows, rows)


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


def write_parquet(making: ExportContext, file: Path) -> None:
    """Typed columns: instants in UTC, exact decimals, lists and documents as JSON; the provenance in its metadata."""
    rows = making.rows
    # DuckDB takes names that differ in their letters' case alone for the same.
    taken: dict[str, str] = {}
    for column in making.columns:
        # Nor is a name without a letter one.
        name = column.name or "_"
        while name.lower() in taken:
            name += "_"
        taken[name.lower()] = name
    names = ", ".join(f"c{place} AS {identifier(name)}" for place, name in enumerate(taken.values()))
    card = literal(json.dumps(making.card, ensure_ascii=False, default=str))
    typed = partial(_typed, making.database)
    query = f"SELECT {names} FROM ({making.query(typed)})" if names else "SELECT true AS nothing WHERE false"
    making.database.execute(
        f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{provenance: {card}}})"
    )
    making.report(rows, rows)


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


def write_json(making: ExportContext, file: Path) -> None:
    """One JSON array, a document a line; with its provenance inside an object with ``provenance`` and ``rows``."""
    with file.open("wb") as whole:
        if making.inside:
            whole.write(b'{"provenance":' + orjson.dumps(making.card, default=str) + b',\n"rows":')
        whole.write(b"[")
        for number, line in enumerate(_lines(making)):
            whole.write((result_store.SEPARATOR if number else b"") + line)
        whole.write(b"]}" if making.inside else b"]")


def write_ndjson(making: ExportContext, file: Path) -> None:
    """One document a line; with its provenance inside on a line before them."""
    with file.open("wb") as whole:
        if making.inside:
            whole.write(orjson.dumps({"provenance": making.card}, default=str) + b"\n")
        whole.writelines(line + b"\n" for line in _lines(making))


def _lines(making: ExportContext) -> Iterator[bytes]:
    paths = [column.path for column in making.columns] if making.excerpt.columns else None
    for number, line in enumerate(_whole_lines(making)):
        if number % PICKED == 0:
            making.report(number, making.rows)
        yield line if paths is None else orjson.dumps(pick_fields(orjson.loads(line), paths))


def _whole_lines(making: ExportContext) -> Iterable[bytes]:
    total = making.rows
    if making.excerpt.view.is_everything:
        yield from result_store.read_lines(making.summary)
        return
    making.database.execute("SELECT number FROM chosen ORDER BY place")
    numbers = [number for (number,) in making.database.fetchall()]
    for first in range(0, total, PICKED):
        for row in reader.read_rows_at(making.summary, numbers[first : first + PICKED]):
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

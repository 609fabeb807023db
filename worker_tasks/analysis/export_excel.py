"""Exports a result, or a selection of it, as an Excel workbook: sheets of rows, and one with the provenance."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any

import xlsxwriter

from worker_tasks.analysis.column_types import Cell, ColumnType
from worker_tasks.analysis.export_files import ExportContext
from worker_tasks.analysis.export_selection import provenance_lines
from worker_tasks.analysis.extended_values import is_typed, plain_value
from worker_tasks.analysis.profiles import Column

#: https://support.microsoft.com/en-us/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
SHEET_ROWS = 1_048_576
CELL_CHARACTERS = 32_767
DIGITS = 15
FIRST_YEAR = 1900
WIDTH = 18
#: Widths of columns in characters: the width for dates, and the narrowest and widest for all others.
DATE_WIDTH, MIN_WIDTH, MAX_WIDTH = 20, 8, 48
#: The number of rows to fetch at once.
FETCHED = 2_000
NOTE = "Instants are in UTC. Numbers with more digits than Excel keeps, and whatever is nested, are text."
#: The keys of Extended JSON whose values become numbers or dates.
NUMBERS, FLOATING, DATE = {"$numberLong", "$numberDouble", "$numberDecimal"}, "$numberDouble", "$date"
CUT = "cells were cut: Excel keeps {limit:,} characters of each."


def write_excel(context: ExportContext, file: Path) -> None:
    """Writes a workbook with the provenance on the last sheet.

    Numbers and timestamps that Excel cannot store exactly become text.
    """
    options = {
        "constant_memory": True,
        "tmpdir": str(file.parent),
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": False,
    }
    with xlsxwriter.Workbook(file, options) as workbook:
        sheets = _Sheets(workbook, context)
        total = context.row_count
        query = context.build_query(lambda number, _: f"c{number}")
        cursor = context.database.execute(query) if context.columns else None
        done = 0
        while cursor is not None and (rows := cursor.fetchmany(FETCHED)):
            for row in rows:
                sheets.add(row)
            done += len(rows)
            context.report(done, total)
        _write_provenance(workbook, context, sheets.cut)


class _Sheets:
    """Writes rows to a sheet, and continues on a new one when it is full."""

    def __init__(self, workbook: xlsxwriter.Workbook, context: ExportContext):
        self._workbook, self._context = workbook, context
        self._bold = workbook.add_format({"bold": True})
        self._instant = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._write = [self._writer(column.type) for column in context.columns]
        self._number = 0
        #: The number of cells whose text was too long.
        self.cut = 0
        self._add_sheet()

    def _add_sheet(self) -> None:
        self._number += 1
        self._sheet = self._workbook.add_worksheet("Result" if self._number == 1 else f"Result {self._number}")
        self._sheet.freeze_panes(1, 0)
        if columns := self._context.columns:
            self._sheet.autofilter(0, 0, SHEET_ROWS - 1, len(columns) - 1)
        for place, column in enumerate(columns):
            self._sheet.set_column(place, place, _width(column))
            self._sheet.write_string(0, place, column.name, self._bold)
        self._row = 1

    def add(self, values: tuple[Any, ...]) -> None:
        if self._row == SHEET_ROWS:
            self._add_sheet()
        for place, value in enumerate(values):
            if value is not None:
                self._write[place](place, value)
        self._row += 1

    def _writer(self, type_: ColumnType) -> Callable[[int, Any], None]:
        writers: dict[Cell, Callable[[int, Any], None]] = {
            Cell.NUMBER: partial(self._write_number, type_.is_floating),
            Cell.BOOLEAN: self._write_boolean,
            Cell.INSTANT: self._write_instant,
            Cell.TEXT: self._write_text,
            Cell.ANY: self._write_any,
        }
        return writers[type_.cell]

    def _write_number(self, is_floating: bool, place: int, value: int | str) -> None:
        number = to_exact_float(value, is_floating=is_floating)
        if number is None:
            self._write_text(place, value)
        else:
            self._sheet.write_number(self._row, place, number)

    def _write_boolean(self, place: int, value: bool) -> None:
        self._sheet.write_boolean(self._row, place, value)

    def _write_instant(self, place: int, value: Any) -> None:
        if isinstance(value, datetime) and value.year >= FIRST_YEAR:
            self._sheet.write_datetime(self._row, place, value, self._instant)
        else:
            self._write_text(place, value.isoformat() if isinstance(value, datetime) else value)

    def _write_any(self, place: int, value: str) -> None:
        """Writes the JSON of a value as a cell of the value's own type."""
        parsed = json.loads(value, parse_int=Decimal, parse_float=Decimal)
        if isinstance(parsed, bool):
            self._write_boolean(place, parsed)
        elif isinstance(parsed, Decimal):
            self._write_number(not value.lstrip("-").isdecimal(), place, value)
        elif isinstance(parsed, str):
            self._write_text(place, parsed)
        elif isinstance(parsed, dict) and is_typed(typed := json.loads(value)):
            self._write_typed(place, next(iter(typed)), plain_value(typed))
        else:
            self._write_text(place, value)

    def _write_typed(self, place: int, wrapper: str, text: str) -> None:
        if wrapper in NUMBERS:
            self._write_number(wrapper == FLOATING, place, text)
        elif wrapper == DATE:
            self._write_instant(place, datetime.fromisoformat(text).replace(tzinfo=None))
        else:
            self._write_text(place, text)

    def _write_text(self, place: int, value: Any) -> None:
        text = str(value)
        if len(text) > CELL_CHARACTERS:
            self.cut += 1
            text = text[:CELL_CHARACTERS]
        self._sheet.write_string(self._row, place, text)


def _width(column: Column) -> int:
    """A width in characters that fits most values of a column."""
    if column.type.cell is Cell.INSTANT:
        return DATE_WIDTH
    texts = [column.name, column.min or "", column.max or "", *(value for value, _ in column.top)]
    return min(max(MIN_WIDTH, *map(len, texts)) + 2, MAX_WIDTH)


def to_exact_float(value: int | str, *, is_floating: bool) -> float | None:
    """The number as Excel stores it; None if Excel would lose some of its digits."""
    try:
        exact = Decimal(value)
    except InvalidOperation:
        return None
    if not exact.is_finite():
        return None
    number = float(exact)
    # Too large or too small for a floating-point number.
    if math.isinf(number) or (exact and not number):
        return None
    # A fraction that comes from a floating-point column is no more precise than a number in Excel.
    inexact = is_floating and exact != exact.to_integral_value()
    # Avoids normalize(), which rounds to 28 digits.
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    return number if inexact or len(digits) <= DIGITS else None


def _write_provenance(workbook: xlsxwriter.Workbook, context: ExportContext, cut: int) -> None:
    sheet = workbook.add_worksheet("Provenance")
    sheet.set_column(0, 0, WIDTH * 2)
    sheet.set_column(1, 1, WIDTH * 5)
    bold = workbook.add_format({"bold": True, "valign": "top"})
    wrapped = workbook.add_format({"text_wrap": True, "valign": "top"})
    lines = [*provenance_lines(context.provenance), ("note", NOTE)]
    if cut:
        lines.append(("cut", f"{cut:,} {CUT.format(limit=CELL_CHARACTERS)}"))
    for row, (name, text) in enumerate(lines):
        sheet.write_string(row, 0, name, bold)
        sheet.write_string(row, 1, text[:CELL_CHARACTERS], wrapped)

"""Exported Excel workbooks, read back as XML in a ZIP archive."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from tests.worker_tasks.analysis.support import (
    EVERYTHING,
    NAMES,
    TEXTS,
    file,
    numbers,
    random_documents,
    value,
    with_table,
)
from worker_tasks.analysis import export_excel
from worker_tasks.analysis.export_excel import CELL_CHARACTERS
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery

pytestmark = pytest.mark.usefixtures("servers")

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
#: Day 0 of Excel's calendar for dates after February 1900, because Excel counts a February 29 in that year.
DAY_0 = datetime(1899, 12, 30, tzinfo=UTC)
Sheet = list[list[Any]]


def sheets(data: bytes) -> dict[str, Sheet]:
    """The cells of each sheet: numbers as Decimal, instants as datetime, None for empty cells."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        book = ET.fromstring(archive.read("xl/workbook.xml"))
        names = [each.get("name") or "" for each in book.iter(f"{MAIN}sheet")]
        pages = [archive.read(f"xl/worksheets/sheet{number + 1}.xml") for number in range(len(names))]
        dates = set(_date_styles(archive.read("xl/styles.xml")))
    return {name: _cells(page, dates) for name, page in zip(names, pages, strict=True)}


def _date_styles(styles: bytes) -> Iterator[str]:
    tree = ET.fromstring(styles)
    formats = {each.get("numFmtId") for each in tree.iter(f"{MAIN}numFmt")}
    (cells,) = tree.iter(f"{MAIN}cellXfs")
    for number, each in enumerate(cells):
        if each.get("numFmtId") in formats:
            yield str(number)


def _cells(page: bytes, dates: set[str]) -> Sheet:
    rows: Sheet = []
    for row in ET.fromstring(page).iter(f"{MAIN}row"):
        cells: dict[int, Any] = {}
        for cell in row:
            assert cell.find(f"{MAIN}f") is None, "a formula"
            column = 0
            for letter in re.sub(r"\d", "", cell.get("r") or ""):
                column = column * 26 + ord(letter) - 64
            cells[column - 1] = _value(cell, dates)
        rows += [[]] * (int(row.get("r") or 0) - len(rows) - 1)
        rows.append([cells.get(number) for number in range(max(cells, default=-1) + 1)])
    return rows


def _value(cell: ET.Element, dates: set[str]) -> Any:
    kind, text = cell.get("t"), cell.findtext(f"{MAIN}v")
    if kind == "inlineStr":
        written = "".join(each.text or "" for each in cell.iter(f"{MAIN}t"))
        return re.sub(r"_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), written)
    if kind == "b":
        return text == "1"
    assert kind in {None, "n"}
    assert text is not None
    if cell.get("s") in dates:
        return DAY_0 + timedelta(milliseconds=round(float(text) * 86_400_000))
    return Decimal(text)


def column(*values: Any) -> list[Any]:
    """Exports values as a column and returns its cells."""
    data = file(with_table([{"_id": number, "x": each} for number, each in enumerate(values)]), "xlsx", columns=["x"])
    header, *rows = sheets(data)["Result"]
    assert header == ["x"]
    return [row[0] if row else None for row in rows] + [None] * (len(values) - len(rows))


def test_text_keeps_all_characters_and_is_never_a_formula() -> None:
    # XML normalises line ends, and empty text becomes an empty cell.
    assert [(each or "").replace("\r\n", "\n") for each in column(*TEXTS)] == [
        text.replace("\r\n", "\n") for text in TEXTS
    ]


#: Pairs of a number and whether Excel keeps all of its digits.
DIGITS: list[tuple[Any, bool]] = [
    (0, True),
    (-5, True),
    (123_456_789_012_345, True),
    (1_234_567_890_123_456, False),
    (Int64(2**53 + 1), False),
    (Int64(2**63 - 1), False),
    (Int64(10**18), True),
    (0.1, True),
    (-1.5e-7, True),
    (0.30000000000000004, True),
    (1e300, True),
    (float("nan"), False),
    (float("-inf"), False),
    (Decimal128("1.10"), True),
    (Decimal128("-0.000001"), True),
    (Decimal128("123456789012345.6"), False),
    (Decimal128("1234567890123456789012345678901234"), False),
    (Decimal128("1.000000000000000000000000000000001"), False),
    (Decimal128("1000000000000000000000000000000001"), False),
    (Decimal128("1.000000000000000000000000000000000"), True),
    (Decimal128("1E+300"), True),
    (Decimal128("1E+6000"), False),
    (Decimal128("-1E+6000"), False),
    (Decimal128("1E-6000"), False),
    (Decimal128("0E-6000"), True),
    (Decimal128("NaN"), False),
    (Decimal128("Infinity"), False),
]


def test_numbers_become_text_if_excel_would_lose_digits() -> None:
    row = {f"x{place}": number for place, (number, _) in enumerate(DIGITS)}
    _, cells = sheets(file(with_table([row]), "xlsx"))["Result"]
    for (number, kept), cell in zip(DIGITS, cells, strict=True):
        assert isinstance(cell, Decimal if kept else str), number
        if kept:
            assert float(cell) == pytest.approx(float(str(number)), rel=1e-15, abs=0)
        else:
            assert repr(Decimal(cell)) == repr(Decimal(str(number)))


@pytest.mark.parametrize(
    "text", ["0", "-0", "1e400", "-1e400", "1e-400", "9" * 400, "0." + "0" * 400 + "1", "NaN", "x"]
)
@pytest.mark.parametrize("is_floating", [True, False])
def test_exported_numbers_are_finite_and_not_rounded_to_zero(text: str, is_floating: bool) -> None:
    number = export_excel.to_exact_float(text, is_floating=is_floating)
    assert number is None or (Decimal(number) == 0) is (Decimal(text) == 0)
    assert number is None or abs(number) < 1e308


def test_instants_outside_excels_calendar_become_text() -> None:
    near = [datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    far = [DatetimeMS(-62_135_596_800_000), DatetimeMS(-2_208_988_800_001), DatetimeMS(253_402_300_800_000)]
    cells = column(*near, *far)
    assert cells[:2] == near
    assert all(isinstance(each, str) for each in cells[2:])
    assert [each[:4] for each in cells[2:]] == ["0001", "1899", "1000"]


def test_values_of_other_types_keep_their_text() -> None:
    oid = ObjectId("65a000000000000000000001")
    assert column(True, False, None) == [True, False, None]
    assert column(oid) == [str(oid)]
    assert column([1, {"a": "x"}], []) == ['[1,{"a":"x"}]', "[]"]
    assert column(1, "one", None) == [Decimal(1), "one", None]


def test_any_field_name_can_be_a_header() -> None:
    book = sheets(file(with_table([{name: number for number, name in enumerate(NAMES)}]), "xlsx"))
    header, row = book["Result"]
    assert [each or "" for each in header] == NAMES
    assert row == list(map(Decimal, range(len(NAMES))))


def test_a_sheet_has_the_rows_and_columns_of_a_selection_in_order() -> None:
    documents = random_documents(31, 300)
    summary = with_table(documents)
    query = RowQuery((("whole", True),), "e", (Condition("flag", Operator.EQ, "true"),))
    columns = ("doc.n", "_id", "flag")
    header, *rows = sheets(file(summary, "xlsx", query, columns))["Result"]
    assert header == list(columns)
    order = numbers(summary, query)
    assert len(order) > 20
    assert [row[1] for row in rows] == order
    assert [row[0] for row in rows] == [(documents[number].get("doc") or {}).get("n") for number in order]
    assert all(row[2] is True for row in rows)


def test_rows_continue_on_the_next_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_excel, "SHEET_ROWS", 11)
    summary = with_table([{"_id": number} for number in range(25)])
    book = sheets(file(summary, "xlsx"))
    assert list(book) == ["Result", "Result 2", "Result 3", "Provenance"]
    assert [sheet[0] for sheet in list(book.values())[:3]] == [["_id"]] * 3
    assert [row[0] for sheet in list(book.values())[:3] for row in sheet[1:]] == list(range(25))
    exact = sheets(file(with_table([{"_id": number} for number in range(20)]), "xlsx"))
    assert list(exact) == ["Result", "Result 2", "Provenance"]


def test_long_cells_are_cut_and_the_workbook_mentions_it() -> None:
    summary = with_table([{"x": "ü" * CELL_CHARACTERS}, {"x": "ü" * (CELL_CHARACTERS + 1)}])
    book = sheets(file(summary, "xlsx"))
    assert [len(row[0]) for row in book["Result"][1:]] == [CELL_CHARACTERS] * 2
    assert dict(book["Provenance"])["cut"].startswith("1 cells were cut")
    assert "cut" not in dict(sheets(file(with_table([{"x": "short"}]), "xlsx"))["Provenance"])


def test_the_last_sheet_shows_the_provenance() -> None:
    summary = with_table(random_documents(32, 20), requested_by="ann", metadata={"reason": "=1+1"})
    query = RowQuery((("text", True),), "e", (Condition("text", Operator.NE, "x"),))
    lines = dict(sheets(file(summary, "xlsx", query, ("text",)))["Provenance"])
    assert lines["result: sha256"] == hashlib.sha256(value(summary)).hexdigest()
    assert lines["asked: by"] == "ann"
    assert lines["asked: why: reason"] == "=1+1"
    assert lines["task id"] == summary.task_id
    assert json.loads(lines["in this file: columns"]) == ["text"]
    assert lines["in this file: view"] == "text ne x; contains the text e; sorted by text downwards"
    assert int(lines["in this file: rows"]) > 0


@pytest.mark.parametrize("documents", [[], [{}], [{}, {}]], ids=str)
def test_workbooks_of_nearly_empty_results_are_valid(documents: list[Any]) -> None:
    book = sheets(file(with_table(documents), "xlsx", EVERYTHING))
    assert list(book) == ["Result", "Provenance"]
    assert [row for row in book["Result"] if row] == []

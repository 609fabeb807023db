"""A result of 300,000 rows is paged, searched and downloaded from the Procfile's web process."""

import csv
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET

import duckdb
import pytest
from bson import Decimal128

from development.servers import free_port
from tests.support import Process
from tests.webapp.api.test_v1 import finished_with
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 300_000
MEBIBYTE = 2**20
#: The permitted growth of the web process over all tests.
MAX_GROWTH = 60 * MEBIBYTE
STATES = ("PAID", "OPEN", "SHIPPED")
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def row(number: int) -> Document:
    return {
        "_id": number,
        "state": STATES[number % 3],
        "amount": Decimal128(f"{number % 1000}.{number % 100:02}"),
        "secret": f"s{number}",
        **({"note": None if number % 2 else f"note, {number}"} if number % 5 else {}),
    }


class Reader:
    """Reads a result over HTTP and records the server's peak memory in ``peak``."""

    def __init__(self, address: str, process: int, task_id: str):
        self._address, self._process, self._task_id = address, process, task_id
        self.peak = self.memory()

    def memory(self) -> int:
        """Bytes of the server's process and its children."""
        children = Path(f"/proc/{self._process}/task/{self._process}/children").read_text().split()
        return sum(_resident(int(child)) for child in [str(self._process), *children])

    def open(self, path: str, **asked: Any) -> IO[bytes]:
        query = f"?{urllib.parse.urlencode(asked, doseq=True)}" if asked else ""
        address = f"{self._address}/api/v1/tasks/{self._task_id}/{path}{query}"
        while True:
            try:
                answer: IO[bytes] = urllib.request.urlopen(address, timeout=60)
            except urllib.error.HTTPError as error:
                # A worker is still busy. The test's timeout ends the loop.
                if error.status != 503:
                    raise
                time.sleep(int(error.headers["Retry-After"]))
            else:
                return answer

    def json(self, path: str, **asked: Any) -> Any:
        with self.open(path, **asked) as answer:
            found = json.load(answer)
        self.peak = max(self.peak, self.memory())
        return found

    def save(self, form: str, file: Path, **asked: Any) -> Path:
        with self.open(f"result.{form}", **asked) as answer, file.open("wb") as copy:
            while chunk := answer.read(MEBIBYTE):
                copy.write(chunk)
                self.peak = max(self.peak, self.memory())
        return file


def _resident(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


@pytest.fixture(scope="module")
def reader(worker: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    task_id = finished_with([row(number) for number in range(ROWS)], parts=3)
    summary = result_store.find_result(f"join_result:{task_id}")
    assert summary
    assert result_store.keep(summary, summary.expires_at.replace(year=summary.expires_at.year + 1))
    port = free_port()
    log = tmp_path_factory.mktemp("large") / "web.log"
    web = Process("web", log, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port} --workers 1")
    web.wait_for_line("Booting worker")
    urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks/{task_id}", timeout=30).close()
    reader = Reader(f"http://127.0.0.1:{port}", web.pid, task_id)
    idle = reader.memory()
    yield reader
    web.stop()
    result_store.discard(result_store.find_result(summary.key) or summary)
    assert reader.peak - idle <= MAX_GROWTH


def as_json(documents: Iterator[Document]) -> list[Document]:
    """The documents in relaxed Extended JSON."""
    return [{**each, "amount": {"$numberDecimal": str(each["amount"])}} for each in documents]


def test_a_large_result_is_read_page_by_page(reader: Reader) -> None:
    for first in range(0, ROWS, 20_000):
        page = reader.json("result", offset=first, limit=1000)
        assert page["count"] == ROWS
        assert page["rows"] == as_json(row(number) for number in range(first, first + 1000))
    assert reader.json("result", offset=ROWS - 3, limit=50)["rows"] == as_json(map(row, range(ROWS - 3, ROWS)))


def test_the_columns_of_a_large_result_are_measured(reader: Reader) -> None:
    columns = {column["name"]: column for column in reader.json("profile")["columns"]}
    assert {name: column["kind"] for name, column in columns.items()} == {
        "_id": "integer", "state": "text", "amount": "decimal", "secret": "text", "note": "text"
    }  # fmt: skip
    note = columns["note"]
    assert (note["filled"], note["nulls"], note["missing"]) == (120_000, 120_000, 60_000)
    amount = columns["amount"]
    assert (amount["least"], amount["most"], amount["distinct"]) == ("0.00", "999.99", 1000)
    assert dict(columns["state"]["top"]) == dict(Counter(STATES[number % 3] for number in range(ROWS)))
    assert sum(each["count"] for each in columns["_id"]["bins"]) == ROWS


def test_a_large_result_is_sorted_filtered_and_searched(reader: Reader) -> None:
    by_amount = sorted(range(ROWS), key=lambda number: (-(number % 1000 + number % 100 / 100), number))
    found = reader.json("result", sort="-amount", limit=1000)
    assert [each["_id"] for each in found["rows"]] == by_amount[:1000]
    last = reader.json("result", sort="-amount", offset=ROWS - 10)
    assert [each["_id"] for each in last["rows"]] == by_amount[-10:]
    asked = {"where": ["state", "amount"], "is": ["eq", "gte"], "value": ["OPEN", "990"]}
    expected = [number for number in range(ROWS) if number % 3 == 1 and number % 1000 >= 990]
    found = reader.json("result", **asked, limit=1000)
    assert (found["count"], [each["_id"] for each in found["rows"]]) == (len(expected), expected[:1000])
    found = reader.json("result", q="NOTE, 12345")
    assert [each["_id"] for each in found["rows"]] == [n for n in range(ROWS) if _noted(n, "12345")]


def _noted(number: int, digits: str) -> bool:
    note = row(number).get("note")
    return note is not None and digits in note


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_a_large_result_is_downloaded_as_json(reader: Reader, tmp_path: Path, form: str) -> None:
    text = reader.save(form, tmp_path / "file").read_text()
    documents = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert documents == as_json(map(row, range(ROWS)))


VISIBLE = ["amount", "_id", "note", "state"]


def cells(number: int) -> tuple[str, int, str | None, str]:
    document = row(number)
    return str(document["amount"]), number, document.get("note"), document["state"]


def test_a_large_result_is_downloaded_as_csv_without_a_hidden_column(reader: Reader, tmp_path: Path) -> None:
    text = reader.save("csv", tmp_path / "file.csv", columns=VISIBLE).read_text()
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    assert header == VISIBLE
    assert len(lines) == ROWS
    for number, line in enumerate(lines):
        amount, _, note, state = cells(number)
        assert line == [amount, str(number), note or "", state]


def test_a_large_result_is_downloaded_as_parquet_without_a_hidden_column(reader: Reader, tmp_path: Path) -> None:
    file = reader.save("parquet", tmp_path / "file.parquet", columns=VISIBLE)
    described = duckdb.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()  # noqa: S608 - a file of this test
    types = {"amount": "DECIMAL(5,2)", "_id": "BIGINT", "note": "VARCHAR", "state": "VARCHAR"}
    assert [column[:2] for column in described] == list(types.items())
    found = duckdb.execute(f"SELECT amount::VARCHAR, _id, note, state FROM '{file}'").fetchall()  # noqa: S608
    assert found == [cells(number) for number in range(ROWS)]


def test_a_large_result_is_downloaded_as_excel_without_a_hidden_column(reader: Reader, tmp_path: Path) -> None:
    file = reader.save("xlsx", tmp_path / "file.xlsx", columns=VISIBLE)
    number = -1
    for number, line in enumerate(_sheet(file), start=-1):
        if number == -1:
            assert line == VISIBLE
            continue
        amount, _, note, state = cells(number)
        assert (float(line[0]), int(line[1]), line[2], line[3]) == (float(amount), number, note or "", state)
    assert number == ROWS - 1


def _sheet(file: Path) -> Iterator[list[str]]:
    """The rows of the first sheet as text. Missing cells are empty strings."""
    with zipfile.ZipFile(file) as book, book.open("xl/worksheets/sheet1.xml") as sheet:
        for _, element in ET.iterparse(sheet):
            if element.tag == f"{SHEET}row":
                found = [""] * len(VISIBLE)
                for cell in element:
                    found["ABCD".index(cell.attrib["r"][0])] = "".join(cell.itertext())
                yield found
                element.clear()

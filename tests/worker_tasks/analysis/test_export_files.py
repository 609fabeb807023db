"""Files of a result, written by a worker and read back by other programs: CSV, JSON, lines of JSON, Parquet."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
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
    record,
    result,
    rows_of,
    value,
    with_table,
    worked_out,
)
from worker_tasks.analysis import export_selection
from worker_tasks.analysis.artifacts import TABLE, ArtifactState
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import Summary

pytestmark = pytest.mark.usefixtures("servers")

csv.field_size_limit(2**24)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VIEW = RowQuery(
    (("whole", True), ("text", False)),
    "e",
    (Condition("flag", Operator.EQ, "true"), Condition("_id", Operator.GT, "9")),
)
COLUMNS = ("text", "doc.deep.er", "_id", "list", "doc.n", "date")


@pytest.fixture(scope="module")
def summary(servers: None) -> Summary:
    return with_table(random_documents(21, 300), parts=2)


def cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def parquet(data: bytes, folder: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """The types of its columns by their names, and its rows, instants as milliseconds since 1970."""
    (folder / "read.parquet").write_bytes(data)
    with duckdb.connect() as database:
        whole = database.read_parquet(str(folder / "read.parquet"))
        types = {name: str(kind) for name, kind in zip(whole.columns, whole.types, strict=True)}
        columns = (
            f"epoch_ms({quoted})" if types[name].startswith("TIMESTAMP") else quoted
            for name in types
            for quoted in ['"' + name.replace('"', '""') + '"']
        )
        return types, whole.project(", ".join(columns)).fetchall()


def card_in(data: bytes, folder: Path) -> Document:
    query = "SELECT decode(key), decode(value) FROM parquet_kv_metadata('{0}')"
    (folder / "read.parquet").write_bytes(data)
    with duckdb.connect() as database:
        found = dict(database.execute(query.format(folder / "read.parquet")).fetchall())
    card: Document = json.loads(found["provenance"])
    return card


def documents_in(form: str, data: bytes) -> list[Document]:
    return json.loads(data) if form == "json" else [json.loads(line) for line in data.split(b"\n")[:-1]]


def picked(document: Document, paths: Sequence[str]) -> Document:
    """What is left of a document, by the names of its columns; no name here has a dot in itself."""
    found: Document = {}
    for path in paths:
        *outer, last = path.split(".")
        inner: Any = document
        for name in outer:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and last in inner:
            into = found
            for name in outer:
                into = into.setdefault(name, {})
            into[last] = inner[last]
    return found


def test_the_json_file_is_the_value_in_redis_byte_by_byte(summary: Summary) -> None:
    assert file(summary, "json") == value(summary)
    assert file(summary, "ndjson") == b"".join(json_line + b"\n" for json_line in value(summary)[1:-1].split(b",\n"))


@pytest.mark.parametrize("form", ["json", "ndjson"])
@pytest.mark.parametrize(("view", "columns"), [(VIEW, ()), (EVERYTHING, COLUMNS), (VIEW, COLUMNS)], ids=str)
def test_an_excerpt_as_json_has_its_rows_and_fields_and_no_others(
    summary: Summary, form: str, view: RowQuery, columns: Sequence[str]
) -> None:
    whole = rows_of(summary)
    order = numbers(summary, view)
    assert 10 < len(order) <= 300
    expected = [picked(whole[number], columns) if columns else whole[number] for number in order]
    found = documents_in(form, file(summary, form, view, columns))
    assert list(map(json.dumps, found)) == list(map(json.dumps, expected))


@pytest.mark.parametrize(("view", "columns"), [(EVERYTHING, ()), (VIEW, ()), (EVERYTHING, COLUMNS), (VIEW, COLUMNS)])
def test_each_format_has_the_same_rows_in_the_same_order(
    summary: Summary, view: RowQuery, columns: Sequence[str], tmp_path: Path
) -> None:
    order = numbers(summary, view)
    header, *lines = cells(file(summary, "csv", view, columns))
    assert not columns or header == list(columns)
    assert [int(line[header.index("_id")]) for line in lines] == order
    types, rows = parquet(file(summary, "parquet", view, columns), tmp_path)
    names = list(types)
    assert names == header
    assert [row[names.index("_id")] for row in rows] == order
    assert [each["_id"] for each in documents_in("json", file(summary, "json", view, columns))] == order


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_hidden_is_in_no_file(form: str, tmp_path: Path) -> None:
    documents = [{"a": number, "secret": "hidden", "in": {"secret": "hidden", "seen": number}} for number in range(60)]
    summary = with_table(documents)
    for view in (EVERYTHING, RowQuery(sort=(("a", True),))):
        data = file(summary, form, view, ("in.seen", "a"), inside=True)
        if form == "parquet":
            names, rows = parquet(data, tmp_path)
            assert list(names) == ["in.seen", "a"]
            assert {len(row) for row in rows} == {2}
        assert b"hidden" not in data
        assert b"secret" not in data


def test_csv_keeps_text_as_it_is_but_what_a_spreadsheet_would_run() -> None:
    header, *lines = cells(file(with_table([{"_id": n, "x": text} for n, text in enumerate(TEXTS)]), "csv"))
    assert header == ["_id", "x"]
    runs = {text: f"'{text}" for text in ("=1+1", "+49 40", "-1+1", "@SUM(A1)", "\t=1", "\r=1")}
    assert [line[1] for line in lines] == [runs.get(text, text) for text in TEXTS]


@pytest.mark.parametrize(
    "number", [-5, -1.5e-7, Decimal128("-0.10"), Decimal128("-1E+3"), Int64(-(2**63)), "-5", "-1.5"]
)
def test_numbers_stay_numbers_in_csv(number: Any) -> None:
    (_, (cell,)) = cells(file(with_table([{"x": number}]), "csv"))
    assert Decimal(cell) == Decimal(str(number))


def test_names_of_any_kind_are_headers_of_csv_but_what_a_spreadsheet_would_run() -> None:
    summary = with_table([{name: number for number, name in enumerate([*NAMES, "-a", "+a", "@a", "\ta", "\ra"])}])
    header, line = cells(file(summary, "csv"))
    runs = {name: f"'{name}" for name in ("=cmd()", "-a", "+a", "@a", "\ta", "\ra")}
    assert header == [runs.get(name, name) for name in [*NAMES, "-a", "+a", "@a", "\ta", "\ra"]]
    assert line == [str(number) for number in range(len(header))]


def test_values_of_mongodb_are_plain_in_csv() -> None:
    row = {
        "oid": ObjectId("0" * 24),
        "long": Int64(2**63 - 1),
        "exact": Decimal128("12.30"),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "exactly": datetime(2026, 1, 2, 3, 4, 5, 60_000, tzinfo=UTC),
        "before": DatetimeMS(-62_135_596_800_000),
        "after": DatetimeMS(253_402_300_800_000),
        "flag": True,
        "nan": math.nan,
        "list": [1, {"a": "x"}, None],
        "nested": {"a": {"b": 1.5}},
    }
    header, line = cells(file(with_table([row]), "csv"))
    assert header == [*list(row)[:-1], "nested.a.b"]
    assert line == [
        "0" * 24,
        str(2**63 - 1),
        "12.30",
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.060Z",
        "0001-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "true",
        "NaN",
        '[1,{"a":"x"},null]',
        "1.5",
    ]


def test_no_row_of_csv_is_lost_where_its_only_column_is_empty() -> None:
    summary = with_table([{"x": "a"}, {}, {"x": None}, {"x": ""}, {"x": "b"}])
    assert cells(file(summary, "csv")) == [["x"], ["a"], [""], [""], [""], ["b"]]


def test_parquet_has_values_of_types_with_nothing_lost(tmp_path: Path) -> None:
    documents: list[Document] = [
        {
            "flag": number % 2 == 0,
            "whole": Int64(2**63 - 1 - number),
            "double": [0.1, 1e300, 5e-324, math.inf][number % 4],
            "exact": Decimal128(f"{number}.{number % 7}0"),
            "widest": Decimal128(f"{10**33 + number}"),
            "wild": Decimal128(["1E+6000", "NaN", "0.1"][number % 3]),
            "at": EPOCH + timedelta(days=number * 997 - 30_000, milliseconds=number),
            "id": ObjectId(f"{number:024x}"),
            "text": TEXTS[number % len(TEXTS)],
            "list": [number, {"a": None}],
            "mixed": number if number % 2 else "two",
            "nothing": None,
        }
        for number in range(50)
    ] + [{}]
    types, rows = parquet(file(with_table(documents), "parquet"), tmp_path)
    names = list(types)
    assert names == list(documents[0])
    assert (types["flag"], types["whole"], types["double"], types["exact"]) == (
        "BOOLEAN",
        "BIGINT",
        "DOUBLE",
        "DECIMAL(4,2)",
    )
    assert (types["widest"], types["wild"], types["at"]) == ("DECIMAL(34,0)", "VARCHAR", "TIMESTAMP WITH TIME ZONE")
    assert rows.pop() == (None,) * len(names)
    for document, row in zip(documents, rows, strict=False):
        found = dict(zip(names, row, strict=True))
        assert [found[name] for name in ("flag", "whole", "double", "text", "nothing")] == [
            document[name] for name in ("flag", "whole", "double", "text", "nothing")
        ]
        assert timedelta(milliseconds=found["at"]) == document["at"] - EPOCH
        assert [found[name] for name in ("exact", "widest")] == [
            document[name].to_decimal() for name in ("exact", "widest")
        ]
        assert (found["wild"], found["id"]) == (str(document["wild"]), str(document["id"]))
        assert json.loads(found["list"]) == document["list"]
        assert json.loads(found["mixed"]) == document["mixed"]


def test_parquet_has_a_column_for_each_name_also_where_names_differ_in_capitals_alone(tmp_path: Path) -> None:
    summary = with_table([{name: number for number, name in enumerate(NAMES)}])
    names, rows = parquet(file(summary, "parquet"), tmp_path)
    assert rows == [tuple(range(len(NAMES)))]
    assert len({name.lower() for name in names}) == len(NAMES)
    same = [(name, found) for name, found in zip(NAMES, names, strict=True) if name != found]
    assert {name for name, _ in same} <= {"name", "NAME", ""}


@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet"])
@pytest.mark.parametrize("documents", [[], [{}, {}]], ids=str)
@pytest.mark.parametrize("view", [EVERYTHING, RowQuery(text="nowhere")], ids=["all", "none"])
def test_files_of_hardly_anything_are_whole(
    documents: list[Document], form: str, view: RowQuery, tmp_path: Path
) -> None:
    data = file(with_table(documents), form, view)
    count = 0 if view.text else len(documents)
    if form in {"json", "ndjson"}:
        assert documents_in(form, data) == [{}] * count
    elif form == "parquet":
        assert len(parquet(data, tmp_path)[1]) in {0, count}
    else:
        assert data == b""


@pytest.mark.parametrize("form", FORMATS)
def test_a_view_that_no_row_meets_is_a_file_without_rows(form: str, summary: Summary, tmp_path: Path) -> None:
    data = file(summary, form, RowQuery(text="no row has this"), COLUMNS)
    if form == "csv":
        assert cells(data) == [list(COLUMNS)]
    elif form == "parquet":
        types, rows = parquet(data, tmp_path)
        assert (list(types), rows) == (list(COLUMNS), [])
    elif form != "xlsx":
        assert documents_in(form, data) == []


def provenance_of(summary: Summary, form: str, view: RowQuery, columns: Sequence[str], folder: Path) -> Document:
    data = file(summary, form, view, columns, inside=True)
    if form == "parquet":
        return card_in(data, folder)
    if form == "csv":
        said = [line[2:] for line in data.decode().split("\n") if line.startswith("# ")]
        return json.loads("\n".join(said))
    if form == "ndjson":
        first, *rows = map(json.loads, data.splitlines())
        assert rows == documents_in(form, file(summary, form, view, columns))
        return first["provenance"]
    whole = json.loads(data)
    assert whole["rows"] == documents_in(form, file(summary, form, view, columns))
    return whole["provenance"]


@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet"])
def test_each_file_says_where_it_comes_from(form: str, tmp_path: Path) -> None:
    summary = result([{"a": number, "b": "e\n"} for number in range(5)])
    record(summary, requested_by="ann", metadata={"reason": 'it\'s "why"\n', "emoji": "👩‍🚀"}, worker="w1", attempt=2)
    assert worked_out(summary, TABLE).is_done
    view = RowQuery((("a", True),), "e", (Condition("a", Operator.GT, "1"),))
    card = provenance_of(summary, form, view, ("b", "a"), tmp_path)
    assert card["task_id"] == card["run"]["task_id"] == summary.task_id
    assert card["asked"]["by"] == "ann"
    assert card["asked"]["why"] == {"reason": 'it\'s "why"\n', "emoji": "👩‍🚀"}
    assert (card["run"]["worker"], card["run"]["attempt"]) == ("w1", 2)
    assert card["result"]["sha256"] == hashlib.sha256(value(summary)).hexdigest()
    assert (card["result"]["rows"], card["result"]["bytes"]) == (5, len(value(summary)))
    assert card["result"]["complete"] is True
    assert card["in_this_file"] == {"rows": 3, "view": view.to_document(), "columns": ["b", "a"]}
    whole = provenance_of(summary, form, EVERYTHING, (), tmp_path)
    assert whole["in_this_file"] == {"rows": 5, "view": None, "columns": "all"}


def test_behind_its_provenance_a_csv_file_is_the_same(summary: Summary) -> None:
    plain, inside = (file(summary, "csv", VIEW, COLUMNS, inside=each) for each in (False, True))
    assert inside.endswith(plain)
    assert all(line.startswith("# ") for line in inside.removesuffix(plain).decode().split("\n")[:-1])
    assert b"# " not in plain[:2]


def test_a_column_that_is_not_there_fails_and_says_so(summary: Summary) -> None:
    wanted = export_selection.export_spec(
        summary.task_id, "csv", Selection(EVERYTHING, ("_id", "no")), embed_provenance=False
    )
    found = worked_out(summary, wanted)
    assert found.state is ArtifactState.FAILED
    assert "“no”" in (found.message or "")


def test_files_that_differ_are_different_ones_and_the_others_are_made_once() -> None:
    first = export_selection.export_spec("t", "csv", Selection(VIEW, COLUMNS), embed_provenance=False)
    assert (
        export_selection.export_spec(
            "t", "csv", Selection.from_document(Selection(VIEW, COLUMNS).to_document()), embed_provenance=False
        )
        == first
    )
    others = [
        export_selection.export_spec("u", "csv", Selection(VIEW, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "json", Selection(VIEW, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(EVERYTHING, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(VIEW, COLUMNS[::-1]), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(VIEW), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(VIEW, COLUMNS), embed_provenance=True),
    ]
    assert len({each.name for each in [first, *others]}) == len(others) + 1
    parquet_files = [
        export_selection.export_spec("t", "parquet", Selection(), embed_provenance=inside) for inside in (False, True)
    ]
    assert parquet_files[0].name == parquet_files[1].name


@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet"])
def test_large_files_arrive_whole(form: str, tmp_path: Path) -> None:
    documents = [{"_id": number, "text": f"{number} ü,\n" * 60_000} for number in range(4)]
    data = file(with_table(documents), form, RowQuery(sort=(("_id", True),)))
    expected = [(each["_id"], each["text"]) for each in reversed(documents)]
    if form == "csv":
        assert [(int(line[0]), line[1]) for line in cells(data)[1:]] == expected
    elif form == "parquet":
        assert parquet(data, tmp_path)[1] == expected
    else:
        assert [(each["_id"], each["text"]) for each in documents_in(form, data)] == expected

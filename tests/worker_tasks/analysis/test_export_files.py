"""Exported CSV, JSON, NDJSON and Parquet files, read back with other libraries."""

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
    built_artifact,
    file,
    numbers,
    random_documents,
    record,
    result,
    rows_of,
    value,
    with_table,
)
from worker_tasks.analysis import export_files, export_selection
from worker_tasks.analysis.artifacts import TABLE, ArtifactState
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.summaries import Summary

pytestmark = pytest.mark.usefixtures("servers")

csv.field_size_limit(2**24)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUERY = RowQuery(
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
    """The types of a Parquet file's columns by name, and its rows with instants as milliseconds since 1970."""
    (folder / "read.parquet").write_bytes(data)
    with duckdb.connect() as database:
        relation = database.read_parquet(str(folder / "read.parquet"))
        types = {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
        columns = (
            f"epoch_ms({quoted})" if types[name].startswith("TIMESTAMP") else quoted
            for name in types
            for quoted in ['"' + name.replace('"', '""') + '"']
        )
        return types, relation.project(", ".join(columns)).fetchall()


def embedded_provenance(data: bytes, folder: Path) -> Document:
    """The provenance in the metadata of a Parquet file."""
    query = "SELECT decode(key), decode(value) FROM parquet_kv_metadata('{0}')"
    (folder / "read.parquet").write_bytes(data)
    with duckdb.connect() as database:
        metadata = dict(database.execute(query.format(folder / "read.parquet")).fetchall())
    provenance: Document = json.loads(metadata["provenance"])
    return provenance


def documents_in(format_name: str, data: bytes) -> list[Document]:
    return json.loads(data) if format_name == "json" else [json.loads(line) for line in data.split(b"\n")[:-1]]


def picked(document: Document, paths: Sequence[str]) -> Document:
    """A copy of a document with only some fields. Their names must not contain dots."""
    copied: Document = {}
    for path in paths:
        *outer, last = path.split(".")
        inner: Any = document
        for name in outer:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and last in inner:
            parent = copied
            for name in outer:
                parent = parent.setdefault(name, {})
            parent[last] = inner[last]
    return copied


def test_the_json_file_equals_the_value_in_redis(summary: Summary) -> None:
    assert file(summary, "json") == value(summary)
    assert file(summary, "ndjson") == b"".join(json_line + b"\n" for json_line in value(summary)[1:-1].split(b",\n"))


@pytest.mark.parametrize("format_name", ["json", "ndjson"])
@pytest.mark.parametrize(("query", "columns"), [(QUERY, ()), (EVERYTHING, COLUMNS), (QUERY, COLUMNS)], ids=str)
def test_a_selection_as_json_has_exactly_its_rows_and_fields(
    summary: Summary, format_name: str, query: RowQuery, columns: Sequence[str]
) -> None:
    rows = rows_of(summary)
    order = numbers(summary, query)
    assert 10 < len(order) <= 300
    expected = [picked(rows[number], columns) if columns else rows[number] for number in order]
    exported = documents_in(format_name, file(summary, format_name, query, columns))
    assert list(map(json.dumps, exported)) == list(map(json.dumps, expected))


@pytest.mark.parametrize(("query", "columns"), [(EVERYTHING, ()), (QUERY, ()), (EVERYTHING, COLUMNS), (QUERY, COLUMNS)])
def test_each_format_has_the_same_rows_in_the_same_order(
    summary: Summary, query: RowQuery, columns: Sequence[str], tmp_path: Path
) -> None:
    order = numbers(summary, query)
    header, *lines = cells(file(summary, "csv", query, columns))
    assert not columns or header == list(columns)
    assert [int(line[header.index("_id")]) for line in lines] == order
    types, rows = parquet(file(summary, "parquet", query, columns), tmp_path)
    names = list(types)
    assert names == header
    assert [row[names.index("_id")] for row in rows] == order
    assert [each["_id"] for each in documents_in("json", file(summary, "json", query, columns))] == order


@pytest.mark.parametrize("format_name", FORMATS)
def test_files_contain_selected_columns_only(format_name: str, tmp_path: Path) -> None:
    documents = [{"a": number, "secret": "hidden", "in": {"secret": "hidden", "seen": number}} for number in range(60)]
    summary = with_table(documents)
    for query in (EVERYTHING, RowQuery(sort=(("a", True),))):
        data = file(summary, format_name, query, ("in.seen", "a"), embed_provenance=True)
        if format_name == "parquet":
            names, rows = parquet(data, tmp_path)
            assert list(names) == ["in.seen", "a"]
            assert {len(row) for row in rows} == {2}
        assert b"hidden" not in data
        assert b"secret" not in data


def test_csv_keeps_text_unchanged_except_formulas() -> None:
    header, *lines = cells(file(with_table([{"_id": n, "x": text} for n, text in enumerate(TEXTS)]), "csv"))
    assert header == ["_id", "x"]
    escaped = {text: f"'{text}" for text in ("=1+1", "+49 40", "-1+1", "@SUM(A1)", "\t=1", "\r=1")}
    assert [line[1] for line in lines] == [escaped.get(text, text) for text in TEXTS]


@pytest.mark.parametrize(
    "number", [-5, -1.5e-7, Decimal128("-0.10"), Decimal128("-1E+3"), Int64(-(2**63)), "-5", "-1.5"]
)
def test_numbers_stay_numbers_in_csv(number: Any) -> None:
    (_, (cell,)) = cells(file(with_table([{"x": number}]), "csv"))
    assert Decimal(cell) == Decimal(str(number))


def test_csv_keeps_headers_unchanged_except_formulas() -> None:
    summary = with_table([{name: number for number, name in enumerate([*NAMES, "-a", "+a", "@a", "\ta", "\ra"])}])
    header, line = cells(file(summary, "csv"))
    escaped = {name: f"'{name}" for name in ("=cmd()", "-a", "+a", "@a", "\ta", "\ra")}
    assert header == [escaped.get(name, name) for name in [*NAMES, "-a", "+a", "@a", "\ta", "\ra"]]
    assert line == [str(number) for number in range(len(header))]


def test_mongodb_types_are_plain_text_in_csv() -> None:
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


def test_csv_keeps_rows_whose_only_column_is_empty() -> None:
    summary = with_table([{"x": "a"}, {}, {"x": None}, {"x": ""}, {"x": "b"}])
    assert cells(file(summary, "csv")) == [["x"], ["a"], [""], [""], [""], ["b"]]


def test_csv_of_1500_columns_fits_into_memory(tmp_path: Path) -> None:
    documents = [{"_id": row, **{f"q{row * 50 + place}": place for place in range(50)}} for row in range(30)]
    summary = with_table(documents)
    header, *lines = cells(file(summary, "csv"))
    assert header == ["_id", *(f"q{number}" for number in range(1500))]
    for row, line in enumerate(lines):
        assert line == [str(row), *(str(n - row * 50) if row * 50 <= n < row * 50 + 50 else "" for n in range(1500))]
    assert len(parquet(file(summary, "parquet"), tmp_path)[1]) == len(lines) == 30


def test_wide_and_narrow_csv_files_have_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = with_table([{"mixed": 1, "flag": True}, *random_documents(7, 100)])
    narrow = file(summary, "csv", embed_provenance=False)
    monkeypatch.setattr(export_files, "MAX_COPIED_COLUMNS", 0)
    again = with_table([{"mixed": 1, "flag": True}, *random_documents(7, 100)])
    assert file(again, "csv", embed_provenance=False) == narrow


def test_parquet_has_typed_values_without_loss(tmp_path: Path) -> None:
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
        values = dict(zip(names, row, strict=True))
        assert [values[name] for name in ("flag", "whole", "double", "text", "nothing")] == [
            document[name] for name in ("flag", "whole", "double", "text", "nothing")
        ]
        assert timedelta(milliseconds=values["at"]) == document["at"] - EPOCH
        assert [values[name] for name in ("exact", "widest")] == [
            document[name].to_decimal() for name in ("exact", "widest")
        ]
        assert (values["wild"], values["id"]) == (str(document["wild"]), str(document["id"]))
        assert json.loads(values["list"]) == document["list"]
        assert json.loads(values["mixed"]) == document["mixed"]


def test_parquet_has_a_column_for_each_name_even_if_only_case_differs(tmp_path: Path) -> None:
    summary = with_table([{name: number for number, name in enumerate(NAMES)}])
    names, rows = parquet(file(summary, "parquet"), tmp_path)
    assert rows == [tuple(range(len(NAMES)))]
    assert len({name.lower() for name in names}) == len(NAMES)
    renamed = [(name, column) for name, column in zip(NAMES, names, strict=True) if name != column]
    assert {name for name, _ in renamed} <= {"name", "NAME", ""}


@pytest.mark.parametrize("format_name", ["csv", "json", "ndjson", "parquet"])
@pytest.mark.parametrize("documents", [[], [{}, {}]], ids=str)
@pytest.mark.parametrize("query", [EVERYTHING, RowQuery(text="nowhere")], ids=["all", "none"])
def test_files_of_nearly_empty_results_are_valid(
    documents: list[Document], format_name: str, query: RowQuery, tmp_path: Path
) -> None:
    data = file(with_table(documents), format_name, query)
    count = 0 if query.text else len(documents)
    if format_name in {"json", "ndjson"}:
        assert documents_in(format_name, data) == [{}] * count
    elif format_name == "parquet":
        assert len(parquet(data, tmp_path)[1]) in {0, count}
    else:
        assert data == b""


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_selection_without_rows_is_exported_as_a_file_without_rows(
    format_name: str, summary: Summary, tmp_path: Path
) -> None:
    data = file(summary, format_name, RowQuery(text="no row has this"), COLUMNS)
    if format_name == "csv":
        assert cells(data) == [list(COLUMNS)]
    elif format_name == "parquet":
        types, rows = parquet(data, tmp_path)
        assert (list(types), rows) == (list(COLUMNS), [])
    elif format_name != "xlsx":
        assert documents_in(format_name, data) == []


def provenance_of(
    summary: Summary, format_name: str, query: RowQuery, columns: Sequence[str], folder: Path
) -> Document:
    data = file(summary, format_name, query, columns, embed_provenance=True)
    if format_name == "parquet":
        return embedded_provenance(data, folder)
    if format_name == "csv":
        lines = [line[2:] for line in data.decode().split("\n") if line.startswith("# ")]
        return json.loads("\n".join(lines))
    if format_name == "ndjson":
        first, *rows = map(json.loads, data.splitlines())
        assert rows == documents_in(format_name, file(summary, format_name, query, columns))
        return first["provenance"]
    whole = json.loads(data)
    assert whole["rows"] == documents_in(format_name, file(summary, format_name, query, columns))
    return whole["provenance"]


@pytest.mark.parametrize("format_name", ["csv", "json", "ndjson", "parquet"])
def test_each_format_can_embed_the_provenance(format_name: str, tmp_path: Path) -> None:
    summary = result([{"a": number, "b": "e\n"} for number in range(5)])
    record(summary, requested_by="ann", metadata={"reason": 'it\'s "why"\n', "emoji": "👩‍🚀"}, worker="w1", attempt=2)
    assert built_artifact(summary, TABLE).is_done
    query = RowQuery((("a", True),), "e", (Condition("a", Operator.GT, "1"),))
    provenance = provenance_of(summary, format_name, query, ("b", "a"), tmp_path)
    assert provenance["task_id"] == provenance["run"]["task_id"] == summary.task_id
    assert provenance["asked"]["by"] == "ann"
    assert provenance["asked"]["why"] == {"reason": 'it\'s "why"\n', "emoji": "👩‍🚀"}
    assert (provenance["run"]["worker"], provenance["run"]["attempt"]) == ("w1", 2)
    assert provenance["result"]["sha256"] == hashlib.sha256(value(summary)).hexdigest()
    assert (provenance["result"]["rows"], provenance["result"]["bytes"]) == (5, len(value(summary)))
    assert provenance["result"]["complete"] is True
    assert provenance["in_this_file"] == {"rows": 3, "view": query.to_document(), "columns": ["b", "a"]}
    whole = provenance_of(summary, format_name, EVERYTHING, (), tmp_path)
    assert whole["in_this_file"] == {"rows": 5, "view": None, "columns": "all"}


def test_a_csv_file_is_unchanged_below_its_provenance(summary: Summary) -> None:
    plain, embedded = (file(summary, "csv", QUERY, COLUMNS, embed_provenance=each) for each in (False, True))
    assert embedded.endswith(plain)
    assert all(line.startswith("# ") for line in embedded.removesuffix(plain).decode().split("\n")[:-1])
    assert b"# " not in plain[:2]


def test_an_unknown_column_fails_with_a_message(summary: Summary) -> None:
    spec = export_selection.export_spec(
        summary.task_id, "csv", Selection(EVERYTHING, ("_id", "no")), embed_provenance=False
    )
    artifact = built_artifact(summary, spec)
    assert artifact.state is ArtifactState.FAILED
    assert "“no”" in (artifact.message or "")


def test_different_options_make_different_files() -> None:
    first = export_selection.export_spec("t", "csv", Selection(QUERY, COLUMNS), embed_provenance=False)
    assert (
        export_selection.export_spec(
            "t", "csv", Selection.from_document(Selection(QUERY, COLUMNS).to_document()), embed_provenance=False
        )
        == first
    )
    others = [
        export_selection.export_spec("u", "csv", Selection(QUERY, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "json", Selection(QUERY, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(EVERYTHING, COLUMNS), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(QUERY, COLUMNS[::-1]), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(QUERY), embed_provenance=False),
        export_selection.export_spec("t", "csv", Selection(QUERY, COLUMNS), embed_provenance=True),
    ]
    assert len({each.name for each in [first, *others]}) == len(others) + 1
    parquet_files = [
        export_selection.export_spec("t", "parquet", Selection(), embed_provenance=inside) for inside in (False, True)
    ]
    assert parquet_files[0].name == parquet_files[1].name


@pytest.mark.parametrize("format_name", ["csv", "json", "ndjson", "parquet"])
def test_large_files_are_complete(format_name: str, tmp_path: Path) -> None:
    documents = [{"_id": number, "text": f"{number} ü,\n" * 60_000} for number in range(4)]
    data = file(with_table(documents), format_name, RowQuery(sort=(("_id", True),)))
    expected = [(each["_id"], each["text"]) for each in reversed(documents)]
    if format_name == "csv":
        assert [(int(line[0]), line[1]) for line in cells(data)[1:]] == expected
    elif format_name == "parquet":
        assert parquet(data, tmp_path)[1] == expected
    else:
        assert [(each["_id"], each["text"]) for each in documents_in(format_name, data)] == expected

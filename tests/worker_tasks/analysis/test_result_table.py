"""The table of a result has all values in typed columns, without losing any or moving any to a wrong row."""

import hashlib
import json
import math
import struct
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE
from bson.datetime_ms import DatetimeMS

from tests.worker_tasks.analysis.support import NAMES, TEXTS, built, random_documents, result, value
from worker_tasks.analysis import engine, result_table
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.result_table import MAX_DEPTH, MAX_FIELDS
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store
from worker_tasks.results.result_store import ResultGone

pytestmark = pytest.mark.usefixtures("servers")

DECIMALS = ["0", "-0", "1.10", "1.1000", "-0.00", "1E+3", "1E-6176", "9.999999999999999999999999999999999E+6144"]
DECIMALS += [
    "NaN",
    "Infinity",
    "-Infinity",
    "1234567890123456789012345678901234",
    "-1.000000000000000000000000000000001",
]
DOUBLES = [0.1, 0.30000000000000004, 1e300, -1e300, 5e-324, 1.7976931348623157e308, 1e-7, 1e16, 12345678901234567890.0]
DOUBLES += [math.inf, -math.inf, math.nan, -0.0, 3.0]
INSTANTS = [0, -1, 1, 999, -62_135_596_800_000, -62_135_596_800_001, 253_402_300_799_999, 253_402_300_800_000, 10**15]
PLAIN: list[tuple[ColumnKind, list[Any], list[Any]]] = [
    (ColumnKind.BOOLEAN, [True, False], [True, False]),
    (ColumnKind.INTEGER, [Int64(-(2**63)), 0, Int64(2**63 - 1), 7], [-(2**63), 0, 2**63 - 1, 7]),
    (ColumnKind.DECIMAL, list(map(Decimal128, DECIMALS)), [str(Decimal128(each)) for each in DECIMALS]),
    (ColumnKind.DECIMAL, [1, Decimal128("1.0"), Int64(2**62)], ["1", "1.0", str(2**62)]),
    (ColumnKind.NUMBER, [Int64(2**53 + 1), 0.5], [str(2**53 + 1), "0.5"]),
    (ColumnKind.ID, [ObjectId(f"{2**95:024x}"), ObjectId("0" * 24)], [f"{2**95:024x}", "0" * 24]),
    (ColumnKind.TEXT, TEXTS, TEXTS),
    (ColumnKind.NOTHING, [None, None], [None, None]),
]
#: Values of types without a column type of their own.
ODD: list[Any] = [
    Binary(b"\x00\xff", 0),
    Binary(b"0123456789abcdef", 4),
    Regex('^a"b', "i"),
    Timestamp(1, 2),
    MinKey(),
    MaxKey(),
    DatetimeMS(2**62),
]
NESTED: list[list[Any]] = [
    [[], [1], [[]], [{}, {"a": None}], ["x", 2, True, None]],
    [1, "1", True, 1.5, [1], {"a": 1}, {}, ObjectId("0" * 24), Decimal128("1.0"), DatetimeMS(0), ",\n"],
    [1, "1"],
    [{"a": 1}, 2],
    [[1], {"a": 1}],
    [ObjectId("0" * 24), "0" * 24],
    [DatetimeMS(0), "1970-01-01"],
    *([each] for each in ODD if not isinstance(each, Binary) or each.subtype != UUID_SUBTYPE),
    ODD,
]


@pytest.mark.parametrize(("kind", "stored", "expected"), PLAIN)
def test_values_of_one_type_are_kept_exactly(kind: ColumnKind, stored: list[Any], expected: list[Any]) -> None:
    with built([{"x": each} for each in stored]) as table:
        assert table.column("x").kind is kind
        assert table.values("x") == expected


def test_floating_point_numbers_are_kept_exactly() -> None:
    with built([{"x": each} for each in DOUBLES]) as table:
        assert table.column("x").kind is ColumnKind.NUMBER
        assert list(map(repr, map(float, table.values("x")))) == list(map(repr, DOUBLES))


def test_instants_long_before_1970_and_after_9999_are_kept_exactly() -> None:
    with built([{"x": DatetimeMS(each)} for each in INSTANTS]) as table:
        assert table.column("x").kind is ColumnKind.DATE
        assert table.select("epoch_ms(c0)") == INSTANTS


@pytest.mark.parametrize("far", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_an_instant_outside_duckdbs_range_is_kept_as_json(far: int) -> None:
    with built([{"x": DatetimeMS(0)}, {"x": DatetimeMS(far)}]) as table:
        assert table.column("x").kind is ColumnKind.MIXED
        assert json.loads(table.values("x")[1]) == {"$date": {"$numberLong": str(far)}}


@pytest.mark.parametrize("stored", NESTED, ids=lambda stored: str(stored)[:40])
def test_values_without_a_column_type_are_kept_as_json(stored: list[Any]) -> None:
    documents: list[Document] = [{"x": each} for each in stored]
    with built(documents) as table:
        assert table.column("x").kind in {ColumnKind.MIXED, ColumnKind.LIST}
        written = json.loads(value(result(documents)))
        assert list(map(json.loads, table.values("x"))) == [row["x"] for row in written]


def test_null_differs_from_a_missing_field_in_every_type_of_column() -> None:
    values = [1, 1.5, "x", True, ObjectId(), Decimal128("1"), DatetimeMS(0), [1], {}, None, ODD[0]]
    full = {f"{number}": each for number, each in enumerate(values)}
    nulls = dict.fromkeys(full)
    with built([full, nulls, {}, full, {"last": 1}, nulls, nulls]) as table:
        for number, each in enumerate(values):
            column = table.column(f"{number}")
            assert (column.filled, column.nulls, column.missing) == ((2, 3, 2) if each is not None else (0, 5, 2))
            place = table.profile.index_of(column.name)
            assert table.select(f"n{place}") == [each is None, True, False, each is None, False, True, True]


def test_a_field_can_have_any_name() -> None:
    row = {name: f"value {number}" for number, name in enumerate(NAMES)}
    with built([row, dict.fromkeys(NAMES), {"other": 1}]) as table:
        assert table.names == [*NAMES, "other"]
        for name, text in row.items():
            assert table.column(name).path == [name]
            assert table.values(name) == [text, None, None]
            assert (table.column(name).nulls, table.column(name).missing) == (1, 1)


def test_nested_fields_can_have_any_name() -> None:
    row = {name: f"top {number}" for number, name in enumerate(NAMES)}
    inner = {name: f"inner {number}" for number, name in enumerate(NAMES)}
    with built([row | {"in": inner}]) as table:
        found = {tuple(column.path): table.values(column.name) for column in table.profile.columns}
        expected = {(name,): [text] for name, text in row.items()}
        assert found == expected | {("in", name): [text] for name, text in inner.items()}


def test_documents_are_spread_over_columns_in_order_of_appearance() -> None:
    documents: list[Document] = [
        {"a": {"x": 1, "in": {"deep": "d"}}, "z": 0},
        {"z": 1},
        {"a": None, "z": 2},
        {"a": {}, "z": 3},
        {"a": {"y": None, "in": {}}, "z": 4},
        {"a": {"in": None, "x": 2}, "z": 5},
    ]
    with built(documents) as table:
        assert table.names == ["a.x", "a.in.deep", "a.y", "z"]
        assert table.values("a.x") == [1, None, None, None, None, 2]
        assert table.values("a.in.deep") == ["d", None, None, None, None, None]
        assert (table.column("a.y").nulls, table.column("a.y").missing) == (2, 4)
        assert table.values("z") == list(range(6))


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"a": {"b": 1}, "a.b": 2}, ["a", "a.b"]),
        ({"a.b": 2, "a": {"b": 1, "c": 1}}, ["a.b", "a"]),
        ({"a": {"b.c": 1, "b": {"c": 2}}}, ["a.b.c", "a.b"]),
        ({"a": {"b": {"c": 1}}, "a.b": {"c": 2}}, ["a", "a.b.c"]),
        ({"a": {"": {"": 1}}}, ["a.."]),
        ({"a": {}}, ["a"]),
    ],
)
def test_no_two_columns_have_the_same_name(document: Document, names: list[str]) -> None:
    with built([document]) as table:
        assert table.names == names


def test_a_document_with_too_many_fields_stays_one_column() -> None:
    kept = {f"k{number}": number for number in range(MAX_FIELDS + 1)}
    spread = {f"s{number}": number for number in range(MAX_FIELDS)}
    with built([{"spread": spread, "map": kept}]) as table:
        assert table.names == [*(f"spread.{name}" for name in spread), "map"]
        assert json.loads(table.values("map")[0]) == kept


def test_a_table_has_at_most_the_maximum_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_table, "MAX_COLUMNS", 20)
    row = {f"d{number}": {f"f{field}": field for field in range(6)} for number in range(5)}
    with built([row]) as table:
        # Three of five documents are spread over 18 columns. A fourth would make 25.
        assert table.names == [*(f"d{number}.f{field}" for number in range(3) for field in range(6)), "d3", "d4"]
        assert [json.loads(table.values(name)[0]) for name in ("d3", "d4")] == [row["d3"], row["d4"]]


def test_documents_below_the_deepest_level_are_kept_as_json() -> None:
    deepest: Document = {"end": "here"}
    document = deepest
    for number in range(MAX_DEPTH + 3):
        document = {f"l{number}": document}
    with built([document]) as table:
        (column,) = table.profile.columns
        assert column.kind is ColumnKind.DOCUMENT
        assert len(column.path) == MAX_DEPTH + 1
        found = json.loads(table.values(column.name)[0])
        for name in reversed(column.path):
            found = {name: found}
        assert found == document


@pytest.mark.parametrize("documents", [[], [{}], [{}, {}, {}], [{"_id": 1}], [{}, {"a": 1}]], ids=str)
def test_nearly_empty_results_have_a_table(documents: list[Document]) -> None:
    with built(documents) as table:
        assert table.profile.rows == len(documents)
        assert table.names == list(dict.fromkeys(name for document in documents for name in document))
        assert all(column.rows == len(documents) for column in table.profile.columns)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 701])
def test_the_checksum_and_the_row_offsets_match_the_stored_value(count: int, parts: int) -> None:
    documents = random_documents(count, count)
    summary = result(documents, parts)
    with engine.open_database() as (database, folder):
        table = result_table.build_table(summary, database, folder)
    stored = value(summary)
    assert table.profile.sha256 == hashlib.sha256(stored).hexdigest()
    offsets = [offset for (offset,) in struct.iter_unpack("<I", table.offsets)]
    lines = [stored[start : end - 2] for start, end in pairwise(offsets)]
    assert lines == list(result_store.read_lines(summary))
    assert len(lines) == count


@pytest.mark.parametrize("seed", range(2))
def test_counts_and_values_of_random_rows_are_correct(seed: int) -> None:
    documents = random_documents(seed, 400)
    with built(documents, parts=3) as table:
        assert table.values("_id") == list(range(400))
        for column in table.profile.columns:
            if column.path[0] == "doc":
                continue
            counted = Counter(
                "missing" if column.name not in each else "nulls" if each[column.name] is None else "filled"
                for each in documents
            )
            found = {"filled": column.filled, "nulls": column.nulls, "missing": column.missing}
            assert found == {name: counted[name] for name in found}, column.name
        assert table.values("text") == [each.get("text") for each in documents]
        assert table.values("flag") == [each.get("flag") for each in documents]
        assert table.values("whole") == [each.get("whole") for each in documents]
        assert table.values("exact") == [None if (d := each.get("exact")) is None else str(d) for each in documents]
        deep = [((each.get("doc") or {}).get("deep") or {}).get("er") for each in documents]
        assert table.values("doc.deep.er") == deep


def test_nested_fields_stay_in_their_rows_in_large_results() -> None:
    documents: list[Document] = [
        {"_id": number} | ({"in": {"copy": number, "more": {"copy": number}}} if number % 7 == 0 else {})
        for number in range(130_000)
    ]
    with built(documents) as table:
        assert table.select("number") == table.values("_id") == list(range(130_000))
        expected = [number if number % 7 == 0 else None for number in range(130_000)]
        assert table.values("in.copy") == table.values("in.more.copy") == expected


def test_long_text_is_kept_completely() -> None:
    text = "ü,\n" * 2_000_000
    with built([{"x": "short"}, {"x": text}]) as table:
        assert table.values("x") == ["short", text]


def test_a_discarded_result_has_no_table() -> None:
    summary = result([{"_id": 1}])
    assert result_store.discard(summary)
    with engine.open_database() as (database, folder), pytest.raises(ResultGone):
        result_table.build_table(summary, database, folder)

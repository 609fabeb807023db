"""Columns of several types, and values that only look like a type: sorted, filtered, exported."""

import csv
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker_tasks.analysis.support import Built, built, file, rows_of, with_table
from tests.worker_tasks.analysis.test_export_excel import sheets
from tests.worker_tasks.analysis.test_export_files import parquet
from worker_tasks.analysis import extended_values
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput

pytestmark = pytest.mark.usefixtures("servers")

UUID_TEXT = "12345678-1234-5678-1234-567812345678"
UUID_BYTES = bytes.fromhex(UUID_TEXT.replace("-", ""))
NUMBERS = [9, 10, 100, 2, "N/A", 25, "7", None, 3.5, Decimal128("5.10"), Int64(2**53 + 1), Int64(2**53)]
#: Data that looks like Extended JSON, and is no value of that type.
LITERALS: list[Document] = [
    {"$date": "not a date"},
    {"$date": "2020-02-30T00:00:00Z"},
    {"$date": "2020-01-01"},
    {"$date": {"a": 1}},
    {"$date": {"$numberLong": "many"}},
    {"$date": None},
    {"$date": 1.5},
    {"$oid": "12"},
    {"$oid": 5},
    {"$uuid": "?"},
    {"$numberDecimal": "abc"},
    {"$numberDouble": "one"},
    {"$numberLong": "99999999999999999999"},
    {"$numberLong": {"a": [1]}},
    {"$binary": {"base64": "?", "subType": "04"}},
    {"$binary": 5},
    {"$symbol": 7},
    {"$price": 3},
]


def of(*values: Any) -> list[Document]:
    return [{"_id": number, "v": value} for number, value in enumerate(values)]


def found(table: Built, operator: Operator, text: str = "", column: str = "v") -> list[int]:
    return table.numbers(RowQuery(conditions=(Condition(column, operator, text),)))


def csv_column(data: bytes, name: str = "v") -> list[str]:
    header, *lines = csv.reader(io.StringIO(data.decode(), newline=""))
    return [line[header.index(name)] for line in lines]


def excel_column(data: bytes, place: int = 1) -> list[Any]:
    return [row[place] if len(row) > place else None for row in sheets(data)["Result"]][1:]


def parquet_column(data: bytes, folder: Path, place: int = 1) -> list[Any]:
    return [row[place] for row in parquet(data, folder)[1]]


@pytest.fixture(scope="module")
def numbers(servers: None) -> Iterator[Built]:
    with built(of(*NUMBERS)) as table:
        assert table.column("v").kind is ColumnKind.MIXED
        yield table


@pytest.mark.parametrize(
    ("operator", "text", "expected"),
    [
        (Operator.GT, "5", [0, 1, 2, 5, 9, 10, 11]),
        (Operator.LT, "5", [3, 8]),
        (Operator.GTE, "9,007,199,254,740,993", [10]),
        (Operator.EQ, "9007199254740992", [11]),
        (Operator.EQ, "5.1", [9]),
        (Operator.EQ, "N/A", [4]),
        (Operator.EQ, "7", [6]),
        (Operator.NE, "7", [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),
        (Operator.STARTS, "N", [4]),
        (Operator.CONTAINS, "/a", [4]),
        (Operator.GT, "M", [4]),
        (Operator.LT, "M", [6]),
    ],
)
def test_numbers_and_texts_in_one_column_are_compared_as_such(
    numbers: Built, operator: Operator, text: str, expected: list[int]
) -> None:
    assert found(numbers, operator, text) == expected


def test_dates_ids_and_booleans_in_a_mixed_column_are_compared_as_such() -> None:
    day = datetime(2024, 3, 31, tzinfo=UTC)
    oid, later = ObjectId("65a000000000000000000001"), day + timedelta(hours=30)
    with built(of(day, later, "2024-03-31", oid, Binary(UUID_BYTES, 4), True, "true", 2024, [1, "x"])) as table:
        assert found(table, Operator.EQ, "2024-03-31") == [0, 2]
        assert found(table, Operator.GT, "2024-03-31") == [1]
        assert found(table, Operator.LTE, "2024-03-31") == [0]
        assert found(table, Operator.EQ, str(oid)) == [3]
        assert found(table, Operator.EQ, UUID_TEXT) == [4]
        assert found(table, Operator.EQ, "true") == [5, 6]
        assert found(table, Operator.EQ, '[1,"x"]') == [8]


scalars = st.one_of(
    st.integers(-20, 20),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6).map(Decimal128),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    st.booleans(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.integers(-(10**13), 10**13).map(DatetimeMS),
)


@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@given(st.lists(scalars, min_size=20, max_size=60))
def test_a_mixed_column_has_the_order_of_mongodb(drawn: list[Any]) -> None:
    documents = of(Regex("a"), Timestamp(1, 1), *drawn)
    collection = connections().joins["matching"].mixed_order
    collection.delete_many({})
    collection.insert_many(documents)
    with built(documents) as table:
        for descending in (False, True):
            order = [("v", -1 if descending else 1), ("_id", 1)]
            expected = [row["_id"] for row in collection.find({}, {"_id": 1}).sort(order)]
            assert table.numbers(RowQuery(sort=(("v", descending),))) == expected
    connections().joins.drop_database("matching")


def test_lists_are_compared_by_their_length() -> None:
    lists: list[Any] = [["a"] * number for number in (0, 1, 12, 3, 2)]
    with built(of(*lists, None)) as table:
        assert found(table, Operator.GT, "2") == [2, 3]
        assert found(table, Operator.LTE, "2") == [0, 1, 4]
        assert found(table, Operator.EQ, "1") == [1]
        assert found(table, Operator.NE, "1") == [0, 2, 3, 4, 5]
        assert found(table, Operator.EQ, '[ "a" ]') == [1]
        for operator, text in ((Operator.GT, "a"), (Operator.GT, '["a"]'), (Operator.EQ, "[1")):
            with pytest.raises(InvalidInput, match="of v: "):
                found(table, operator, text)
    with built(of(*lists, "text")) as table:
        assert table.numbers(RowQuery(sort=(("v", False),))) == [5, 0, 1, 4, 3, 2]


def test_texts_of_a_mixed_column_are_exported_without_quotes(tmp_path: Path) -> None:
    values = ["02134", 10001, 'O\'Hare "T1"', 2.5, True, "=1+1", [1, "x"], {"a": "b"}, None, Decimal128("1.10")]
    summary = with_table(of(*values))
    texts = ["02134", "10001", 'O\'Hare "T1"', "2.5", "true", "'=1+1", '[1,"x"]', '{"a":"b"}', "", "1.10"]
    assert csv_column(file(summary, "csv")) == texts
    cells = excel_column(file(summary, "xlsx"))
    assert cells == ["02134", 10001, 'O\'Hare "T1"', 2.5, True, "=1+1", '[1,"x"]', '{"a":"b"}', None, Decimal("1.1")]
    # A Parquet column has one type: JSON, whose texts keep their quotes.
    stored = parquet_column(file(summary, "parquet"), tmp_path)
    assert [None if each is None else json.loads(each) for each in stored] == [row["v"] for row in rows_of(summary)]


def test_typed_values_of_a_mixed_column_are_cells_of_their_type() -> None:
    oid = ObjectId("65a000000000000000000001")
    day = datetime(2024, 3, 31, 12, tzinfo=UTC)
    values = ["x", day, oid, Binary(UUID_BYTES, 4), Int64(2**60), float("nan"), Code("f"), DatetimeMS(2**62)]
    summary = with_table(of(*values))
    code, far = '{"$code":"f"}', f'{{"$date":{{"$numberLong":"{2**62}"}}}}'
    assert csv_column(file(summary, "csv")) == [
        "x",
        "2024-03-31T12:00:00Z",
        str(oid),
        UUID_TEXT,
        str(2**60),
        "NaN",
        code,
        far,
    ]
    cells = excel_column(file(summary, "xlsx"))
    assert cells == ["x", day, str(oid), UUID_TEXT, str(2**60), "NaN", code, far]


def test_data_that_only_looks_like_a_type_is_kept_as_its_json() -> None:
    typed = [datetime(2020, 1, 1, tzinfo=UTC), ObjectId("0" * 24), 1, Decimal128("1")]
    columns = dict(enumerate(map(str, LITERALS)))
    alone: Document = {name: LITERALS[number] for number, name in columns.items()}
    for more in ([], [dict.fromkeys(columns.values(), each) for each in typed]):
        with built([alone, *more]) as table:
            for number, name in columns.items():
                assert table.column(name).kind is ColumnKind.MIXED
                assert table.values(name)[0] == json.dumps(LITERALS[number], separators=(",", ":"))
    as_json = json.dumps(LITERALS[0], separators=(",", ":"))
    with built(of(LITERALS[0], *typed)) as table:
        assert found(table, Operator.EQ, as_json) == [0]
        assert table.numbers(RowQuery(sort=(("v", False),))) == [3, 4, 0, 2, 1]


def test_files_of_such_data_are_complete(tmp_path: Path) -> None:
    summary = with_table(of(*LITERALS, datetime(2020, 1, 1, tzinfo=UTC)))
    texts = [json.dumps(each, separators=(",", ":")) for each in LITERALS]
    assert csv_column(file(summary, "csv")) == [*texts, "2020-01-01T00:00:00Z"]
    assert excel_column(file(summary, "xlsx"))[:-1] == texts
    assert parquet_column(file(summary, "parquet"), tmp_path)[:-1] == texts


def test_data_in_another_form_of_a_date_keeps_its_instant() -> None:
    dates: list[Document] = [
        {"$date": "2020-01-01T00:00:00Z"},
        {"$date": 1577836800000},
        {"$date": "2020-01-01T10:00:00+02:00"},
        {"$date": "2020-01-01T10:00:00.250-0130"},
        {"$date": {"$numberLong": "-1"}},
    ]
    texts = ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2020-01-01T08:00:00Z", "2020-01-01T11:30:00.250Z"]
    texts.append("1969-12-31T23:59:59.999Z")
    summary = with_table(of(*dates))
    assert csv_column(file(summary, "csv")) == texts
    assert [extended_values.plain_value(each) for each in dates] == texts
    mixed = with_table(of("x", *dates))
    assert csv_column(file(mixed, "csv")) == ["x", *texts]


def test_python_and_the_table_agree_about_every_literal() -> None:
    typed: list[Document] = [
        {"$oid": "0" * 24},
        {"$uuid": UUID_TEXT},
        {"$binary": {"base64": "EjRWeBI0VngSNFZ4EjRWeA==", "subType": "04"}},
        {"$binary": {"base64": "EjRWeBI0VngSNFZ4EjRWeA==", "subType": "03"}},
        {"$numberDecimal": "1.10"},
        {"$numberDouble": "Infinity"},
        {"$numberLong": "5"},
        {"$symbol": "s"},
    ]
    plain = ["0" * 24, UUID_TEXT, UUID_TEXT, UUID_BYTES.hex(), "1.10", "Infinity", "5", "s"]
    assert [extended_values.plain_value(each) for each in typed] == plain
    assert [each for each in LITERALS if extended_values.is_typed(each)] == []
    assert csv_column(file(with_table(of("x", *typed)), "csv")) == ["x", *plain]


@pytest.mark.parametrize(("subtype", "text"), [(4, UUID_TEXT), (3, UUID_BYTES.hex())])
def test_uuids_are_ids(subtype: int, text: str) -> None:
    summary = with_table(of(Binary(UUID_BYTES, subtype), ObjectId("0" * 24)))
    assert csv_column(file(summary, "csv")) == [text, "0" * 24]
    assert excel_column(file(summary, "xlsx")) == [text, "0" * 24]
    # Results of older versions contain UUIDs as any other binary value.
    old = {"$binary": {"base64": "EjRWeBI0VngSNFZ4EjRWeA==", "subType": f"0{subtype}"}}
    with built(of(old, Binary(UUID_BYTES, subtype))) as table:
        assert table.column("v").kind is ColumnKind.ID
        assert table.values("v") == [text, text]
        assert found(table, Operator.EQ, text) == [0, 1]


def test_code_with_a_scope_is_one_value() -> None:
    with built(of(Code("f", {"a": 5}), Code("g"))) as table:
        assert table.names == ["_id", "v"]
        assert [json.loads(each) for each in table.values("v")] == [{"$code": "f", "$scope": {"a": 5}}, {"$code": "g"}]


def test_random_mixed_columns_can_be_filtered_like_in_python() -> None:
    chance = random.Random(5)
    values: list[Any] = [
        chance.choice([chance.randrange(-9, 9), chance.uniform(-9, 9), chance.choice("abc")]) for _ in range(200)
    ]
    with built(of(*values)) as table:
        for limit in ("-3", "0", "2.5"):
            expected = [
                n for n, each in enumerate(values) if not isinstance(each, str) and Decimal(each) > Decimal(limit)
            ]
            assert found(table, Operator.GT, limit) == expected

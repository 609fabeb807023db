"""Scans of unusual documents and collections, and across deployments."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import duckdb
import pymongo
import pytest
from bson import Binary, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from tests.mongodb import mongod, variables
from tests.worker_tasks.joins.scan.conftest import Rows
from tests.worker_tasks.joins.scan.running import form, scanned, stored_form
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.settings import settings
from worker_tasks.joins.spec.spec import parse

ON = [{"local": "_id", "foreign": "_id"}]
ALL_TYPES: Document = {
    "_id": 1,
    "double": 1.5,
    "infinite": [float("inf"), float("-inf"), float("nan"), Decimal128("NaN"), Decimal128("-Infinity")],
    "text": "quo\"te's, \\ \x00 \x1f ü 😀",
    "document": {"": 1, "a\"b'c": {"ü": []}},
    "list": [[], {}, [[1]], None],
    "binary": [b"", Binary(b"x", 2), Binary(bytes(16), 3), Binary(bytes(16), 4), Binary(b"y", 128)],
    "id": ObjectId("65a000000000000000000001"),
    "bool": [True, False],
    "date": [datetime(1950, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)],
    "null": None,
    "regex": Regex("a/b", "im"),
    "ints": [0, -1, 2**31, Int64(5), 2**63 - 1],
    "timestamp": Timestamp(1, 2),
    "decimal": Decimal128("1.10"),
    "ends": [MinKey(), MaxKey()],
    "reference": DBRef("users", 5, "shop"),
}


@pytest.mark.parametrize("shape", ["array", "rows", "first"])
def test_every_type_goes_through(shape: str, scans: Database[Document], scan_rows: Rows) -> None:
    scans.all.insert_one(dict(ALL_TYPES))
    (row,) = scan_rows("all", {"from": "all", "as": "f\"'ü", "on": ON, "shape": shape})
    match = bson.decode(bson.encode(ALL_TYPES))
    assert form(row) == stored_form({**match, "f\"'ü": [match] if shape == "array" else match})


def test_empty_and_wide_documents(scans: Database[Document], scan_rows: Rows) -> None:
    wide = {"_id": 1} | {f"field {number}": number for number in range(5_000)}
    scans.wide.insert_many([wide, {"_id": 2}])
    scans.command("create", "empty", viewOn="wide", pipeline=[{"$match": {"_id": 2}}, {"$project": {"_id": 0}}])
    first, second = scan_rows("wide", {"from": "wide", "as": "match", "on": ON, "shape": "first"}, sort=[["_id", 1]])
    assert first == wide | {"match": wide}
    assert second == {"_id": 2, "match": {"_id": 2}}
    assert scan_rows("empty") == [{}]
    assert scan_rows("empty", {"from": "empty", "as": "match", "on": ON}) == [{"match": []}]


def test_texts_that_are_not_utf_8_become_replacement_characters(scans: Database[Document], scan_rows: Rows) -> None:
    encoded = bson.encode({"_id": 1, "text": "a??b"}).replace(b"a??b", b"a\xff\xfeb")
    scans.broken.insert_one(RawBSONDocument(encoded))
    (row,) = scan_rows("broken", {"from": "broken", "as": "match", "on": [{"local": "text", "foreign": "text"}]})
    broken = {"_id": 1, "text": "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"}
    assert row == {**broken, "match": [broken]}


def test_a_time_series_on_either_side(scans: Database[Document], scan_rows: Rows) -> None:
    scans.create_collection("measured", timeseries={"timeField": "at", "metaField": "sensor"})
    at = datetime(2024, 1, 1, tzinfo=UTC)
    scans.measured.insert_many([{"_id": number, "at": at, "sensor": number % 3} for number in range(6)])
    scans.sensors.insert_many([{"_id": 0}, {"_id": 1}, {"_id": 7}])
    join: Document = {"from": "sensors", "as": "found", "on": [{"local": "sensor", "foreign": "_id"}]}
    rows = scan_rows("measured", join, fields=["_id", "found"], sort=[["_id", 1]])
    assert [len(row["found"]) for row in rows] == [1, 1, 0, 1, 1, 0]
    back = {"from": "measured", "as": "n", "on": [{"local": "_id", "foreign": "sensor"}], "shape": "count"}
    assert [row["n"] for row in scan_rows("sensors", back, sort=[["_id", 1]])] == [2, 2, 0]


def test_two_deployments(servers: None, duck: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    uri = settings().mongodb_uri
    with mongod(tmp_path) as server:
        other_uri = f"mongodb://127.0.0.1:{server.port}/?directConnection=true"
        with pymongo.MongoClient[Document](other_uri) as client:
            client.crm.accounts.insert_many([{"_id": number, "name": f"n{number}"} for number in range(3)])
        with variables(MONGODB_URI=uri, SOURCE_CRM_URI=other_uri, SOURCE_CRM_DATABASES="crm"):
            connections().joins.scans.orders.insert_many([{"_id": 1, "account": 2}, {"_id": 2, "account": 9}])
            accounts: Any = {"source": "crm", "database": "crm", "collection": "accounts"}
            join = {"from": accounts, "as": "account", "on": [{"local": "account", "foreign": "_id"}], "shape": "first"}
            spec = parse({"database": "scans", "from": "orders", "joins": [join], "sort": [["_id", 1]]})
            rows, _ = scanned(spec, duck)
            assert rows == [{"_id": 1, "account": {"_id": 2, "name": "n2"}}, {"_id": 2}]
            back = {"from": {"source": None, "database": "scans", "collection": "orders"}, "as": "n", "shape": "count"}
            on = [{"local": "_id", "foreign": "account"}]
            spec = parse({"from": accounts, "joins": [back | {"on": on}], "sort": [["_id", 1]]} | {"database": "crm"})
            assert [row["n"] for row in scanned(spec, duck)[0]] == [0, 0, 1]
            connections().joins.drop_database("scans")

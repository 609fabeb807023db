"""A whole result as a file: as JSON, a document a line, and as CSV."""

import csv
import io
import json
import re
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from flask.testing import FlaskClient

from tests.support import publish
from tests.webapp.test_api_v1 import finished_with
from tests.worker_tasks.support import new_id
from worker_tasks.connections import Document, connections
from worker_tasks.results import CHUNK_BYTES, ResultGone

OID = ObjectId("65a000000000000000000001")


def download(client: FlaskClient, task_id: str, extension: str) -> bytes:
    answer = client.get(f"/api/v1/tasks/{task_id}/result.{extension}")
    assert answer.status_code == 200
    assert re.fullmatch(rf'attachment; filename="[\w.-]+\.{extension}"', answer.headers["Content-Disposition"])
    return answer.data


csv.field_size_limit(CHUNK_BYTES)


def table(client: FlaskClient, task_id: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(download(client, task_id, "csv").decode(), newline="")))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_each_file_holds_what_the_key_holds(client: FlaskClient, servers: None, count: int, parts: int) -> None:
    task_id = finished_with([{"_id": number, "text": 'a,\n"' * (number % 3)} for number in range(count)], parts)
    value: Any = connections().results.get(f"join_result:{task_id}")
    rows = json.loads(value)
    assert download(client, task_id, "json") == value
    assert [json.loads(line) for line in download(client, task_id, "ndjson").splitlines()] == rows
    header, *lines = table(client, task_id) or [[]]
    assert header == (["_id", "text"] if count else [])
    assert [{"_id": int(line[0]), "text": line[1]} for line in lines] == rows


def test_files_larger_than_what_is_read_at_once_arrive_whole(client: FlaskClient, servers: None) -> None:
    rows = [{"_id": number, "text": "ü" * (CHUNK_BYTES // 3)} for number in range(12)]
    task_id = finished_with(rows)
    assert json.loads(download(client, task_id, "json")) == rows
    assert [json.loads(line) for line in download(client, task_id, "ndjson").splitlines()] == rows
    assert [line[1] for line in table(client, task_id)[1:]] == [row["text"] for row in rows]


def test_a_table_has_the_fields_of_all_rows_under_dotted_names(client: FlaskClient, servers: None) -> None:
    rows: list[Document] = [
        {"a": {"b": 1, "c": {"d": "x"}}},
        {"list": [1, {"e": 2.50}]},
        {"a": {"z": None, "y": {}}, "last": True},
    ]
    assert table(client, finished_with(rows)) == [
        ["a.b", "a.c.d", "list", "a.z", "a.y", "last"],
        ["1", "x", "", "", "", ""],
        ["", "", '[1,{"e":2.5}]', "", "", ""],
        ["", "", "", "", "{}", "true"],
    ]


def test_values_of_mongodb_are_their_plain_text(client: FlaskClient, servers: None) -> None:
    row = {"id": OID, "amount": Decimal128("12.30"), "long": Int64(2**60), "float": 0.1, "many": [OID]}
    assert table(client, finished_with([row])) == [
        ["id", "amount", "long", "float", "many"],
        [str(OID), "12.30", str(2**60), "0.1", f'[{{"$oid":"{OID}"}}]'],
    ]


@pytest.mark.parametrize(
    ("stored", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49 40 123", "'+49 40 123"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("a=1", "a=1"),
        (-5, "-5"),
        (-1.5e-7, "-1.5e-7"),
        ("-5", "-5"),
    ],
)
def test_what_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers(
    client: FlaskClient, servers: None, stored: Any, cell: str
) -> None:
    assert table(client, finished_with([{"value": stored}]))[1] == [cell]


def test_a_header_that_a_spreadsheet_would_run_is_text(client: FlaskClient, servers: None) -> None:
    assert table(client, finished_with([{"=cmd()": 1}]))[0] == ["'=cmd()"]


@pytest.mark.parametrize("extension", ["json", "ndjson", "csv"])
def test_a_download_breaks_off_where_its_result_is_replaced(client: FlaskClient, servers: None, extension: str) -> None:
    rows = [{"_id": number, "text": "x" * CHUNK_BYTES} for number in range(6)]
    task_id = finished_with(rows)
    answer = client.get(f"/api/v1/tasks/{task_id}/result.{extension}", buffered=False)
    chunks = answer.iter_encoded()
    next(iter(chunks))
    publish([{"_id": "other", "text": "y" * CHUNK_BYTES}] * 6, f"join_result:{task_id}", new_id(), 60)
    with pytest.raises(ResultGone):
        list(chunks)

"""Results are downloaded as files with their provenance, either streamed at once or made by a worker."""

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import threading
import time
import zipfile
from typing import Any

import duckdb
import pytest
from bson import Decimal128, Int64, ObjectId
from flask.testing import FlaskClient

from tests.support import Process, publish
from tests.webapp.api.test_v1 import assert_problem, finished_with
from tests.worker_tasks.support import new_id
from webapp.api import requirements
from webapp.results import streaming
from worker_tasks.infra.connections import Document, connections
from worker_tasks.queue import celery_app
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import CHUNK_BYTES, ResultGone

OID = ObjectId("65a000000000000000000001")
csv.field_size_limit(CHUNK_BYTES)


def download(client: FlaskClient, task_id: str, extension: str, **asked: Any) -> bytes:
    answer = client.get(f"/api/v1/tasks/{task_id}/result.{extension}", query_string=asked)
    assert answer.status_code == 200, answer.text
    assert re.fullmatch(rf'attachment; filename="[\w.-]+\.{extension}"', answer.headers["Content-Disposition"])
    assert answer.content_length == len(answer.data)
    return answer.data


def table(client: FlaskClient, task_id: str, **asked: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(download(client, task_id, "csv", **asked).decode(), newline="")))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_each_file_has_the_rows_of_the_redis_key(client: FlaskClient, worker: Process, count: int, parts: int) -> None:
    task_id = finished_with([{"_id": number, "text": 'a,\n"' * (number % 3)} for number in range(count)], parts)
    value: Any = connections().results.get(f"join_result:{task_id}")
    rows = json.loads(value)
    assert download(client, task_id, "json") == value
    assert [json.loads(line) for line in download(client, task_id, "ndjson").splitlines()] == rows
    header, *lines = table(client, task_id) or [[]]
    assert header == (["_id", "text"] if count else [])
    assert [{"_id": int(line[0]), "text": line[1]} for line in lines] == rows


def test_files_larger_than_a_chunk_arrive_whole(client: FlaskClient, worker: Process) -> None:
    rows = [{"_id": number, "text": "ü" * (CHUNK_BYTES // 3)} for number in range(12)]
    task_id = finished_with(rows)
    assert json.loads(download(client, task_id, "json")) == rows
    assert [json.loads(line) for line in download(client, task_id, "ndjson").splitlines()] == rows
    assert [line[1] for line in table(client, task_id)[1:]] == [row["text"] for row in rows]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_rows_become_lines_wherever_a_chunk_ends(
    client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    rows = [{"_id": number, "text": ",\n]" * (number % 3)} for number in range(20)]
    task_id = finished_with(rows)
    monkeypatch.setattr(result_store, "CHUNK_BYTES", chunk)
    assert [json.loads(line) for line in download(client, task_id, "ndjson").splitlines()] == rows


def test_a_table_has_the_fields_of_all_rows_under_dotted_names(client: FlaskClient, worker: Process) -> None:
    rows: list[Document] = [
        {"a": {"b": 1, "c": {"d": "x"}}},
        {"list": [1, {"e": 2.50}]},
        {"a": {"z": None, "y": {}}, "last": True},
    ]
    assert table(client, finished_with(rows)) == [
        ["a.b", "a.c.d", "a.z", "a.y", "list", "last"],
        ["1", "x", "", "", "", ""],
        ["", "", "", "", '[1,{"e":2.5}]', ""],
        ["", "", "", "{}", "", "true"],
    ]


def test_mongodb_values_are_exported_as_plain_text(client: FlaskClient, worker: Process) -> None:
    row = {"id": OID, "amount": Decimal128("12.30"), "long": Int64(2**60), "float": 0.1, "many": [OID]}
    assert table(client, finished_with([row])) == [
        ["id", "amount", "long", "float", "many"],
        [str(OID), "12.30", str(2**60), "0.1", f'[{{"$oid":"{OID}"}}]'],
    ]


def test_formulas_become_text_and_numbers_stay_numbers(client: FlaskClient, worker: Process) -> None:
    cells = {"=1+1": "'=1+1", "+49 40": "'+49 40", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "a=1": "a=1", "-5": "-5"}
    rows = [{"=cmd()": stored, "number": -1.5e-7} for stored in cells]
    header, *lines = table(client, finished_with(rows))
    assert header == ["'=cmd()", "number"]
    assert lines == [[cell, "-1.5e-7"] for cell in cells.values()]


@pytest.mark.parametrize("extension", ["json", "ndjson"])
def test_a_download_breaks_off_if_its_result_is_replaced(client: FlaskClient, servers: None, extension: str) -> None:
    task_id = finished_with([{"_id": number, "text": "x" * CHUNK_BYTES} for number in range(6)])
    answer = client.get(f"/api/v1/tasks/{task_id}/result.{extension}", buffered=False)
    chunks = answer.iter_encoded()
    next(iter(chunks))
    publish([{"_id": "other", "text": "y" * CHUNK_BYTES}] * 6, f"join_result:{task_id}", new_id(), 60)
    with pytest.raises(ResultGone):
        list(chunks)


@pytest.fixture
def people(worker: Process) -> str:
    """The id of a task that joined four people, with a column to hide."""
    names = ["Ada", "Grace", "Edsger", "Barbara"]
    rows = [{"_id": n, "name": name, "secret": f"s{n}", "born": {"year": 1900 + n}} for n, name in enumerate(names)]
    return finished_with(rows)


def test_a_file_has_only_the_selected_columns_in_their_order(client: FlaskClient, people: str) -> None:
    asked = {"columns": ["born.year", "name"], "sort": "-name", "where": "name", "is": "ne", "value": "Ada"}
    expected = [(1901, "Grace"), (1902, "Edsger"), (1903, "Barbara")]
    assert table(client, people, **asked) == [["born.year", "name"], *([str(year), name] for year, name in expected)]
    documents = [{"born": {"year": year}, "name": name} for year, name in expected]
    assert json.loads(download(client, people, "json", **asked)) == documents
    lines = download(client, people, "ndjson", **asked).splitlines()
    assert [json.loads(line) for line in lines] == documents
    for form in FORMATS:
        file = download(client, people, form, **asked)
        if form == "xlsx":
            with zipfile.ZipFile(io.BytesIO(file)) as book:
                file = b"".join(map(book.read, book.namelist()))
            assert b"Grace" in file
        assert b"secret" not in file


def test_a_parquet_file_is_read_with_its_types_and_its_provenance(
    client: FlaskClient, people: str, tmp_path: Any
) -> None:
    file = tmp_path / "people.parquet"
    file.write_bytes(download(client, people, "parquet"))
    described = duckdb.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()  # noqa: S608 - a file of this test
    assert [column[:2] for column in described] == [
        ("_id", "BIGINT"), ("name", "VARCHAR"), ("secret", "VARCHAR"), ("born.year", "BIGINT")
    ]  # fmt: skip
    ((card,),) = duckdb.execute(f"SELECT value FROM parquet_kv_metadata('{file}') WHERE key = 'provenance'").fetchall()  # noqa: S608
    assert json.loads(card)["task_id"] == people


def test_gzip_is_sent_only_to_clients_that_accept_it(client: FlaskClient, people: str) -> None:
    plain = download(client, people, "csv")
    packed = client.get(f"/api/v1/tasks/{people}/result.csv", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content_length == len(packed.data)
    assert gzip.decompress(packed.data) == plain


def test_each_file_links_to_its_provenance(client: FlaskClient, people: str) -> None:
    value: Any = connections().results.get(f"join_result:{people}")
    for form in FORMATS:
        link = client.get(f"/api/v1/tasks/{people}/result.{form}").headers["Link"]
        card = client.get(link.partition(">")[0].removeprefix("<")).get_json()
        assert card["result"]["sha256"] == hashlib.sha256(value).hexdigest()
        assert (card["result"]["rows"], card["task_id"]) == (4, people)
    digest = client.get(f"/api/v1/tasks/{people}/result.json").headers["Repr-Digest"]
    assert digest == f"sha-256=:{base64.b64encode(hashlib.sha256(value).digest()).decode()}:"


def test_the_provenance_is_embedded_in_plain_files_on_request(client: FlaskClient, people: str) -> None:
    whole = json.loads(download(client, people, "json", inside="yes"))
    assert (whole["provenance"]["task_id"], len(whole["rows"])) == (people, 4)
    first, *lines = download(client, people, "ndjson", inside="yes").splitlines()
    assert (json.loads(first)["provenance"]["task_id"], len(lines)) == (people, 4)
    text = download(client, people, "csv", inside="yes").decode()
    commented = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    assert json.loads("".join(commented))["task_id"] == people
    assert len(text.splitlines()) == len(commented) + 1 + 4


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"columns": "nobody"}, "columns"),
        ({"sort": "nobody"}, "sort"),
        ({"where": "nobody", "is": "eq", "value": "1"}, "where"),
        ({"where": "_id", "is": "eq", "value": "one"}, "value"),
        ({"where": "_id", "is": "like", "value": "1"}, "is"),
        ({"where": "_id", "is": "eq"}, "where"),
        ({"q": "x" * 301}, "q"),
    ],
)
def test_a_selection_that_does_not_fit_the_result_is_refused(
    client: FlaskClient, people: str, asked: dict[str, str], field: str
) -> None:
    for address in ("result.csv", "result.json", "result", "provenance"):
        if address == "result" and "columns" in asked:
            continue
        problem = assert_problem(client.get(f"/api/v1/tasks/{people}/{address}", query_string=asked), 422)
        assert [error["field"] for error in problem["errors"]] == [field]


def test_a_slow_file_is_answered_with_retry_after(
    client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "FILE_SECONDS", 0)
    answer = client.get(f"/api/v1/tasks/{finished_with([{'_id': 1}])}/result.csv")
    assert_problem(answer, 503)
    assert answer.headers["Retry-After"] == "5"


def test_waiting_requests_leave_threads_for_pages(
    client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "_waiting", threading.BoundedSemaphore(1))
    monkeypatch.setattr(celery_app.app, "publish_artifact", lambda *_: None)
    address = f"/api/v1/tasks/{finished_with([{'_id': 1}])}/profile"
    assert requirements._waiting.acquire(blocking=False)
    began = time.monotonic()
    assert_problem(client.get(address), 503)
    assert time.monotonic() - began < requirements.FILE_SECONDS / 2
    requirements._waiting.release()


def test_downloads_leave_threads_for_pages(client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_slots", threading.BoundedSemaphore(1))
    address = f"/api/v1/tasks/{finished_with([{'_id': 1}])}/result.json"
    first = client.get(address, buffered=False)
    assert_problem(client.get(address), 503)
    first.close()
    assert client.get(address).status_code == 200


def test_the_api_returns_filtered_and_sorted_rows(client: FlaskClient, people: str) -> None:
    asked = {"sort": "name", "where": "_id", "is": "gte", "value": "1", "offset": 1, "limit": 5}
    found = client.get(f"/api/v1/tasks/{people}/result", query_string=asked).get_json()
    assert (found["count"], found["offset"]) == (3, 1)
    assert [row["name"] for row in found["rows"]] == ["Edsger", "Grace"]


def test_the_api_returns_the_profile_of_the_columns(client: FlaskClient, people: str) -> None:
    found = client.get(f"/api/v1/tasks/{people}/profile").get_json()
    assert [(each["name"], each["kind"], each["filled"], each["distinct"]) for each in found["columns"]] == [
        ("_id", "integer", 4, 4), ("name", "text", 4, 4), ("secret", "text", 4, 4), ("born.year", "integer", 4, 4)
    ]  # fmt: skip

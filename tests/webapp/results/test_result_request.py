"""Rows are filtered and sorted, columns are described, and files are prepared."""

import re
import signal
from html import unescape
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, eventually
from tests.webapp.api.test_v1 import finished_with
from webapp.results import result_request
from worker_tasks import submission
from worker_tasks.analysis import artifacts
from worker_tasks.infra.connections import connections
from worker_tasks.queue import celery_app
from worker_tasks.results import result_store
from worker_tasks.tasks import long_running_task

CITIES = ["Oslo", "Lima", None, "Accra"]


@pytest.fixture
def people(worker: Process, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a task that joined 120 people. For 30 of them the city is null, for one it is missing."""
    # Pages wait for the worker even on a busy machine.
    monkeypatch.setattr(result_request, "WAIT_SECONDS", 20)
    rows: list[dict[str, Any]] = [
        {"_id": number, "name": f"P{number:03}", "age": number % 40, "home": {"city": CITIES[number % 4]}}
        for number in range(120)
    ]
    del rows[5]["home"]
    return finished_with(rows)


def shown(client: FlaskClient, task_id: str, **asked: Any) -> tuple[str, list[int]]:
    """The page, and the numbers of its rows, counted from 1."""
    page = client.get(f"/tasks/{task_id}/result", query_string=asked).text
    return page, [int(number) for number in re.findall(r'<tr id="row-(\d+)"', page)]


def test_rows_are_sorted_in_both_directions_and_by_several_columns(client: FlaskClient, people: str) -> None:
    by_age = sorted(range(120), key=lambda number: (number % 40, number))
    assert shown(client, people, sort="age")[1] == [number + 1 for number in by_age[:50]]
    down = sorted(range(120), key=lambda number: (-(number % 40), -number))
    assert shown(client, people, sort=["-age", "-name"], page=2)[1] == [number + 1 for number in down[50:100]]


def test_rows_are_found_by_text_and_by_conditions(client: FlaskClient, people: str) -> None:
    page, numbers = shown(
        client, people, q="osl", where=["age", "name"], **{"is": ["gte", "ne"], "value": ["20", "P020"]}
    )
    expected = [n + 1 for n in range(120) if CITIES[n % 4] == "Oslo" and n % 40 >= 20 and n != 20]
    assert numbers == expected
    assert f"{len(expected)} of 120 rows" in page


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("null", [n for n in range(120) if n % 4 == 2]),
        ("missing", [5]),
        ("there", [n for n in range(120) if n % 4 != 2 and n != 5]),
    ],
)
def test_null_differs_from_missing(client: FlaskClient, people: str, operator: str, expected: list[int]) -> None:
    asked = {"where": "home.city", "is": operator, "value": ""}
    page, numbers = shown(client, people, **asked)
    assert numbers == [n + 1 for n in expected[:50]]
    assert f"{len(expected)} of 120 rows" in page


def test_the_selection_stays_in_the_form_and_in_the_links(client: FlaskClient, people: str) -> None:
    asked = {"columns": ["name", "age"], "sort": "-age", "q": "p", "where": "age", "is": "lt", "value": "39"}
    page, _ = shown(client, people, **asked)
    following = re.search(r'rel="next" href="([^"]+)"', page)
    assert following
    second = client.get(unescape(following[1])).text
    for seen in (page, second):
        assert re.search(r'<input id="value-1" name="value" value="39"', seen)
        assert re.search(r'<option value="-age" selected>', seen)
        assert 'aria-sort="descending"' in seen
        assert re.findall(r'<td data-label="([^"]+)"', seen)[:2] == ["name", "age"]


def test_a_value_of_the_wrong_type_is_reported_in_the_form(client: FlaskClient, people: str) -> None:
    answer = client.get(f"/tasks/{people}/result?where=age&is=eq&value=old")
    assert answer.status_code == 422
    assert "Value of age: “old” is not a number." in answer.text
    assert 'value="old"' in answer.text


def test_columns_are_moved(client: FlaskClient, people: str) -> None:
    page, _ = shown(client, people, columns=["name", "age", "_id"])
    assert 'aria-label="Show age further to the right"' in page
    asked = {"columns": ["name", "age", "_id"], "move": "right age", "sort": "name"}
    moved = client.get(f"/tasks/{people}/result", query_string=asked)
    assert moved.status_code == 303
    page = client.get(moved.headers["Location"]).text
    assert re.search(r'value="right age"[^>]*autofocus', page) is None  # the column is now the last one
    assert re.search(r'<details class="part columns" open', page)
    assert 'aria-sort="ascending"' in page
    assert re.findall(r'<td data-label="([^"]+)"', page)[:3] == ["name", "_id", "age"]


def test_a_row_number_links_to_the_row_among_all_rows(client: FlaskClient, people: str) -> None:
    page, (first, *_) = shown(client, people, sort="-name", columns="name")
    link = re.search(rf'<a href="([^"]*row={first}&[^"]*)"', page)
    assert link
    place = client.get(unescape(link[1]))
    assert place.headers["Location"] == f"/tasks/{people}/result?page=3&columns=name#row-{first}"


def test_each_column_is_described_by_figures_and_sentences(client: FlaskClient, people: str) -> None:
    page = re.sub(r"\s+", " ", client.get(f"/tasks/{people}/result/columns").text)
    assert "74 % filled, 30 null, 1 missing" in page
    assert "From 0 to 39; half of them up to 19; the fullest of 10 equal ranges is 0 to 3 with 10 %." in page
    assert page.count('role="img"') == 2
    for text in ("text, all different", "whole numbers, 40 values", "text, 3 values"):
        assert text in page
    only = re.search(r'<a href="([^"]+)">Lima</a>', page)
    assert only
    assert "29 of 120 rows" in client.get(unescape(only[1])).text


def test_a_result_is_readable_without_a_worker(
    client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_request, "WAIT_SECONDS", 0)
    monkeypatch.setattr(celery_app.app, "publish_artifact", lambda *_: None)
    task_id = finished_with([{"_id": number} for number in range(60)])
    page, numbers = shown(client, task_id)
    assert numbers == list(range(1, 51))
    assert 'hx-trigger="every 1s' in page
    assert '<meta http-equiv="refresh"' in page
    poll = client.get(f"/tasks/{task_id}/result", headers={"HX-Request": "true"})
    assert (poll.status_code, poll.data) == (204, b"")
    summary = result_store.find_result(f"join_result:{task_id}")
    assert summary
    assert result_store.discard(summary)
    assert client.get(f"/tasks/{task_id}/result", headers={"HX-Request": "true"}).headers["HX-Refresh"] == "true"


def test_artifacts_expire_and_vanish_with_their_result(client: FlaskClient, people: str) -> None:
    shown(client, people, sort="age")
    summary = result_store.find_result(f"join_result:{people}")
    assert summary
    made = set(connections().results.scan_iter(f"derived:{summary.run}:*"))
    assert len(made) >= 5
    kept = result_store.keep(summary, summary.published_at.replace(year=summary.published_at.year + 1))
    assert kept
    assert all(int(connections().results.ttl(key)) > 300 for key in made)
    assert result_store.discard(kept)
    assert list(connections().results.scan_iter(f"derived*{summary.run}*")) == []


@pytest.mark.parametrize("lost", ["order.*:numbers", "table:offsets", "table:profile"])
def test_an_evicted_artifact_is_made_again(client: FlaskClient, people: str, lost: str) -> None:
    asked = {"sort": "-name", "page": 1}
    _, before = shown(client, people, **asked)
    summary = result_store.find_result(f"join_result:{people}")
    assert summary
    (key,) = connections().results.scan_iter(f"derived:{summary.run}:{lost}")
    connections().results.delete(key)
    eventually(lambda: shown(client, people, **asked)[1] == before)


def test_a_file_is_prepared_on_request_and_its_size_shown(client: FlaskClient, people: str) -> None:
    address = f"/tasks/{people}/result/files"
    page = client.get(f"{address}?columns=name&columns=age").text
    assert "with name, age alone" in page
    assert "Download JSON," not in page
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    form = {"csrf_token": token[1], "format": "xlsx", "columns": ["name", "age"]}
    made = client.post(address, data=form)
    assert made.status_code == 303
    assert made.headers["Location"] == f"{address}?make=xlsx&columns=name&columns=age"
    eventually(lambda: "Download Excel," in client.get(made.headers["Location"]).text)
    page = client.get(made.headers["Location"]).text
    file = re.search(r'href="([^"]+\.xlsx[^"]*)" download>Download Excel, ([\d.]+ \w+)<', page)
    assert file
    assert file[2] == f"{len(client.get(unescape(file[1])).data) / 1024:.1f} KiB"


def test_a_whole_result_is_offered_as_json_at_once(client: FlaskClient, people: str) -> None:
    page = client.get(f"/tasks/{people}/result/files").text
    for name, form in (("JSON", "json"), ("JSON lines", "ndjson")):
        size = len(client.get(f"/api/v1/tasks/{people}/result.{form}").data)
        assert f"Download {name}, {size / 1024:.1f} KiB" in page


def test_reading_does_not_wait_behind_queued_joins(worker: Process) -> None:
    task_id = finished_with([{"_id": 1}])
    summary = result_store.find_result(f"join_result:{task_id}")
    assert summary
    worker.signal_group(signal.SIGSTOP)
    try:
        before = [long_running_task.delay("x").id for _ in range(40)]
        artifacts.request_artifact(summary, artifacts.TABLE)
    finally:
        worker.signal_group(signal.SIGCONT)
    assert artifacts.await_artifact(summary, artifacts.TABLE, 20).is_done
    waiting = connections().tasks.count_documents({"_id": {"$in": before}, "status": states.PENDING})
    for number in before:
        submission.cancel(number)
    # Drain the queue, so that other tests do not wait.
    eventually(lambda: not connections().queue.llen("celery"), within=30)
    assert waiting > 20

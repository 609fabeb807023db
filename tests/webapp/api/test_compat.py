"""The endpoints of the original tutorials, POST /create-task and GET /task/<id>."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, wait_for_state
from worker_tasks.queue.celery_app import app as celery_app
from worker_tasks.records import ledger

Traces = Callable[[], tuple[int, int]]


def test_a_task_is_created_followed_and_listed_with_its_metadata(client: FlaskClient, worker: Process) -> None:
    body = {"task_input": "test task", "metadata_1": "important info", "metadata_2": "more info"}
    created = client.post("/create-task", json=body)
    assert created.status_code == 200
    task_id = created.get_json()
    assert isinstance(task_id, str)

    assert client.get(f"/task/{task_id}").get_json()["status"] in {"QUEUED", "STARTED"}
    wait_for_state(task_id, states.SUCCESS)
    assert client.get(f"/task/{task_id}").get_json() == {"status": "SUCCESS", "result": "Processed: test task"}
    listed = next(task for task in client.get("/tasks").get_json() if task["_id"] == task_id)
    assert listed["metadata"] == {"metadata_1": "important info", "metadata_2": "more info"}
    assert listed["status"] == "SUCCESS"


def test_a_waiting_task_is_shown_as_queued(client: FlaskClient, waiting_task: str) -> None:
    assert client.get(f"/task/{waiting_task}").get_json() == {"status": "QUEUED", "result": None}


def test_a_failed_task_is_answered_with_its_error_and_status_200(client: FlaskClient, worker: Process) -> None:
    task_id = celery_app.send_task("worker_tasks.tasks.join_users_orders", [{"$ne": None}]).id
    wait_for_state(task_id, states.FAILURE)
    answer = client.get(f"/task/{task_id}")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "status": "FAILURE",
        "result": {"type": "InvalidInput", "message": "user_id: must be text."},
    }


def test_an_unknown_task_is_404(client: FlaskClient, servers: None) -> None:
    answer = client.get("/task/00000000-0000-0000-0000-000000000000")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "task_input"),
        ({"task_input": ""}, "task_input"),
        ({"task_input": {"$gt": ""}}, "task_input"),
        ({"task_input": "x" * 1001}, "task_input"),
        ({"task_input": "x", "a.b": 1}, "metadata.a.b"),
        ({"task_input": "x", "$where": "1"}, "metadata.$where"),
        ({"task_input": "x", "nul\0": 1}, "metadata.nul\0"),
        ({"task_input": "x", "deep": {"er": [{"$": 1}]}}, "metadata.deep.er.0.$"),
        ({"task_input": "x", "number": 2**64}, "metadata"),
        ({"task_input": "x", **{f"key_{number}": 1 for number in range(51)}}, "metadata"),
        ({"task_input": "x", "long": "y" * 16 * 1024}, "metadata"),
    ],
)
def test_invalid_input_is_refused_by_name_and_leaves_no_trace(
    client: FlaskClient, servers: None, traces: Traces, body: dict[str, Any], field: str
) -> None:
    before = traces()
    answer = client.post("/create-task", json=body)
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    assert traces() == before


@pytest.mark.parametrize(
    ("body", "content_type", "field"),
    [
        (b'{"task_input": ', "application/json", "body"),
        (b"", "application/json", "body"),
        (b"\xff", "application/json", "body"),
        (b"[]", "application/json", "body"),
        (b"null", "application/json", "body"),
        (b"[" * 5_000 + b"]" * 5_000, "application/json", "body"),
        (b"task_input=x", "application/x-www-form-urlencoded", "Content-Type"),
        (b'{"task_input": "x"}', "text/plain", "Content-Type"),
    ],
)
def test_a_body_that_is_not_json_is_refused_and_leaves_no_trace(
    client: FlaskClient, servers: None, traces: Traces, body: bytes, content_type: str, field: str
) -> None:
    before = traces()
    answer = client.post("/create-task", data=body, content_type=content_type)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    assert traces() == before


def test_a_request_too_large_to_read_is_413(client: FlaskClient, servers: None) -> None:
    answer = client.post("/create-task", json={"task_input": "x", "long": "y" * 200_000})
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


def test_a_join_is_accepted_with_the_url_to_follow_it(client: FlaskClient, servers: None) -> None:
    answer = client.post("/api/v1/joins/user-orders", json={"user_id": "u1", "metadata": {"reason": "audit"}})
    assert answer.status_code == 202
    task_id = answer.get_json()["task_id"]
    assert answer.headers["Location"] == f"/task/{task_id}"
    assert ledger.find_task(task_id)["metadata"] == {"reason": "audit"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"user_id": {"$ne": None}}, "user_id"),
        ({"user_id": "nul\0"}, "user_id"),
        ({"user_id": "u1", "metadata": "text"}, "metadata"),
        ({"user_id": "u1", "metadata": []}, "metadata"),
        ({"user_id": "u1", "metadata": {"": 1}}, "metadata."),
    ],
)
def test_an_invalid_join_is_refused_by_name_and_leaves_no_trace(
    client: FlaskClient, servers: None, traces: Traces, body: dict[str, Any], field: str
) -> None:
    before = traces()
    answer = client.post("/api/v1/joins/user-orders", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    assert traces() == before

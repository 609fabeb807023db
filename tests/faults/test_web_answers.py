"""The web process answers every request in time and correctly while a server is frozen, which is worse than dead."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.support import eventually, paused, wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.tasks import long_running_task

#: The longest wait for an answer, in seconds.
ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: str
    seconds: float


def ask(request: Request) -> Answer:
    started = time.monotonic()
    try:
        response = urlopen(request, timeout=30)
    except HTTPError as refused:
        response = refused
    with response:
        body = response.read().decode()
        seconds = time.monotonic() - started
        return Answer(response.status or 0, response.headers.get_content_type(), body, seconds)


def get(address: str) -> Answer:
    return ask(Request(address, headers={"Accept": "text/html"}))


def post_json(address: str, body: dict[str, Any], method: str = "POST") -> Answer:
    return ask(Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method))


@pytest.fixture
def waiting_task(submit_practice: Submit, address: str) -> str:
    """The id of a waiting task. The web process has shown it, and therefore holds open connections."""
    task_id = submit_practice("waits")
    for page in (f"/tasks/{task_id}", "/readyz"):
        shown = get(address + page)
        assert shown.status == 200, shown.body
    return task_id


def ask_for_everything(address: str, task_id: str) -> dict[str, Answer]:
    """The answers to every kind of request, sent at once, by the request's name."""
    pages = [
        "/",
        "/user-orders",
        "/practice",
        "/tasks",
        f"/tasks/{task_id}",
        f"/tasks/{task_id}/status",
        "/readyz",
        "/healthz",
    ]
    with ThreadPoolExecutor(len(pages) + 1) as pool:
        posted = pool.submit(post_json, f"{address}/create-task", {"task_input": "met a fault", "reason": "test"})
        answers = dict(zip(pages, pool.map(lambda page: get(address + page), pages), strict=True))
    return answers | {"POST /create-task": posted.result()}


def statuses(answers: dict[str, Answer]) -> dict[str, int]:
    return {name: answer.status for name, answer in answers.items()}


def late(answers: dict[str, Answer]) -> dict[str, float]:
    return {name: answer.seconds for name, answer in answers.items() if answer.seconds > ANSWER_SECONDS}


def test_while_mongodb_is_frozen_every_answer_comes_in_time_and_says_so(
    address: str, waiting_task: str, mongodb_server: Server
) -> None:
    task = f"/tasks/{waiting_task}"
    with paused(mongodb_server):
        answers = ask_for_everything(address, waiting_task)
    assert late(answers) == {}
    assert statuses(answers) == {
        "/": 503,
        "/user-orders": 200,
        "/practice": 200,
        "/tasks": 503,
        task: 503,
        f"{task}/status": 503,
        "/readyz": 503,
        "/healthz": 200,
        "POST /create-task": 503,
    }
    refused = answers["POST /create-task"]
    assert refused.content_type == "application/problem+json"
    assert json.loads(refused.body)["title"] == "MongoDB is away"
    assert json.loads(answers["/readyz"].body)["away"] == ["MongoDB"]
    assert "MongoDB is away" in answers["/tasks"].body
    eventually(lambda: get(f"{address}/readyz").status == 200)


def test_while_redis_is_frozen_every_answer_comes_in_time_and_says_so(
    address: str, waiting_task: str, redis_server: Server
) -> None:
    task = f"/tasks/{waiting_task}"
    with paused(redis_server):
        answers = ask_for_everything(address, waiting_task)
    assert late(answers) == {}
    assert statuses(answers) == {
        "/": 200,
        "/user-orders": 200,
        "/practice": 200,
        "/tasks": 200,
        task: 503,
        f"{task}/status": 503,
        "/readyz": 503,
        "/healthz": 200,
        "POST /create-task": 503,
    }
    refused = answers["POST /create-task"]
    assert refused.content_type == "application/problem+json"
    assert json.loads(refused.body)["title"] == "Redis is away"
    assert json.loads(answers["/readyz"].body)["away"] == ["Redis (queue)", "Redis (results)"]
    eventually(lambda: get(f"{address}/readyz").status == 200)


def test_a_task_refused_by_a_frozen_redis_is_not_recorded_and_does_not_run(
    address: str, waiting_task: str, redis_server: Server, start_worker: StartWorker
) -> None:
    with paused(redis_server):
        assert post_json(f"{address}/create-task", {"task_input": "met a frozen Redis"}).status == 503
    # If Redis had received the refused message, a worker would consume it before this one.
    after = long_running_task.apply_async(["after it"]).id
    start_worker("first", "--queues celery", "--concurrency 1")
    wait_for_state(after, states.SUCCESS)
    assert not connections().tasks.find_one({"args": ["met a frozen Redis"]})


def test_a_task_refused_by_a_frozen_mongodb_does_not_appear_later(
    address: str, waiting_task: str, mongodb_server: Server
) -> None:
    assert post_json(f"{address}/create-task", {"task_input": "before"}).status == 200
    with paused(mongodb_server):
        assert post_json(f"{address}/create-task", {"task_input": "met a frozen MongoDB"}).status == 503
    assert post_json(f"{address}/create-task", {"task_input": "after"}).status == 200
    assert not connections().tasks.find_one({"args": ["met a frozen MongoDB"]})

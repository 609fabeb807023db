"""Redis behind Sentinel: its primary dies, and what was accepted still ends."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import states

from development.servers import free_port
from tests.faults.conftest import StartWorker
from tests.faults.sentinels import Watched, watched_redis
from tests.faults.support import METADATA
from tests.support import Process, eventually, wait_for_state

pytestmark = [pytest.mark.timeout(150), pytest.mark.usefixtures("no_tasks", "shop")]

#: Nobody waits longer for an answer, in seconds.
LONGEST_ANSWER = 3.0
#: Seconds from the death to the end of every task: Sentinels agree and promote, workers connect, visibility runs out.
ENDED_WITHIN = 60.0
#: Seconds until results are written to the new primary and read from there.
FOLLOWED_WITHIN = 4.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_redis(tmp_path) as servers:
        yield servers


@pytest.fixture
def web(watched: Watched, tmp_path: Path) -> Iterator[str]:
    """The web process of the Procfile, which knows the Sentinels only; where it is."""
    port = free_port()
    listen = f"--bind 127.0.0.1:{port}"
    process = Process("web", tmp_path / "web.log", GUNICORN_CMD_ARGS=listen, **watched.environment)
    process.wait_for_line("Booting worker")
    yield f"http://127.0.0.1:{port}"
    process.kill()


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any, float]:
    """The status of the answer, what is in it, and the seconds that it took."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Accept": "application/json"})
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer), time.monotonic() - began
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), time.monotonic() - began


@pytest.mark.parametrize("fault", ["killed", "demoted", "frozen with a Sentinel"])
def test_what_was_accepted_ends_though_the_primary_is_another_one(
    web: str, watched: Watched, start_worker: StartWorker, fault: str
) -> None:
    start_worker("first", "--queues celery,reading", RECONCILE_SECONDS="1", **watched.environment)
    answers: list[tuple[int, float]] = []
    accepted: list[str] = []

    def submit() -> bool:
        status, said, seconds = ask(f"{web}/api/v1/joins/user-orders", {"user_id": "u1", "metadata": METADATA})
        answers.append((status, seconds))
        if status == 202:
            accepted.append(said["task_id"])
        return status == 202

    # Who waits behind busy slots meets nothing of a short demotion.
    for _ in range(0 if fault == "demoted" else 2):
        accepted.append(ask(f"{web}/create-task", {"task_input": "keeps a slot busy", **METADATA})[1])
        wait_for_state(accepted[-1], states.STARTED)
    assert all(submit() for _ in range(10))

    before = watched.primary
    _strike(fault, watched)
    # All the while people go on asking, and for some time after.
    eventually(lambda: [submit(), watched.primary is not before][1], within=20)
    assert eventually(lambda: all(submit() for _ in range(5)), within=20)

    tasks = [wait_for_state(task_id, states.SUCCESS, within=ENDED_WITHIN) for task_id in accepted]
    assert {json.dumps(task["metadata"]) for task in tasks} == {json.dumps(METADATA)}
    assert {status for status, _ in answers} <= {202, 503}
    assert max(seconds for _, seconds in answers) < LONGEST_ANSWER
    joins = [task["_id"] for task in tasks if "join" in task["name"]]
    # What a demoted primary still took is gone, and said to be.
    assert {ask(f"{web}/api/v1/tasks/{task_id}/result")[0] for task_id in joins} <= {200, 410}

    def what_is_asked_now_is_read() -> bool:
        assert submit()
        wait_for_state(accepted[-1], states.SUCCESS)
        return ask(f"{web}/api/v1/tasks/{accepted[-1]}/result")[0] == 200

    # Long before Sentinel makes a demoted primary a replica.
    eventually(what_is_asked_now_is_read, within=FOLLOWED_WITHIN)


def test_when_neither_the_primary_nor_a_sentinel_answers_people_are_told_in_time(web: str, watched: Watched) -> None:
    status, said, _ = ask(f"{web}/api/v1/joins/user-orders", {"user_id": "u1", "metadata": METADATA})
    assert status == 202
    for process in (watched.primary._process, *watched.sentinels.values()):
        process.send_signal(signal.SIGSTOP)
    task, joins = f"/api/v1/tasks/{said['task_id']}", "/api/v1/joins/user-orders"
    # Twice, because the first time uses up the connections from before.
    for address, body in 2 * [("/readyz", None), (task, None), (joins, {"user_id": "u1"})]:
        status, said, seconds = ask(f"{web}{address}", body)
        assert status == 503, (address, said)
        assert seconds < LONGEST_ANSWER, address


def _strike(fault: str, watched: Watched) -> None:
    if fault == "killed":
        watched.primary._process.kill()
        return
    if fault == "demoted":
        watched.fail_over()
        return
    # As a host that is cut off: its clients wait.
    next(iter(watched.sentinels.values())).send_signal(signal.SIGSTOP)
    watched.primary._process.send_signal(signal.SIGSTOP)

"""If the primary of a Redis behind Sentinel dies, accepted tasks still end."""

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
from tests.faults.sentinels import WatchedRedis, watched_redis
from tests.faults.support import METADATA
from tests.support import Process, eventually, wait_for_state

pytestmark = [pytest.mark.timeout(150), pytest.mark.usefixtures("no_tasks", "shop")]

#: The longest wait for an answer, in seconds.
ANSWER_SECONDS = 3.0
#: The time limit for every task to end, in seconds. It includes the failover, reconnections and visibility timeouts.
END_SECONDS = 60.0
#: The time until results are written to the new primary and read from it, in seconds.
SWITCH_SECONDS = 4.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedRedis]:
    with watched_redis(tmp_path) as servers:
        yield servers


@pytest.fixture
def web(watched: WatchedRedis, tmp_path: Path) -> Iterator[str]:
    """The address of the Procfile's web process, which knows only the Sentinels."""
    port = free_port()
    listen = f"--bind 127.0.0.1:{port}"
    process = Process("web", tmp_path / "web.log", GUNICORN_CMD_ARGS=listen, **watched.environment)
    process.wait_for_line("Booting worker")
    yield f"http://127.0.0.1:{port}"
    process.kill()


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any, float]:
    """Sends a request. Returns the answer's status, its JSON, and the seconds that it took."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Accept": "application/json"})
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer), time.monotonic() - started
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), time.monotonic() - started


@pytest.mark.parametrize("fault", ["killed", "demoted", "frozen with a Sentinel"])
def test_accepted_tasks_end_after_a_failover(
    web: str, watched: WatchedRedis, start_worker: StartWorker, fault: str
) -> None:
    start_worker("first", "--queues celery,reading", RECONCILE_SECONDS="1", **watched.environment)
    answers: list[tuple[int, float]] = []
    accepted: list[str] = []

    def submit() -> bool:
        status, reply, seconds = ask(f"{web}/api/v1/joins/user-orders", {"user_id": "u1", "metadata": METADATA})
        answers.append((status, seconds))
        if status == 202:
            accepted.append(reply["task_id"])
        return status == 202

    # Tasks that wait for a slot would not notice a short demotion, so all slots are free in that case.
    for _ in range(0 if fault == "demoted" else 2):
        accepted.append(ask(f"{web}/create-task", {"task_input": "keeps a slot busy", **METADATA})[1])
        wait_for_state(accepted[-1], states.STARTED)
    assert all(submit() for _ in range(10))

    before = watched.primary
    _inject(fault, watched)
    # Submissions continue during the failover and for some time after it.
    eventually(lambda: [submit(), watched.primary is not before][1], within=20)
    assert eventually(lambda: all(submit() for _ in range(5)), within=20)

    tasks = [wait_for_state(task_id, states.SUCCESS, within=END_SECONDS) for task_id in accepted]
    assert {json.dumps(task["metadata"]) for task in tasks} == {json.dumps(METADATA)}
    assert {status for status, _ in answers} <= {202, 503}
    assert max(seconds for _, seconds in answers) < ANSWER_SECONDS
    joins = [task["_id"] for task in tasks if "join" in task["name"]]
    # Results written to a demoted primary are gone, and the answer says so.
    assert {ask(f"{web}/api/v1/tasks/{task_id}/result")[0] for task_id in joins} <= {200, 410}

    def new_results_are_readable() -> bool:
        assert submit()
        wait_for_state(accepted[-1], states.SUCCESS)
        return ask(f"{web}/api/v1/tasks/{accepted[-1]}/result")[0] == 200

    # This must work long before Sentinel turns the demoted primary into a replica.
    eventually(new_results_are_readable, within=SWITCH_SECONDS)


def test_without_a_primary_and_sentinels_every_answer_comes_in_time(web: str, watched: WatchedRedis) -> None:
    status, reply, _ = ask(f"{web}/api/v1/joins/user-orders", {"user_id": "u1", "metadata": METADATA})
    assert status == 202
    for process in (watched.primary._process, *watched.sentinels.values()):
        process.send_signal(signal.SIGSTOP)
    task, joins = f"/api/v1/tasks/{reply['task_id']}", "/api/v1/joins/user-orders"
    # Twice, because the first round uses up the open connections.
    for address, body in 2 * [("/readyz", None), (task, None), (joins, {"user_id": "u1"})]:
        status, reply, seconds = ask(f"{web}{address}", body)
        assert status == 503, (address, reply)
        assert seconds < ANSWER_SECONDS, address


def _inject(fault: str, watched: WatchedRedis) -> None:
    if fault == "killed":
        watched.primary._process.kill()
        return
    if fault == "demoted":
        watched.fail_over()
        return
    # The clients wait, as they do if a host is cut off from the network.
    next(iter(watched.sentinels.values())).send_signal(signal.SIGSTOP)
    watched.primary._process.send_signal(signal.SIGSTOP)

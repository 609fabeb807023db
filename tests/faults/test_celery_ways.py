"""What others send, and what they write on our application: it goes as on stock Celery, and our record is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, states

from development.servers import Server
from tests.faults.conftest import StartWorker
from tests.faults.support import METADATA, failure, killed, messages, unacknowledged
from tests.support import Process, eventually, wait_for_state
from worker_tasks.celery_app import app
from worker_tasks.connections import connections

#: A module of tasks as somebody writes them who knows Celery and nothing of us.
OTHERS = """
import pathlib
import time

from celery.exceptions import Reject

from worker_tasks.celery_app import app

# An outcome that can not be stored is tried again once, not for ten seconds.
app.conf.result_backend_max_retries = 1


@app.task(name="others.retries", bind=True, max_retries=30)
def retries(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="others.rejects")
def rejects():
    raise Reject("not for me", requeue=False)


@app.task(name="others.waits")
def waits(for_file):
    while not pathlib.Path(for_file).exists():
        time.sleep(0.05)
    return "waited"
"""


@pytest.fixture
def others(start_worker: StartWorker, tmp_path: Path) -> Process:
    """A worker that knows their tasks, and takes three beginnings that do not end for poison."""
    (tmp_path / "others_tasks.py").write_text(OTHERS)
    return start_worker("first", "--include others_tasks", PYTHONPATH=str(tmp_path), MAX_ATTEMPTS="3")


@pytest.fixture
def foreign(redis_server: Server) -> Iterator[Celery]:
    """A client with Celery's own defaults."""
    with Celery("foreign", broker=f"{redis_server.url}/0", set_as_current=False) as client:
        yield client


@pytest.mark.usefixtures("others")
def test_a_task_that_no_worker_knows_fails_and_the_worker_lives(foreign: Celery, queue: str) -> None:
    unknown = foreign.send_task("no.such.task", queue=queue).id
    recorded = app.send_task("renamed.task", queue=queue, metadata=METADATA).id
    task = wait_for_state(recorded, states.FAILURE)
    assert "NotRegistered" in task["result"]
    assert task["metadata"] == METADATA
    eventually(lambda: connections().tasks.find_one({"_id": unknown, "status": states.FAILURE}))
    assert wait_for_state(app.send_task("others.retries", [0], queue=queue).id, states.SUCCESS)["result"] == "0"
    eventually(lambda: not messages(queue) and unknown not in unacknowledged())


@pytest.mark.usefixtures("others")
def test_celery_s_own_retries_are_not_taken_for_crashes(queue: str) -> None:
    task_id = app.send_task("others.retries", [12], queue=queue, metadata=METADATA).id
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert (task["status"], task["result"], task["attempt"]) == (states.SUCCESS, "12", 13)
    assert task["metadata"] == METADATA


@pytest.mark.usefixtures("others")
def test_a_task_that_rejects_its_message_has_failed(queue: str) -> None:
    task = wait_for_state(app.send_task("others.rejects", queue=queue).id, states.FAILURE)
    assert "not for me" in failure(task)
    eventually(lambda: not messages(queue) and task["_id"] not in unacknowledged())


def test_an_outcome_that_could_not_be_stored_is_not_taken_for_a_failure(
    others: Process, queue: str, tmp_path: Path, mongodb_server: Server
) -> None:
    task_id = app.send_task("others.waits", [str(tmp_path / "go")], queue=queue, metadata=METADATA).id
    wait_for_state(task_id, states.STARTED)
    with killed(mongodb_server):
        (tmp_path / "go").touch()
        others.wait_for_line(f"task {task_id} is back in the queue: BackendStoreError")
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE, within=40)
    assert (task["status"], task["result"]) == (states.SUCCESS, '"waited"')
    assert states.FAILURE not in [event["status"] for event in task["timeline"]]
    assert task["metadata"] == METADATA

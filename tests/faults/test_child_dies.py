"""The child that runs a task dies, its worker lives on: the task is tried again, but not for ever.

A worker looks every 5 s whether its children live.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, beginnings, child_that_runs, failure, messages, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.celery_app import app

#: A module of tasks for a worker of these tests alone.
POISON = """
import os
import signal

from worker_tasks.celery_app import app


@app.task(name="poison", max_retries=1)
def poison(drop):
    with open(drop, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_task_whose_child_was_killed_once_is_tried_again_and_succeeds(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    start_worker("first", LONG_TASK_SECONDS="3")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    os.kill(child_that_runs(task_id, "first@test"), signal.SIGKILL)
    retried = wait_for_state(task_id, states.RETRY)
    assert "signal 9 (SIGKILL)" in failure(retried)
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert task["status"] == states.SUCCESS
    assert task["result"] == '"Processed: survivor"'
    assert (task["attempt"], beginnings(task)) == (2, ["first@test", "first@test"])
    assert task["metadata"] == METADATA


@pytest.fixture
def submit_poison(queue: str, tmp_path: Path) -> Callable[[], str]:
    """Submits a task that kills its child whenever it is begun, and notes each time in the file ``drops``."""
    (tmp_path / "poison_tasks.py").write_text(POISON)

    def submit() -> str:
        return app.send_task("poison", [str(tmp_path / "drops")], queue=queue, metadata=METADATA).id

    return submit


@pytest.mark.parametrize(
    ("max_attempts", "begun", "words"),
    [("1", 1, "takes its worker down"), ("10", 2, "Worker exited prematurely: signal 9 (SIGKILL)")],
    ids=["by the count of the claim", "by Celery's count of retries"],
)
def test_a_task_that_kills_its_child_each_time_fails_and_says_so(
    start_worker: StartWorker,
    submit_poison: Callable[[], str],
    queue: str,
    tmp_path: Path,
    max_attempts: str,
    begun: int,
    words: str,
) -> None:
    start_worker("first", "--include poison_tasks", PYTHONPATH=str(tmp_path), MAX_ATTEMPTS=max_attempts)
    task_id = submit_poison()
    task = wait_for_state(task_id, states.FAILURE, within=30)
    assert words in failure(task)
    assert (tmp_path / "drops").read_text() == "x" * begun
    assert task["metadata"] == METADATA
    eventually(lambda: task_id not in messages(queue) + unacknowledged(), within=3)

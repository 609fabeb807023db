"""If the child that runs a task dies and its worker survives, the task runs again, but not forever.

A worker checks every 5 s whether its children are alive.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, child_that_runs, failure_message, messages, notes, starts, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.queue.celery_app import app

#: A module of tasks for the workers of these tests.
POISON = """
import os
import signal

from worker_tasks.queue.celery_app import app


@app.task(name="poison")
def poison(drop):
    with open(drop, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_task_whose_child_is_killed_once_runs_again_and_succeeds(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    start_worker("first", LONG_TASK_SECONDS="3")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    os.kill(child_that_runs(task_id, "first@test"), signal.SIGKILL)
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert task["status"] == states.SUCCESS
    assert task["result"] == '"Processed: survivor"'
    assert (task["attempt"], starts(task)) == (2, ["first@test", "first@test"])
    (note,) = [note for note in notes(task) if "the process that ran it was lost" in note]
    assert "signal 9 (SIGKILL)" in note
    assert task["metadata"] == METADATA


@pytest.fixture
def submit_poison(queue: str, tmp_path: Path) -> Callable[[], str]:
    """Submits a task that kills its child at each start, after adding a mark to the file ``drops``."""
    (tmp_path / "poison_tasks.py").write_text(POISON)

    def submit() -> str:
        return app.send_task("poison", [str(tmp_path / "drops")], queue=queue, metadata=METADATA).id

    return submit


@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_task_that_kills_its_child_each_time_fails_with_that_reason(
    start_worker: StartWorker, submit_poison: Callable[[], str], queue: str, tmp_path: Path, max_attempts: int
) -> None:
    start_worker("first", "--include poison_tasks", PYTHONPATH=str(tmp_path), MAX_ATTEMPTS=str(max_attempts))
    task_id = submit_poison()
    task = wait_for_state(task_id, states.FAILURE, within=30)
    assert "takes its worker down" in failure_message(task)
    assert (tmp_path / "drops").read_text() == "x" * max_attempts
    assert [event["status"] for event in task["timeline"]].count(states.RETRY) == 0
    assert task["metadata"] == METADATA
    eventually(lambda: task_id not in messages(queue) + unacknowledged(), within=3)

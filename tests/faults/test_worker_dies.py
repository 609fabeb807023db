"""If a worker dies with all of its processes, or freezes for a while, another worker gets its tasks."""

import signal

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, failure_message, starts
from tests.support import eventually, wait_for_state

pytestmark = pytest.mark.timeout(60)

#: The visibility timeout of 6 s, a sweep every 5 s, and a second to run.
RECOVERY_SECONDS = 18.0


def test_another_worker_finishes_the_task_of_a_killed_worker(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    first.kill()
    start_worker("second")
    task = wait_for_state(task_id, states.SUCCESS, within=RECOVERY_SECONDS)
    assert task["attempt"] == 2
    assert starts(task) == ["first@test", "second@test"]
    assert task["metadata"] == METADATA
    assert task["result"] == '"Processed: survivor"'


def test_a_task_that_kills_whole_workers_is_not_started_forever(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("poison")
    wait_for_state(task_id, states.STARTED)
    first.kill()
    start_worker("second", MAX_ATTEMPTS="1")
    task = wait_for_state(task_id, states.FAILURE, within=RECOVERY_SECONDS)
    assert "takes its worker down" in failure_message(task)
    assert "Begun 1 times" in failure_message(task)
    assert task["metadata"] == METADATA


def test_a_thawed_worker_finds_its_task_done_and_changes_nothing(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="2")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    first.signal_group(signal.SIGSTOP)
    start_worker("second")
    done = wait_for_state(task_id, states.SUCCESS, within=RECOVERY_SECONDS)
    first.signal_group(signal.SIGCONT)
    eventually(lambda: f"{task_id}] ignored" in first.log.read_text())
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["version"] == done["version"]
    assert starts(task) == ["first@test", "second@test"]

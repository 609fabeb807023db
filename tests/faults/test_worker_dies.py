"""A worker dies with all of its processes, or is gone for a while: its tasks go to another one."""

import signal

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, beginnings, failure
from tests.support import eventually, wait_for_state

pytestmark = pytest.mark.timeout(60)

#: Visibility 6 s, a sweep each 5 s, and a second to run.
RECOVERED_WITHIN = 18.0


def test_what_a_killed_worker_ran_is_finished_by_another_one(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    first.kill()
    start_worker("second")
    task = wait_for_state(task_id, states.SUCCESS, within=RECOVERED_WITHIN)
    assert task["attempt"] == 2
    assert beginnings(task) == ["first@test", "second@test"]
    assert task["metadata"] == METADATA
    assert task["result"] == '"Processed: survivor"'


def test_a_task_that_takes_whole_workers_down_is_not_begun_for_ever(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("poison")
    wait_for_state(task_id, states.STARTED)
    first.kill()
    start_worker("second", MAX_ATTEMPTS="1")
    task = wait_for_state(task_id, states.FAILURE, within=RECOVERED_WITHIN)
    assert "takes its worker down" in failure(task)
    assert "Begun 1 times" in failure(task)
    assert task["metadata"] == METADATA


def test_a_worker_that_was_frozen_finds_its_task_done_and_changes_nothing(
    start_worker: StartWorker, submit_practice: Submit
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="2")
    task_id = submit_practice("survivor")
    wait_for_state(task_id, states.STARTED)
    first.signal_group(signal.SIGSTOP)
    start_worker("second")
    done = wait_for_state(task_id, states.SUCCESS, within=RECOVERED_WITHIN)
    first.signal_group(signal.SIGCONT)
    eventually(lambda: f"{task_id}] ignored" in first.log.read_text())
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["version"] == done["version"]
    assert beginnings(task) == ["first@test", "second@test"]

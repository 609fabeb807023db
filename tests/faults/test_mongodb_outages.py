"""MongoDB is frozen, or dies and comes back: nothing that was accepted is lost, and each outcome is stored."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, beginnings, killed
from tests.support import eventually, paused, wait_for_state
from worker_tasks.records import live

pytestmark = pytest.mark.timeout(60)

#: Longer than any single write waits.
FROZEN_SECONDS = 5.0


def is_worked_off(task_id: str) -> bool:
    """Whether all steps are done, as Redis tells: what is left is to store the outcome."""
    alive = live.read_live(task_id)
    return alive is not None and alive.progress is not None and alive.progress.done == alive.progress.total


def test_an_outcome_that_meets_a_frozen_mongodb_is_stored_when_it_is_back(
    start_worker: StartWorker, submit_practice: Submit, mongodb_server: Server
) -> None:
    worker = start_worker(LONG_TASK_SECONDS="2")
    task_id = submit_practice("x")
    wait_for_state(task_id, states.STARTED)
    with paused(mongodb_server):
        eventually(lambda: is_worked_off(task_id))
        time.sleep(FROZEN_SECONDS)
        eventually(lambda: "Failed operation _store_result. Retrying" in worker.log.read_text())
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["result"] == '"Processed: x"'
    assert (task["attempt"], task["metadata"]) == (1, METADATA)


def test_a_mongodb_killed_under_a_running_task_loses_neither_outcome_nor_metadata(
    start_worker: StartWorker, submit_practice: Submit, mongodb_server: Server
) -> None:
    worker = start_worker(LONG_TASK_SECONDS="2")
    task_id = submit_practice("x")
    wait_for_state(task_id, states.STARTED)
    with killed(mongodb_server):
        eventually(lambda: "Failed operation _store_result. Retrying" in worker.log.read_text())
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["result"] == '"Processed: x"'
    assert task["metadata"] == METADATA
    assert beginnings(task) == ["first@test"]


@pytest.mark.parametrize("outage", [paused, killed], ids=["frozen", "dead"])
def test_a_task_that_can_not_be_claimed_goes_back_and_runs_when_mongodb_is_back(
    start_worker: StartWorker,
    submit_join: Submit,
    mongodb_server: Server,
    outage: Callable[[Server], AbstractContextManager[None]],
) -> None:
    task_id = submit_join("u1")
    with outage(mongodb_server):
        worker = start_worker()
        eventually(lambda: worker.log.read_text().count(f"[{task_id}] received") > 1)
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["metadata"] == METADATA
    assert task["attempt"] == len(beginnings(task)) == 1


def test_a_claim_that_a_frozen_mongodb_would_carry_out_late_is_no_beginning(
    start_worker: StartWorker, submit_join: Submit, mongodb_server: Server
) -> None:
    worker = start_worker("first", "--concurrency 1", MAX_ATTEMPTS="1")
    # From here on the child has a connection, and what it sends there waits in it until MongoDB wakes up.
    wait_for_state(submit_join("u1"), states.SUCCESS)
    worker.signal_group(signal.SIGSTOP)
    task_id = submit_join("u2")
    with paused(mongodb_server):
        worker.signal_group(signal.SIGCONT)
        eventually(lambda: worker.log.read_text().count(f"[{task_id}] received") > 1)
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert (task["status"], task["attempt"], beginnings(task)) == (states.SUCCESS, 1, ["first@test"])

"""If MongoDB freezes, or dies and comes back, no accepted task is lost, and every outcome is stored."""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, killed, starts
from tests.support import eventually, paused, wait_for_state
from worker_tasks.records import live

pytestmark = pytest.mark.timeout(60)

#: Longer than the timeout of a single write.
FROZEN_SECONDS = 5.0


def has_finished_its_steps(task_id: str) -> bool:
    """Whether all steps are done, according to Redis, so that only the outcome has to be stored."""
    report = live.read_live(task_id)
    return report is not None and report.progress is not None and report.progress.done == report.progress.total


def test_an_outcome_is_stored_after_mongodb_was_frozen(
    start_worker: StartWorker, submit_practice: Submit, mongodb_server: Server
) -> None:
    worker = start_worker(LONG_TASK_SECONDS="2")
    task_id = submit_practice("x")
    wait_for_state(task_id, states.STARTED)
    with paused(mongodb_server):
        eventually(lambda: has_finished_its_steps(task_id))
        time.sleep(FROZEN_SECONDS)
        eventually(lambda: "Failed operation _store_result. Retrying" in worker.log.read_text())
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["result"] == '"Processed: x"'
    assert (task["attempt"], task["metadata"]) == (1, METADATA)


def test_killing_mongodb_loses_neither_outcome_nor_metadata_of_a_running_task(
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
    assert starts(task) == ["first@test"]


@pytest.mark.parametrize("outage", [paused, killed], ids=["frozen", "dead"])
def test_a_task_that_cannot_be_claimed_goes_back_and_runs_after_the_outage(
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
    assert task["attempt"] == len(starts(task)) == 1


def test_a_claim_sent_to_a_frozen_mongodb_does_not_count_as_a_start(
    start_worker: StartWorker, submit_join: Submit, mongodb_server: Server
) -> None:
    worker = start_worker("first", "--concurrency 1", MAX_ATTEMPTS="1")
    # The child now has an open connection, which would hold its claim until MongoDB wakes up.
    wait_for_state(submit_join("u1"), states.SUCCESS)
    worker.signal_group(signal.SIGSTOP)
    task_id = submit_join("u2")
    with paused(mongodb_server):
        worker.signal_group(signal.SIGCONT)
        eventually(lambda: worker.log.read_text().count(f"[{task_id}] received") > 1)
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert (task["status"], task["attempt"], starts(task)) == (states.SUCCESS, 1, ["first@test"])

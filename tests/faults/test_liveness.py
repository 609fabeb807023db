"""A worker that is alive and takes no work leaves, so that its supervisor starts another one."""

from pathlib import Path

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.support import eventually, wait_for_state

pytestmark = pytest.mark.timeout(120)

#: Twice the visibility of 6 s, the time to end by itself, and what a busy machine needs.
LEAVES_WITHIN = 60.0


def test_a_worker_that_takes_nothing_though_messages_wait_leaves_with_an_error(
    start_worker: StartWorker, submit_join: Submit, tmp_path: Path
) -> None:
    stuck_when = tmp_path / "stuck"
    worker = start_worker("first", "--include tests.faults.stuck_main_loop", STUCK_WHEN=str(stuck_when))
    wait_for_state(submit_join("u1"), states.SUCCESS)
    stuck_when.touch()
    worker.wait_for_line("the main loop stands still")
    # The connection that waits for messages may still take the first of them, which the worker never sees.
    waiting = [submit_join("u2"), submit_join("u3")]
    eventually(lambda: not worker.is_running, within=LEAVES_WITHIN)
    assert worker.stop() == 1
    assert "this worker takes none: it exits" in worker.log.read_text()
    start_worker("second", RECONCILE_SECONDS="1")
    for task_id in waiting:
        wait_for_state(task_id, states.SUCCESS)


def test_a_worker_without_work_and_one_that_is_busy_stay(
    start_worker: StartWorker, submit_practice: Submit, submit_join: Submit
) -> None:
    busy = start_worker("first", "--concurrency 1", LONG_TASK_SECONDS="20")
    running = submit_practice("long")
    wait_for_state(running, states.STARTED)
    waiting = submit_join("u1")
    wait_for_state(running, states.SUCCESS, within=40)
    wait_for_state(waiting, states.SUCCESS)
    assert busy.is_running

"""A stalled worker exits, so that its supervisor restarts it."""

from pathlib import Path

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.support import eventually, wait_for_state

pytestmark = pytest.mark.timeout(120)

#: The time until a worker counts as stalled, plus the time to exit, plus a margin for a busy machine.
EXIT_SECONDS = 60.0


def test_a_worker_that_takes_no_waiting_messages_exits_with_an_error(
    start_worker: StartWorker, submit_join: Submit, tmp_path: Path
) -> None:
    stuck_when = tmp_path / "stuck"
    worker = start_worker("first", "--include tests.faults.stuck_main_loop", STUCK_WHEN=str(stuck_when))
    wait_for_state(submit_join("u1"), states.SUCCESS)
    stuck_when.touch()
    worker.wait_for_line("the main loop is blocked")
    # The blocked connection may still receive the first message, but the worker never sees it.
    waiting = [submit_join("u2"), submit_join("u3")]
    eventually(lambda: not worker.is_running, within=EXIT_SECONDS)
    assert worker.stop() == 1
    assert "this worker takes none: it exits" in worker.log.read_text()
    start_worker("second", RECONCILE_SECONDS="1")
    for task_id in waiting:
        wait_for_state(task_id, states.SUCCESS)


def test_a_busy_worker_does_not_exit(start_worker: StartWorker, submit_practice: Submit, submit_join: Submit) -> None:
    busy = start_worker("first", "--concurrency 1", LONG_TASK_SECONDS="20")
    running = submit_practice("long")
    wait_for_state(running, states.STARTED)
    waiting = submit_join("u1")
    wait_for_state(running, states.SUCCESS, within=40)
    wait_for_state(waiting, states.SUCCESS)
    assert busy.is_running

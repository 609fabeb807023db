"""A task may take longer than the visibility of its message: its worker renews that, and no other one begins it."""

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import beginnings, messages, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.timeout(60)

#: The visibility is 6 s: enough for two sweeps of each worker to find what has run out.
LONG_TASK_SECONDS = "15"


def test_a_long_task_is_begun_once_though_two_workers_wait_for_work(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    # They also reconcile all the time, and must see that the message of a quiet task is in good hands.
    for name in ("first", "second"):
        start_worker(name, LONG_TASK_SECONDS=LONG_TASK_SECONDS, RECONCILE_SECONDS="1")
    task_id = submit_practice("long")
    # Counts down in its worker, and keeps its message longer than the visibility too.
    delayed_id = join_users_orders.apply_async(["u1"], queue=queue, countdown=12).id
    task = wait_for_state(task_id, states.SUCCESS, within=30)
    assert task["attempt"] == 1
    assert len(beginnings(task)) == 1
    delayed = wait_for_state(delayed_id, states.SUCCESS)
    assert [event["status"] for event in delayed["timeline"]] == [states.PENDING, states.STARTED, states.SUCCESS]
    eventually(lambda: not {task_id, delayed_id} & {*messages(queue), *unacknowledged()})

"""A task may take longer than the visibility timeout, because its worker renews the lease of the message."""

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import messages, starts, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.timeout(60)

#: More than twice the visibility timeout of 6 s. If the lease expired, two sweeps of each worker would notice.
LONG_TASK_SECONDS = "15"


def test_a_long_task_starts_once_though_another_worker_waits_for_work(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    # They also reconcile constantly, and must notice that the quiet task still has its message.
    for name in ("first", "second"):
        start_worker(name, LONG_TASK_SECONDS=LONG_TASK_SECONDS, RECONCILE_SECONDS="1")
    task_id = submit_practice("long")
    # A countdown keeps the message in its worker for longer than the visibility timeout, too.
    delayed_id = join_users_orders.apply_async(["u1"], queue=queue, countdown=12).id
    task = wait_for_state(task_id, states.SUCCESS, within=30)
    assert task["attempt"] == 1
    assert len(starts(task)) == 1
    delayed = wait_for_state(delayed_id, states.SUCCESS)
    assert [event["status"] for event in delayed["timeline"]] == [states.PENDING, states.STARTED, states.SUCCESS]
    eventually(lambda: not {task_id, delayed_id} & {*messages(queue), *unacknowledged()})

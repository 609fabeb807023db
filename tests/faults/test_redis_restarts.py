"""If Redis dies and comes back, with or without its data, every task still ends."""

import json
from datetime import timedelta

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, killed, messages, notes, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.joins.plan import user_orders
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.worker import reconciler

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("no_tasks")]

#: A worker reconnects within about two seconds. The visibility timeout is 6 s, with a sweep every 5 s.
RECOVERY_SECONDS = 30.0


def test_a_restart_of_redis_loses_neither_waiting_nor_running_tasks(
    start_worker: StartWorker, submit_join: Submit, submit_practice: Submit, redis_server: Server, queue: str
) -> None:
    start_worker("first", LONG_TASK_SECONDS="3")
    running = [submit_practice("runs"), submit_practice("runs too")]
    for task_id in running:
        wait_for_state(task_id, states.STARTED)
    user_ids = ["u1", "u2", "u3"]
    waiting = {user_id: submit_join(user_id) for user_id in user_ids}
    with killed(redis_server):
        for task_id in running:
            wait_for_state(task_id, states.SUCCESS)
        # The others cannot have started.
        assert {ledger.find_task(task_id)["status"] for task_id in waiting.values()} == {states.PENDING}
    for user_id, task_id in waiting.items():
        task = wait_for_state(task_id, states.SUCCESS, within=RECOVERY_SECONDS)
        assert (task["attempt"], task["metadata"]) == (1, METADATA)
        summary = result_store.find_result(user_orders.result_key(user_id))
        assert summary is not None
        assert summary.task_id == task_id
        assert json.loads(task["result"]) == summary.outcome
    # The finished tasks acknowledged on a dead connection, so Redis delivers their messages again. These run nothing.
    eventually(lambda: not messages(queue) and not unacknowledged(), within=RECOVERY_SECONDS)
    assert [ledger.find_task(task_id)["attempt"] for task_id in running] == [1, 1]


def test_an_empty_redis_is_refilled_from_the_task_documents(
    start_worker: StartWorker, submit_join: Submit, submit_practice: Submit, redis_server: Server, queue: str
) -> None:
    start_worker("first", RECONCILE_SECONDS="1", LONG_TASK_SECONDS="3")
    running = [submit_practice("runs"), submit_practice("runs too")]
    for task_id in running:
        wait_for_state(task_id, states.STARTED)
    waiting = [submit_join("u1"), submit_join("u2")]
    with killed(redis_server, wiped=True):
        pass
    for task_id in running + waiting:
        task = wait_for_state(task_id, states.SUCCESS, within=RECOVERY_SECONDS)
        assert task["metadata"] == METADATA
    for task_id in waiting:
        task = ledger.find_task(task_id)
        assert task["attempt"] == 1
        assert notes(task).count("message lost, published again") == 1
    eventually(lambda: not messages(queue) and not unacknowledged(), within=RECOVERY_SECONDS)


def test_a_task_submitted_to_an_empty_redis_does_not_count_as_lost(
    submit_practice: Submit, redis_server: Server, queue: str
) -> None:
    submit_practice("tells Redis of the queue")
    with killed(redis_server, wiped=True):
        connections().tasks.delete_many({})
    task_id = submit_practice("waits")
    assert reconciler.reconcile(app, timedelta(0)) == []
    assert messages(queue) == [task_id]

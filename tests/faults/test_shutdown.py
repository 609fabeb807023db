"""A stopping worker ends in time even if servers are away, and the next worker gets its unfinished tasks."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, killed, messages, notes, starts, unacknowledged
from tests.support import eventually, paused, wait_for_state
from worker_tasks.records import ledger
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.timeout(90)

#: Platforms allow 30 s. The soft shutdown takes 1 s in all tests.
END_SECONDS = 28.0


def test_a_task_longer_than_the_soft_shutdown_is_finished_by_the_next_worker(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("handed over")
    wait_for_state(task_id, states.STARTED)
    first.stop()
    waiting = ledger.find_task(task_id)
    assert waiting["status"] == states.PENDING
    assert waiting["crashes"] == 0
    assert "its worker stopped; back in the queue" in notes(waiting)
    assert messages(queue) == [task_id]
    start_worker("second")
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["result"] == '"Processed: handed over"'
    assert starts(task) == ["first@test", "second@test"]
    assert task["metadata"] == METADATA


def test_a_task_shorter_than_the_soft_shutdown_finishes_first(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="1", WORKER_SOFT_SHUTDOWN_SECONDS="4")
    task_id = submit_practice("short")
    wait_for_state(task_id, states.STARTED)
    first.stop()
    task = ledger.find_task(task_id)
    assert (task["status"], task["attempt"]) == (states.SUCCESS, 1)
    assert messages(queue) == []


def test_a_task_with_a_countdown_waits_again_when_its_worker_stops(start_worker: StartWorker, queue: str) -> None:
    first = start_worker()
    task_id = join_users_orders.apply_async(["u1"], queue=queue, countdown=3).id
    eventually(lambda: task_id in unacknowledged())
    first.stop()
    assert messages(queue) == [task_id]
    start_worker("second")
    task = wait_for_state(task_id, states.SUCCESS)
    assert starts(task) == ["second@test"]
    assert task["started_at"] - task["queued_at"] >= timedelta(seconds=3)


@pytest.mark.parametrize("outage", [killed, paused], ids=["dead", "frozen"])
def test_a_worker_ends_in_time_while_both_servers_are_away(
    start_worker: StartWorker,
    submit_practice: Submit,
    redis_server: Server,
    mongodb_server: Server,
    outage: Callable[[Server], AbstractContextManager[None]],
) -> None:
    first = start_worker("first", LONG_TASK_SECONDS="60")
    task_id = submit_practice("handed over")
    wait_for_state(task_id, states.STARTED)
    with outage(redis_server), outage(mongodb_server):
        first.stop()
    start_worker("second")
    task = wait_for_state(task_id, states.SUCCESS)
    assert starts(task) == ["first@test", "second@test"]
    assert task["metadata"] == METADATA


def test_a_worker_that_cannot_connect_ends_in_time(queue: str, start_worker: StartWorker, redis_server: Server) -> None:
    with killed(redis_server):
        worker = start_worker("first", until="Trying again in")
        started = time.monotonic()
        worker.stop()
        assert time.monotonic() - started < END_SECONDS

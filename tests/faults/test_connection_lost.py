"""If connections to Redis break, or Redis is briefly away, workers survive and no task starts a second time."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import (
    METADATA,
    has_written_rows,
    killed,
    messages,
    mongodb_operations,
    slow_join,
    slow_rows_error,
    starts,
    submit_to,
    unacknowledged,
)
from tests.support import Process, eventually, paused, wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("slow")]

#: The visibility timeout of 6 s, a sweep every 5 s, and the slow join.
END_SECONDS = 60.0
#: Longer than a worker waits for a reply of Redis, in seconds.
FROZEN_SECONDS = 5.0
IN_PARTS = {"PART_DOCUMENTS": "500"}


def break_connections() -> None:
    """Closes all connections to Redis except our own, including blocked ones."""
    assert connections().queue.client_kill_filter(_type="normal", skipme=True)


def has_nothing_left(task_id: str, queue: str) -> bool:
    store = connections().results
    staged = store.exists(f"join_run:{task_id}", f"join_plan:{task_id}") or store.keys(f"staging:{task_id}*")
    return not staged and not mongodb_operations(task_id) and not messages(queue) and not unacknowledged()


def test_a_running_task_is_not_started_again_when_its_connection_breaks(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    workers = [start_worker(name, LONG_TASK_SECONDS="12") for name in ("first", "second")]
    task_id = submit_practice("x")
    wait_for_state(task_id, states.STARTED)
    for _ in range(3):
        break_connections()
        time.sleep(1)  # longer than a worker takes to reconnect, so that each call breaks a connection
    task = wait_for_state(task_id, states.SUCCESS, within=30)
    assert (task["attempt"], len(starts(task)), task["metadata"]) == (1, 1, METADATA)
    assert all(worker.is_running for worker in workers)
    eventually(lambda: not messages(queue) and not unacknowledged())


@pytest.mark.parametrize("parts", [{}, IN_PARTS], ids=["one stream", "parts"])
def test_a_join_whose_connections_break_returns_every_row_once(
    start_worker: StartWorker, queue: str, parts: dict[str, str]
) -> None:
    workers = [start_worker(name, **parts) for name in ("first", "second")]
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: has_written_rows(task_id, 2 if parts else 1))
    break_connections()
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert (task["attempt"], task["metadata"]) == (1, METADATA)
    assert all(worker.is_running for worker in workers)
    eventually(lambda: has_nothing_left(task_id, queue))


@pytest.mark.parametrize("busy", [0, 1])
def test_a_worker_survives_a_brief_outage_of_redis(
    start_worker: StartWorker, submit_practice: Submit, redis_server: Server, busy: int, queue: str
) -> None:
    worker = start_worker("first", LONG_TASK_SECONDS="4")
    running = [submit_practice("x") for _ in range(busy)]
    for task_id in running:
        wait_for_state(task_id, states.STARTED)
    with killed(redis_server):
        time.sleep(0.5)
    after = submit_practice("after")
    for task_id in [*running, after]:
        assert wait_for_state(task_id, states.SUCCESS, within=40)["attempt"] == 1
    assert worker.is_running
    eventually(lambda: not messages(queue) and not unacknowledged(), within=30)


@pytest.mark.parametrize(("away", "parts"), [(5.0, {}), (0.5, IN_PARTS)], ids=["one stream", "parts"])
def test_a_join_is_tried_again_after_an_outage_of_redis(
    start_worker: StartWorker, redis_server: Server, queue: str, away: float, parts: dict[str, str]
) -> None:
    worker = start_worker("first", RECONCILE_SECONDS="2", **parts)
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: has_written_rows(task_id))
    with killed(redis_server):
        time.sleep(away)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert task["metadata"] == METADATA
    assert worker.is_running
    eventually(lambda: has_nothing_left(task_id, queue), within=20)


def test_a_worker_that_could_not_acknowledge_takes_new_work_and_acknowledges_later(
    start_worker: StartWorker, submit_practice: Submit, redis_server: Server, queue: str
) -> None:
    start_worker("first", LONG_TASK_SECONDS="3")
    running = [submit_practice("x"), submit_practice("y")]
    for task_id in running:
        wait_for_state(task_id, states.STARTED)
    with paused(redis_server):
        for task_id in running:
            wait_for_state(task_id, states.SUCCESS)
        time.sleep(FROZEN_SECONDS)
    new = [submit_practice("new") for _ in range(3)]
    for task_id in new:
        wait_for_state(task_id, states.SUCCESS, within=30)
    # The next renewal repeats the acknowledgements, long before the leases run out.
    eventually(lambda: not messages(queue) and not unacknowledged())
    assert [ledger.find_task(task_id)["attempt"] for task_id in running] == [1, 1]


@contextmanager
def frozen(worker: Process) -> Iterator[None]:
    """Freezes a worker and its children, as closing a laptop's lid does."""
    worker.signal_group(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.signal_group(signal.SIGCONT)


def test_a_thawed_worker_does_not_touch_a_stream_restarted_by_another_worker(
    start_worker: StartWorker, queue: str
) -> None:
    first = start_worker("first")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: has_written_rows(task_id))
    start_worker("second")
    with frozen(first):
        eventually(lambda: "second@test" in starts(ledger.find_task(task_id)), within=30)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert (starts(task), task["metadata"]) == (["first@test", "second@test"], METADATA)
    eventually(lambda: has_nothing_left(task_id, queue), within=20)


def test_a_thawed_worker_does_not_touch_a_part_restarted_by_another_worker(
    start_worker: StartWorker, queue: str
) -> None:
    first = start_worker("first", **IN_PARTS)
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: has_written_rows(task_id, parts=2))
    start_worker("second", **IN_PARTS)

    def is_restarted() -> bool:
        begun: Any = connections().results.hmget(f"join_run:{task_id}", "begun:0", "begun:1")
        return any(int(times or 0) > 1 for times in begun)

    with frozen(first):
        eventually(is_restarted, within=30)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert json.loads(task["result"])["count"] == task["plan"]["parts"] * 500
    eventually(lambda: has_nothing_left(task_id, queue), within=20)

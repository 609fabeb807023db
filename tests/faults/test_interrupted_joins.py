"""If MongoDB interrupts a join that is not at fault, the join is tried again, and the interruption is not its error."""

import json
import time

import pytest
from celery import states
from pymongo.database import Database

from development.servers import Server
from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import (
    METADATA,
    has_written_rows,
    killed,
    mongodb_operations,
    slow_join,
    slow_rows_error,
    submit_to,
)
from tests.support import eventually, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan import user_orders
from worker_tasks.joins.run import lifecycle
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.timeout(120)

END_SECONDS = 60.0
IN_PARTS = {"PART_DOCUMENTS": "500"}


def kill_from_outside(task_id: str) -> None:
    """Kills the task's sessions, as an administrator does with long operations."""
    for operation in eventually(lambda: mongodb_operations(task_id)):
        if (session := operation.get("lsid")) is not None:
            connections().mongodb.admin.command("killSessions", [{"id": session["id"]}])


@pytest.mark.parametrize("parts", [{}, IN_PARTS], ids=["one stream", "parts"])
def test_a_join_killed_in_mongodb_is_tried_again_and_succeeds(
    slow: Database[Document], start_worker: StartWorker, queue: str, parts: dict[str, str]
) -> None:
    start_worker("first", **parts)
    task_id = submit_to(slow_join(), queue)
    for _ in range(2):
        eventually(lambda: has_written_rows(task_id))
        kill_from_outside(task_id)
        time.sleep(1.5)  # longer than the pause before the first retry
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert (task["attempt"], task["metadata"]) == (1, METADATA)


@pytest.mark.parametrize("parts", [{}, IN_PARTS], ids=["one stream", "parts"])
def test_a_join_whose_mongodb_dies_succeeds_after_the_outage(
    slow: Database[Document],
    start_worker: StartWorker,
    queue: str,
    mongodb_server: Server,
    parts: dict[str, str],
) -> None:
    start_worker("first", **parts)
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: has_written_rows(task_id))
    with killed(mongodb_server):
        time.sleep(4)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert slow_rows_error(task) is None
    assert task["metadata"] == METADATA


def test_a_join_that_is_killed_each_time_fails_with_that_reason(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    start_worker("first", MAX_ATTEMPTS="2")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: mongodb_operations(task_id))

    def ended_after_another_kill() -> Document | None:
        if mongodb_operations(task_id):
            kill_from_outside(task_id)
        task = ledger.find_task(task_id)
        return task if task["status"] in ledger.FINAL_STATES else None

    task = eventually(ended_after_another_kill, within=END_SECONDS)
    assert task["status"] == states.FAILURE
    assert "MongoDB broke it off 2 times" in task["result"]
    assert "16 MB" not in task["result"]


def test_an_outcome_missing_from_mongodb_is_found_in_redis_without_another_run(
    start_worker: StartWorker, submit_join: Submit
) -> None:
    task_id = submit_join("u1")
    # A worker leaves this state if MongoDB goes away just after the worker has published the result.
    claimed = ledger.claim(task_id, join_users_orders.name, ["u1"], {}, "first@test")
    assert isinstance(claimed, ledger.Claimed)
    published = lifecycle.start_run(task_id, claimed.attempt, user_orders.plan("u1"), lambda *_: None)
    assert published is not None
    assert published.summary is not None
    start_worker("second")
    task = wait_for_state(task_id, *ledger.FINAL_STATES)
    assert (task["status"], task["attempt"], task["metadata"]) == (states.SUCCESS, 2, METADATA)
    assert json.loads(task["result"]) == published.summary.outcome
    assert result_store.find_result(published.summary.key) == published.summary

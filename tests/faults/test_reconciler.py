"""The reconciler finishes or republishes tasks without a message, and leaves all other tasks alone."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import states

from tests.faults.conftest import StartWorker, Submit
from tests.faults.support import METADATA, failure_message, messages, notes, starts, unacknowledged
from tests.support import eventually, wait_for_state
from worker_tasks.infra import sources
from worker_tasks.infra.connections import connections
from worker_tasks.joins.plan import user_orders
from worker_tasks.joins.run import lifecycle, run_state
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.tasks import join_users_orders
from worker_tasks.worker import reconciler

pytestmark = pytest.mark.usefixtures("no_tasks")


def reconcile() -> list[str]:
    return reconciler.reconcile(app, timedelta(0))


def lose_messages(queue: str) -> None:
    assert connections().queue.delete(queue)


def test_a_waiting_task_without_a_message_is_published_again_under_its_id(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    task_id = submit_practice("lost")
    lose_messages(queue)
    assert reconcile() == [task_id]
    assert messages(queue) == [task_id]
    assert reconcile() == []
    start_worker()
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["result"] == '"Processed: lost"'
    assert task["attempt"] == 1
    assert task["metadata"] == METADATA
    assert "message lost, published again" in notes(task)


def test_a_started_task_without_a_message_is_published_again(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    task_id = submit_practice("lost")
    ledger.claim(task_id, "worker_tasks.tasks.long_running_task", ["lost"], {}, "gone@test")
    lose_messages(queue)
    assert reconcile() == [task_id]
    start_worker()
    task = wait_for_state(task_id, states.SUCCESS)
    assert starts(task) == ["gone@test", "first@test"]
    assert task["attempt"] == 2


def test_a_task_with_a_waiting_message_is_left_alone(submit_practice: Submit, queue: str) -> None:
    task_ids = [submit_practice("waits"), submit_practice("waits behind it")]
    before = [ledger.find_task(task_id) for task_id in task_ids]
    assert reconcile() == []
    assert messages(queue) == task_ids
    assert [ledger.find_task(task_id) for task_id in task_ids] == before


def test_a_running_task_is_left_alone(start_worker: StartWorker, submit_practice: Submit, queue: str) -> None:
    start_worker(LONG_TASK_SECONDS="5")
    task_id = submit_practice("runs")
    wait_for_state(task_id, states.STARTED)
    assert reconcile() == []
    assert (messages(queue), unacknowledged().count(task_id)) == ([], 1)
    task = wait_for_state(task_id, states.SUCCESS)
    assert (task["attempt"], len(task["timeline"])) == (1, 3)


def test_an_outcome_that_only_redis_has_finishes_its_task(submit_join: Submit, queue: str) -> None:
    task_id = submit_join("u1")
    ledger.claim(task_id, "worker_tasks.tasks.join_users_orders", ["u1"], {}, "gone@test")
    lose_messages(queue)
    outcome = lifecycle.start_run(task_id, 1, user_orders.plan("u1"), lambda *_: None)
    assert outcome is not None
    summary = outcome.summary
    assert summary is not None
    assert reconcile() == [task_id]
    assert messages(queue) == []
    task = ledger.find_task(task_id)
    assert task["status"] == states.SUCCESS
    assert app.AsyncResult(task_id).result == summary.outcome == result_store.find_outcome(task_id)
    assert task["date_done"] is not None
    assert task["result_expires_at"] == summary.expires_at
    assert task["metadata"] == METADATA
    assert task["attempt"] == 1


def test_a_lost_task_without_a_name_fails_with_that_reason(servers: None, queue: str) -> None:
    task_id = f"nameless-{queue}"
    ledger.transition(task_id, states.RETRY, note="of a task that nobody recorded")
    assert ledger.find_task(task_id)["name"] is None
    assert reconcile() == [task_id]
    task = ledger.find_task(task_id)
    assert task["status"] == states.FAILURE
    assert failure_message(task) == "Its message is lost, and nothing says what it was to do."
    assert task["date_done"] is not None
    assert reconcile() == []


def test_a_lost_task_that_was_cancelled_is_not_started_again(
    start_worker: StartWorker, submit_practice: Submit, queue: str
) -> None:
    task_id = submit_practice("lost")
    ledger.claim(task_id, "worker_tasks.tasks.long_running_task", ["lost"], {}, "gone@test")
    ledger.request_cancellation(task_id)
    lose_messages(queue)
    reconcile()
    start_worker()
    task = wait_for_state(task_id, states.REVOKED)
    assert starts(task) == ["gone@test"]


@pytest.mark.parametrize("ends_as", [states.REVOKED, states.SUCCESS])
def test_a_task_that_ends_just_before_its_repair_is_left_alone(
    submit_practice: Submit, queue: str, ends_as: str
) -> None:
    task_id = submit_practice("lost")
    lose_messages(queue)
    stale_document = ledger.find_task(task_id)
    ledger.transition(task_id, ends_as, fields={"cancel_requested": True})
    before = ledger.find_task(task_id)
    reconciler._repair(app, stale_document)
    assert ledger.find_task(task_id) == before
    assert messages(queue) == []


def test_finished_tasks_are_left_alone(start_worker: StartWorker, submit_join: Submit, queue: str) -> None:
    start_worker()
    task_ids = [submit_join("u1"), submit_join(" ")]
    before = [wait_for_state(task_id, states.SUCCESS, states.FAILURE) for task_id in task_ids]
    assert [task["status"] for task in before] == [states.SUCCESS, states.FAILURE]
    assert reconcile() == []
    assert [ledger.find_task(task_id) for task_id in task_ids] == before


def test_a_lost_task_behind_a_long_queue_is_found(
    submit_practice: Submit, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "BATCH", 5)
    waiting = [submit_practice("waits") for _ in range(reconciler.BATCH)]
    lost = submit_practice("lost")
    connections().queue.ltrim(queue, 1, -1)
    assert messages(queue) == waiting
    assert reconcile() == [lost]


def test_a_worker_finds_lost_tasks_by_itself(start_worker: StartWorker, submit_practice: Submit, queue: str) -> None:
    task_id = submit_practice("lost")
    lose_messages(queue)
    start_worker(RECONCILE_SECONDS="1")
    task = wait_for_state(task_id, states.SUCCESS)
    assert task["attempt"] == 1
    eventually(lambda: not unacknowledged())


def test_the_leftovers_of_a_run_are_cleared_once_its_task_has_ended(servers: None) -> None:
    ended, running = f"ended-{uuid4().hex}", f"under-way-{uuid4().hex}"
    for task_id in (ended, running):
        ledger.claim(task_id, join_users_orders.name, ["u1"], {}, "gone@test")
        run_state.open_run(task_id, run_state.name_of(task_id, 1), 2, None)
        writer = run_state.begin_part(task_id, run_state.name_of(task_id, 1), 0).writer
        connections().results.set(writer.key, b"[")
    ledger.transition(ended, states.FAILURE)
    lifecycle.clear_ended_runs()
    assert run_state.find_run(ended) is not None, "somebody may just be about to"
    long_ago = ledger.now() - timedelta(minutes=5)
    connections().tasks.update_many({"_id": {"$in": [ended, running]}}, {"$set": {"changed_at": long_ago}})
    lifecycle.clear_ended_runs()
    left: Any = connections().results.keys(f"*{ended}*")
    assert [key for key in left if not key.startswith(b"task_live:")] == []
    assert ended not in run_state.all_tasks()
    assert run_state.find_run(running) is not None
    lifecycle.clear_run(running)


def test_a_cursor_that_a_late_command_opened_is_closed_once_its_task_has_ended(servers: None) -> None:
    ended, running = f"ended-{uuid4().hex}", f"under-way-{uuid4().hex}"
    cursors = []
    for task_id in (ended, running):
        ledger.claim(task_id, join_users_orders.name, ["u1"], {}, "gone@test")
        comment = f"{sources.operation_prefix(run_state.name_of(task_id, 1))}0.{'ab' * 8}"
        numbers = connections().joins.numbers
        numbers.three.insert_many([{} for _ in range(3)])
        cursors.append(numbers.three.find({}, comment=comment, batch_size=1))
        next(cursors[-1])
    assert sources.tasks_with_operations() >= {ended, running}
    ledger.transition(ended, states.FAILURE)
    long_ago = ledger.now() - timedelta(minutes=5)
    connections().tasks.update_many({"_id": {"$in": [ended, running]}}, {"$set": {"changed_at": long_ago}})
    lifecycle.clear_ended_runs()
    left = sources.tasks_with_operations()
    assert running in left
    assert ended not in left
    for cursor in cursors:
        cursor.close()
    connections().joins.drop_database("numbers")

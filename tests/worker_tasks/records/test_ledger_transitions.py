"""Allowed transitions, and the fields that a transition preserves."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier

import pytest
from celery import states
from kombu.exceptions import EncodeError

from tests.worker_tasks.support import METADATA, new_id, task_in
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger

pytestmark = pytest.mark.usefixtures("servers")

STATES = ["PENDING", "RECEIVED", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]


def is_allowed(before: str, after: str) -> bool:
    """The rule for transitions, written independently of the ledger's filter."""
    if before in {"SUCCESS", "REVOKED"}:
        return False
    return before != "FAILURE" or after in {"SUCCESS", "FAILURE", "REVOKED"}


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_only_allowed_transitions_change_the_task(before: str, after: str) -> None:
    task_id = task_in(before, result='"kept"', traceback="kept", attempt=1)
    old = ledger.find_task(task_id)
    assert ledger.transition(task_id, after, attempt=1, fields={"result": '"new"'}) is is_allowed(before, after)
    task = ledger.find_task(task_id)
    if not is_allowed(before, after):
        assert task == old
        return
    changed = {"status", "result", "version", "revision", "timeline", "changed_at"}
    assert (task["status"], task["result"], task["version"]) == (after, '"new"', old["version"] + 1)
    assert [event["status"] for event in task["timeline"]] == ["PENDING", after]
    unchanged = old.keys() - changed
    assert {field: task[field] for field in unchanged} == {field: old[field] for field in unchanged}


@pytest.mark.parametrize("status", ["PENDING", "STARTED", "RETRY"])
def test_a_late_report_of_an_older_attempt_is_ignored(status: str) -> None:
    task_id = task_in("STARTED", attempt=2)
    old = ledger.find_task(task_id)
    assert ledger.transition(task_id, status, attempt=1) is False
    assert ledger.find_task(task_id) == old
    assert ledger.transition(task_id, status, attempt=2) is True


def test_success_is_accepted_from_any_attempt() -> None:
    task_id = task_in("STARTED", attempt=2)
    assert ledger.transition(task_id, "SUCCESS", attempt=1) is True


@pytest.mark.parametrize("status", STATES)
def test_a_transition_of_an_unknown_task_creates_a_complete_document(status: str) -> None:
    task_id = new_id()
    assert ledger.transition(task_id, status, attempt=1, fields={"result": '"new"'}, note="a note") is True
    task = ledger.find_task(task_id)
    assert task.keys() == ledger.new_document(task_id).keys()
    assert (task["status"], task["result"], task["metadata"], task["version"]) == (status, '"new"', {}, 1)
    assert [(event["status"], event["note"]) for event in task["timeline"]] == [(status, "a note")]


@pytest.mark.parametrize("status", ["STARTED", "SUCCESS"])
def test_concurrent_transitions_of_an_unknown_task_create_one_document(status: str) -> None:
    barrier = Barrier(4)

    def change(task_id: str) -> bool:
        barrier.wait()
        return ledger.transition(task_id, status)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            task_id = new_id()
            accepted = sum(threads.map(change, [task_id] * 4))
            assert accepted == (4 if status == "STARTED" else 1)
            assert connections().tasks.count_documents({"_id": task_id}) == 1
            assert ledger.find_task(task_id)["version"] == accepted


def test_one_of_several_concurrent_outcomes_wins() -> None:
    barrier = Barrier(4)

    def end(task_id: str, result: str) -> bool:
        barrier.wait()
        return ledger.transition(task_id, "SUCCESS", fields={"result": result})

    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            task_id = task_in("STARTED")
            accepted = list(threads.map(end, [task_id] * 4, "1234"))
            assert sorted(accepted) == [False, False, False, True]
            assert ledger.find_task(task_id)["result"] == "1234"[accepted.index(True)]


def test_the_timeline_keeps_the_newest_50_events() -> None:
    task_id = task_in("STARTED")
    for number in range(60):
        ledger.transition(task_id, states.RETRY, note=f"note {number}")
    task = ledger.find_task(task_id)
    assert [event["note"] for event in task["timeline"]] == [f"note {number}" for number in range(10, 60)]
    assert task["version"] == 61


def test_a_result_that_mongodb_cannot_store_changes_nothing() -> None:
    task_id = task_in("STARTED")
    old = ledger.find_task(task_id)
    for result in (2**70, "\ud800", object()):
        with pytest.raises(EncodeError):
            ledger.transition(task_id, "SUCCESS", fields={"result": result})
    assert ledger.find_task(task_id) == old
    assert old["metadata"] == METADATA


@pytest.mark.parametrize("status", [states.SUCCESS, states.FAILURE])
def test_a_late_outcome_does_not_undo_a_cancellation(status: str) -> None:
    task_id = new_id()
    ledger.claim(task_id, "name", [], {}, "worker")
    assert ledger.request_cancellation(task_id)
    assert not ledger.transition(task_id, status, fields={"result": '"late"'})
    task = ledger.find_task(task_id)
    assert (task["status"], task["result"]) == (states.REVOKED, ledger.CANCELLED)
    assert not ledger.transition(task_id, status)

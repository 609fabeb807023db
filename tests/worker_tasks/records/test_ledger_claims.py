"""Who may begin a task, and how one that is no longer wanted is kept from it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.worker_tasks.support import METADATA, new_id, task_in
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import TaskNotFound
from worker_tasks.records import ledger
from worker_tasks.records.ledger import Claimed, Refused

pytestmark = pytest.mark.usefixtures("servers")


def claim(task_id: str, worker: str = "first@test") -> Claimed | Refused:
    return ledger.claim(task_id, "a.task", ["u1"], {"option": 1}, worker)


@pytest.mark.parametrize("status", ["PENDING", "RECEIVED", "STARTED", "RETRY"])
def test_each_beginning_of_an_unfinished_task_is_counted(status: str) -> None:
    task_id = task_in(status, attempt=3, crashes=2)
    assert claim(task_id) == Claimed(4, crashes=3)
    task = ledger.find_task(task_id)
    assert (task["status"], task["attempt"], task["worker"], task["version"]) == ("STARTED", 4, "first@test", 2)
    assert task["started_at"] is not None
    assert task["metadata"] == METADATA


def test_a_beginning_whose_message_went_back_in_order_is_no_crash() -> None:
    task_id = task_in("STARTED", attempt=3, crashes=3)
    assert ledger.give_back(task_id, "back in the queue")
    task = ledger.find_task(task_id)
    assert (task["status"], task["crashes"], task["timeline"][-1]["note"]) == ("PENDING", 0, "back in the queue")
    assert claim(task_id) == Claimed(4, crashes=1)


def test_an_older_beginning_gives_nothing_back() -> None:
    task_id = task_in("STARTED", attempt=3, crashes=3)
    was = ledger.find_task(task_id)
    assert not ledger.give_back(task_id, "back in the queue", attempt=2)
    assert ledger.find_task(task_id) == was


def test_each_of_celery_s_own_retries_counts_its_crashes_anew() -> None:
    task_id = task_in("RETRY", attempt=3, crashes=3)
    counted = [ledger.claim(task_id, "a.task", [], {}, "first@test", retries=retries) for retries in (1, 1, 2, 2, 2, 3)]
    assert counted == [Claimed(4, 1), Claimed(5, 2), Claimed(6, 1), Claimed(7, 2), Claimed(8, 3), Claimed(9, 1)]


def test_the_beginnings_of_a_document_that_knows_no_crashes_are_counted() -> None:
    task_id = task_in("PENDING", attempt=3)
    connections().tasks.update_one({"_id": task_id}, {"$unset": {"crashes": "", "retries": ""}})
    assert [claim(task_id), claim(task_id)] == [Claimed(4, 1), Claimed(5, 2)]


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_finished_task_does_not_begin(status: str) -> None:
    task_id = task_in(status, result='"kept"')
    was = ledger.find_task(task_id)
    assert claim(task_id) == Refused(status)
    assert ledger.find_task(task_id) == was


@pytest.mark.parametrize("status", ["PENDING", "STARTED", "RETRY"])
def test_a_task_that_is_no_longer_wanted_does_not_begin_but_is_revoked(status: str) -> None:
    task_id = task_in(status, cancel_requested=True, attempt=1)
    assert claim(task_id) == Refused("REVOKED")
    task = ledger.find_task(task_id)
    assert (task["status"], task["attempt"]) == ("REVOKED", 1)
    assert task["date_done"] is not None
    assert task["timeline"][-1]["note"] == "cancelled before it began"


def test_a_task_that_nobody_recorded_gets_its_document() -> None:
    task_id = new_id()
    assert claim(task_id) == Claimed(1, crashes=1)
    task = ledger.find_task(task_id)
    assert task.keys() == ledger.new_document(task_id).keys()
    assert (task["name"], task["args"], task["kwargs"], task["metadata"]) == ("a.task", ["u1"], {"option": 1}, {})
    assert [event["status"] for event in task["timeline"]] == ["STARTED"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_claims_at_once_are_different_attempts(known: bool) -> None:
    together = Barrier(4)

    def begin(task_id: str) -> Claimed | Refused:
        together.wait()
        return claim(task_id)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            task_id = task_in("PENDING") if known else new_id()
            answers = list(threads.map(begin, [task_id] * 4))
            assert sorted(answers) == [Claimed(number, crashes=number) for number in (1, 2, 3, 4)]
            assert connections().tasks.count_documents({"_id": task_id}) == 1


def test_a_claim_and_a_cancellation_at_once_agree() -> None:
    together = Barrier(2)

    def at_once(act: str, task_id: str) -> bool:
        together.wait()
        return isinstance(claim(task_id), Claimed) if act == "claim" else ledger.request_cancellation(task_id)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            task_id = task_in("PENDING")
            begun, cancelled = threads.map(at_once, ["claim", "cancel"], [task_id] * 2)
            task = ledger.find_task(task_id)
            assert cancelled
            assert task["cancel_requested"]
            assert task["status"] == ("STARTED" if begun else "REVOKED")


def test_a_task_that_waits_is_revoked_at_once() -> None:
    task_id = task_in("PENDING")
    assert ledger.request_cancellation(task_id) is True
    task = ledger.find_task(task_id)
    assert (task["status"], task["cancel_requested"], task["version"]) == ("REVOKED", True, 2)
    assert task["date_done"] is not None
    assert task["metadata"] == METADATA


@pytest.mark.parametrize("status", ["RECEIVED", "STARTED", "RETRY"])
def test_of_a_task_that_was_begun_it_is_noted_that_it_is_no_longer_wanted(status: str) -> None:
    task_id = task_in(status)
    assert ledger.request_cancellation(task_id) is True
    task = ledger.find_task(task_id)
    assert (task["status"], task["cancel_requested"], task["version"]) == (status, True, 2)
    assert task["date_done"] is None
    assert task["timeline"][-1]["note"] == "cancel requested"


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_finished_task_is_not_cancelled(status: str) -> None:
    task_id = task_in(status)
    was = ledger.find_task(task_id)
    assert ledger.request_cancellation(task_id) is False
    assert ledger.find_task(task_id) == was


def test_an_unknown_task_can_not_be_cancelled() -> None:
    task_id = new_id()
    with pytest.raises(TaskNotFound):
        ledger.request_cancellation(task_id)
    assert connections().tasks.count_documents({"_id": task_id}) == 0

"""Claims of tasks, and cancellations that prevent them."""

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
def test_a_claim_of_an_unfinished_task_counts_the_attempt(status: str) -> None:
    task_id = task_in(status, attempt=3, crashes=2)
    assert claim(task_id) == Claimed(4, crashes=3)
    task = ledger.find_task(task_id)
    assert (task["status"], task["attempt"], task["worker"], task["version"]) == ("STARTED", 4, "first@test", 2)
    assert task["started_at"] is not None
    assert task["metadata"] == METADATA


def test_an_attempt_given_back_to_the_queue_is_no_crash() -> None:
    task_id = task_in("STARTED", attempt=3, crashes=3)
    assert ledger.give_back(task_id, "back in the queue")
    task = ledger.find_task(task_id)
    assert (task["status"], task["crashes"], task["timeline"][-1]["note"]) == ("PENDING", 0, "back in the queue")
    assert claim(task_id) == Claimed(4, crashes=1)


def test_an_outdated_attempt_cannot_give_the_task_back() -> None:
    task_id = task_in("STARTED", attempt=3, crashes=3)
    before = ledger.find_task(task_id)
    assert not ledger.give_back(task_id, "back in the queue", attempt=2)
    assert ledger.find_task(task_id) == before


def test_each_celery_retry_resets_the_count_of_crashes() -> None:
    task_id = task_in("RETRY", attempt=3, crashes=3)
    claims = [ledger.claim(task_id, "a.task", [], {}, "first@test", retries=retries) for retries in (1, 1, 2, 2, 2, 3)]
    assert claims == [Claimed(4, 1), Claimed(5, 2), Claimed(6, 1), Claimed(7, 2), Claimed(8, 3), Claimed(9, 1)]


def test_claims_count_crashes_of_documents_without_that_field() -> None:
    task_id = task_in("PENDING", attempt=3)
    connections().tasks.update_one({"_id": task_id}, {"$unset": {"crashes": "", "retries": ""}})
    assert [claim(task_id), claim(task_id)] == [Claimed(4, 1), Claimed(5, 2)]


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_claim_of_a_finished_task_is_refused(status: str) -> None:
    task_id = task_in(status, result='"kept"')
    before = ledger.find_task(task_id)
    assert claim(task_id) == Refused(status)
    assert ledger.find_task(task_id) == before


@pytest.mark.parametrize("status", ["PENDING", "STARTED", "RETRY"])
def test_a_claim_of_a_task_being_cancelled_revokes_it(status: str) -> None:
    task_id = task_in(status, cancel_requested=True, attempt=1)
    assert claim(task_id) == Refused("REVOKED")
    task = ledger.find_task(task_id)
    assert (task["status"], task["attempt"]) == ("REVOKED", 1)
    assert task["date_done"] is not None
    assert task["timeline"][-1]["note"] == "cancelled before it began"


def test_a_claim_of_an_unrecorded_task_creates_its_document() -> None:
    task_id = new_id()
    assert claim(task_id) == Claimed(1, crashes=1)
    task = ledger.find_task(task_id)
    assert task.keys() == ledger.new_document(task_id).keys()
    assert (task["name"], task["args"], task["kwargs"], task["metadata"]) == ("a.task", ["u1"], {"option": 1}, {})
    assert [event["status"] for event in task["timeline"]] == ["STARTED"]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
def test_concurrent_claims_are_different_attempts(recorded: bool) -> None:
    barrier = Barrier(4)

    def begin(task_id: str) -> Claimed | Refused:
        barrier.wait()
        return claim(task_id)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            task_id = task_in("PENDING") if recorded else new_id()
            claims = list(threads.map(begin, [task_id] * 4))
            assert sorted(claims) == [Claimed(number, crashes=number) for number in (1, 2, 3, 4)]
            assert connections().tasks.count_documents({"_id": task_id}) == 1


def test_a_concurrent_claim_and_cancellation_agree() -> None:
    barrier = Barrier(2)

    def race(action: str, task_id: str) -> bool:
        barrier.wait()
        return isinstance(claim(task_id), Claimed) if action == "claim" else ledger.request_cancellation(task_id)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            task_id = task_in("PENDING")
            claimed, cancelled = threads.map(race, ["claim", "cancel"], [task_id] * 2)
            task = ledger.find_task(task_id)
            assert cancelled
            assert task["cancel_requested"]
            assert task["status"] == ("STARTED" if claimed else "REVOKED")


def test_cancelling_a_waiting_task_revokes_it_at_once() -> None:
    task_id = task_in("PENDING")
    assert ledger.request_cancellation(task_id) is True
    task = ledger.find_task(task_id)
    assert (task["status"], task["cancel_requested"], task["version"]) == ("REVOKED", True, 2)
    assert task["date_done"] is not None
    assert task["metadata"] == METADATA


@pytest.mark.parametrize("status", ["RECEIVED", "STARTED", "RETRY"])
def test_cancelling_a_started_task_records_the_request(status: str) -> None:
    task_id = task_in(status)
    assert ledger.request_cancellation(task_id) is True
    task = ledger.find_task(task_id)
    assert (task["status"], task["cancel_requested"], task["version"]) == (status, True, 2)
    assert task["date_done"] is None
    assert task["timeline"][-1]["note"] == "cancel requested"


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_cancelling_a_finished_task_changes_nothing(status: str) -> None:
    task_id = task_in(status)
    before = ledger.find_task(task_id)
    assert ledger.request_cancellation(task_id) is False
    assert ledger.find_task(task_id) == before


def test_cancelling_an_unknown_task_is_an_error() -> None:
    task_id = new_id()
    with pytest.raises(TaskNotFound):
        ledger.request_cancellation(task_id)
    assert connections().tasks.count_documents({"_id": task_id}) == 0

"""A submitted task is either recorded and published, or neither, and errors come in time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from kombu.exceptions import EncodeError

from development.servers import Server
from tests.support import REFUSALS, eventually, paused, refusing
from tests.worker_tasks.support import (
    METADATA,
    UNATTENDED,
    answered_in_time,
    messages,
    new_id,
    recorded,
    task_in,
    waiting,
)
from worker_tasks import submission
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import REDIS_REFUSALS, DovetailError, InvalidInput, ServiceUnavailable, TaskNotFound
from worker_tasks.joins.run import sharing
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.records import leads, ledger
from worker_tasks.submission import read_join, submit, submit_again, submit_join

pytestmark = pytest.mark.usefixtures("servers")

ORDERS = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}


def test_a_submitted_task_is_queued_and_recorded_with_its_metadata() -> None:
    task_id = submit(waiting, "u1", metadata=METADATA, requested_by="ann@example.com")
    assert messages().count(task_id) == 1
    task = ledger.find_task(task_id)
    assert (task["status"], task["name"], task["args"], task["kwargs"]) == ("PENDING", "tests.waiting", ["u1"], {})
    assert (task["metadata"], task["requested_by"]) == (METADATA, "ann@example.com")
    assert (task["queue"], task["version"], task["attempt"]) == (UNATTENDED, 1, 0)


def test_a_task_without_metadata_has_an_empty_object() -> None:
    task = ledger.find_task(submit(waiting))
    assert (task["metadata"], task["requested_by"]) == ({}, None)


def test_each_submission_makes_a_new_task() -> None:
    first, second = submit(waiting, "u1", metadata={"number": 1}), submit(waiting, "u1", metadata={"number": 2})
    assert [ledger.find_task(task_id)["metadata"] for task_id in (first, second)] == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("bad", [{"$where": 1}, {"number": 2**70}, {"text": "\ud800"}, {"long": "x" * 20_000}, []])
def test_metadata_that_cannot_be_stored_is_refused_and_leaves_no_trace(bad: Any) -> None:
    documents, queued = connections().tasks.count_documents({}), messages()
    with pytest.raises(InvalidInput, match="metadata"):
        submit(waiting, metadata=bad)
    assert connections().tasks.count_documents({}) == documents
    assert messages() == queued


@pytest.mark.parametrize("unstorable", [2**70, "\ud800", object()], ids=["70 bits", "half a character", "an object"])
def test_arguments_that_mongodb_cannot_store_are_refused_and_leave_no_trace(unstorable: Any) -> None:
    mark, queued = new_id(), messages()
    with pytest.raises(EncodeError):
        submit(waiting, unstorable, metadata={"mark": mark})
    assert recorded(mark) == []
    assert messages() == queued


def test_while_redis_is_away_submitting_fails_in_time_and_records_nothing(redis_server: Server) -> None:
    mark = new_id()
    with paused(redis_server), answered_in_time(), pytest.raises(ServiceUnavailable, match="Redis does not answer"):
        submit(waiting, metadata={"mark": mark})
    assert recorded(mark) == []


@pytest.mark.parametrize(("refusal", "title"), [(refusal, REDIS_REFUSALS[refusal][0]) for refusal in REFUSALS])
def test_while_redis_refuses_writes_submitting_fails_and_records_nothing(refusal: str, title: str) -> None:
    mark = new_id()
    with refusing(refusal), answered_in_time(), pytest.raises(ServiceUnavailable) as error:
        submit(waiting, metadata={"mark": mark})
    assert error.value.title == title
    assert recorded(mark) == []


def room_checks() -> int:
    """The number of checks so far whether Redis accepts a message."""
    stats: Any = connections().queue.info("commandstats")
    return int(stats.get("cmdstat_setrange", {"calls": 0})["calls"])


@contextmanager
def after_the_room_check(mongodb: Server, mark: str) -> Iterator[Future[str]]:
    """A submission that has checked Redis and waits for MongoDB to record it. It continues when the context ends."""
    before = room_checks()
    with ThreadPoolExecutor(1) as executor, paused(mongodb):
        pending = executor.submit(submit, waiting, metadata={"mark": mark}, requested_by="ann@example.com")
        eventually(lambda: room_checks() > before)
        yield pending


def test_a_task_is_recorded_as_not_published_if_redis_went_away_after_the_check(
    redis_server: Server, mongodb_server: Server
) -> None:
    mark = new_id()
    with ExitStack() as away:
        with after_the_room_check(mongodb_server, mark) as pending:
            away.enter_context(paused(redis_server))
        with pytest.raises(ServiceUnavailable, match="Redis does not answer"):
            pending.result()
    (task,) = recorded(mark)
    assert (task["status"], task["requested_by"]) == ("FAILURE", "ann@example.com")
    assert "NotPublished" in task["result"]
    assert "will not run" in task["result"]
    assert task["date_done"] is not None
    assert [event["note"] for event in task["timeline"]] == [None, "not published"]
    # Redis may read the message when it comes back. Even then, the task must not run.
    assert ledger.claim(task["_id"], task["name"], [], {}, "first@test") == ledger.Refused("FAILURE")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_record_is_withdrawn_if_redis_refuses_after_the_check(refusal: str, mongodb_server: Server) -> None:
    # On a busy machine, the submission may reach its time limit while MongoDB is paused, so the test tries again.
    for _ in range(3):
        mark, queued = new_id(), messages()
        with ExitStack() as outage:
            with after_the_room_check(mongodb_server, mark) as pending:
                outage.enter_context(refusing(refusal))
            with pytest.raises(ServiceUnavailable) as error:
                pending.result()
        if error.value.title != "MongoDB is away":
            break
    assert error.value.title == REDIS_REFUSALS[refusal][0]
    assert recorded(mark) == []
    assert messages() == queued


def test_a_record_that_has_changed_is_not_withdrawn() -> None:
    task = ledger.find_task(submit(waiting))
    assert ledger.request_cancellation(task["_id"])
    assert not ledger.withdraw(task)
    assert ledger.find_task(task["_id"])["status"] == "REVOKED"


def test_while_mongodb_is_away_submitting_fails_in_time_and_publishes_nothing(mongodb_server: Server) -> None:
    mark, queued = new_id(), messages()
    with paused(mongodb_server):
        with answered_in_time(), pytest.raises(ServiceUnavailable, match="MongoDB does not answer"):
            submit(waiting, metadata={"mark": mark})
        assert messages() == queued


def test_submitting_again_makes_a_new_task_with_the_same_arguments() -> None:
    first = task_in("FAILURE", args=["u1", 2], kwargs={"option": 1}, queue=UNATTENDED, attempt=3, result='"old"')
    second = submit_again(first)
    assert second != first
    assert messages().count(second) == 1
    original, again = ledger.find_task(first), ledger.find_task(second)
    for field in ("name", "args", "kwargs", "queue", "metadata"):
        assert again[field] == original[field], field
    assert (again["status"], again["attempt"], again["result"]) == ("PENDING", 0, "null")
    assert original["status"] == "FAILURE"


def test_an_unknown_task_cannot_be_submitted_again() -> None:
    queued = messages()
    with pytest.raises(TaskNotFound):
        submit_again(new_id())
    assert messages() == queued


def test_a_task_without_a_name_cannot_be_submitted_again() -> None:
    nameless = task_in("FAILURE", name=None)
    with pytest.raises(DovetailError):
        submit_again(nameless)


@pytest.mark.parametrize("server", ["redis_server", "mongodb_server"])
def test_submitting_again_while_a_server_is_away_fails_in_time_and_works_later(
    server: str, request: pytest.FixtureRequest
) -> None:
    task_id, away = task_in("SUCCESS", queue=UNATTENDED), request.getfixturevalue(server)
    with paused(away), answered_in_time(), pytest.raises(ServiceUnavailable, match=away.name):
        submit_again(task_id)
    # The outage leaves no trace.
    assert submit_again(task_id) in messages()


def led_join() -> tuple[JoinSpec, str]:
    """A join, and the id of a task that leads it and never ends."""
    spec = read_join({"database": "shop", "from": "users", "match": {"_id": new_id()}, "joins": [ORDERS]})
    leader = ledger.new_document(new_id(), submission.RUN_JOIN, [spec.canonical()], fingerprint=spec.fingerprint)
    ledger.record(leader | {"leads": spec.fingerprint})
    return spec, leader["_id"]


def test_a_recorded_follower_is_accepted_even_if_mongodb_then_goes_away(
    shop: object, mongodb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, leader_id = led_join()
    join_run = sharing.join_run

    def join_run_without_mongodb(*arguments: Any) -> None:
        with paused(mongodb_server):
            join_run(*arguments)

    monkeypatch.setattr(sharing, "join_run", join_run_without_mongodb)
    follower = submit_join(spec)
    assert ledger.find_task(follower)["shares"] == leader_id


def test_a_task_joins_the_run_of_a_cancelled_leader_that_is_still_planned(shop: object) -> None:
    spec, leader_id = led_join()
    assert leads.leave_run(leader_id)
    follower = ledger.find_task(submit_join(spec))
    assert (follower["status"], follower["shares"]) == ("PENDING", leader_id)
    assert "leads" in ledger.find_task(leader_id)

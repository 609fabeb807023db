"""The one way in: recorded first, then published; or neither, and said so in time."""

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


def test_a_submitted_task_waits_in_the_queue_and_is_recorded_with_its_metadata() -> None:
    task_id = submit(waiting, "u1", metadata=METADATA, requested_by="ann@example.com")
    assert messages().count(task_id) == 1
    task = ledger.find_task(task_id)
    assert (task["status"], task["name"], task["args"], task["kwargs"]) == ("PENDING", "tests.waiting", ["u1"], {})
    assert (task["metadata"], task["requested_by"]) == (METADATA, "ann@example.com")
    assert (task["queue"], task["version"], task["attempt"]) == (UNATTENDED, 1, 0)


def test_a_task_without_metadata_has_an_empty_object_of_them() -> None:
    task = ledger.find_task(submit(waiting))
    assert (task["metadata"], task["requested_by"]) == ({}, None)


def test_each_submission_is_a_task_of_its_own() -> None:
    first, second = submit(waiting, "u1", metadata={"number": 1}), submit(waiting, "u1", metadata={"number": 2})
    assert [ledger.find_task(task_id)["metadata"] for task_id in (first, second)] == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("bad", [{"$where": 1}, {"number": 2**70}, {"text": "\ud800"}, {"long": "x" * 20_000}, []])
def test_metadata_that_can_not_be_kept_are_refused_and_leave_no_trace(bad: Any) -> None:
    documents, queued = connections().tasks.count_documents({}), messages()
    with pytest.raises(InvalidInput, match="metadata"):
        submit(waiting, metadata=bad)
    assert connections().tasks.count_documents({}) == documents
    assert messages() == queued


@pytest.mark.parametrize("unstorable", [2**70, "\ud800", object()], ids=["70 bits", "half a character", "an object"])
def test_arguments_that_mongodb_can_not_store_are_refused_and_leave_no_trace(unstorable: Any) -> None:
    mark, queued = new_id(), messages()
    with pytest.raises(EncodeError):
        submit(waiting, unstorable, metadata={"mark": mark})
    assert recorded(mark) == []
    assert messages() == queued


def test_while_redis_is_away_the_asker_is_told_in_time_and_nothing_is_recorded(redis_server: Server) -> None:
    mark = new_id()
    with paused(redis_server), answered_in_time(), pytest.raises(ServiceUnavailable, match="Redis does not answer"):
        submit(waiting, metadata={"mark": mark})
    assert recorded(mark) == []


@pytest.mark.parametrize(("word", "title"), [(word, REDIS_REFUSALS[word][0]) for word in REFUSALS])
def test_a_redis_that_refuses_is_looked_at_first_and_nothing_is_recorded(word: str, title: str) -> None:
    mark = new_id()
    with refusing(word), answered_in_time(), pytest.raises(ServiceUnavailable) as refused:
        submit(waiting, metadata={"mark": mark})
    assert refused.value.title == title
    assert recorded(mark) == []


def looks() -> int:
    """How often Redis was asked whether it takes a message."""
    asked: Any = connections().queue.info("commandstats")
    return int(asked.get("cmdstat_setrange", {"calls": 0})["calls"])


@contextmanager
def after_the_look(mongodb: Server, mark: str) -> Iterator[Future[str]]:
    """A submission that has looked at Redis and waits for MongoDB to record it; it goes on at the end."""
    before = looks()
    with ThreadPoolExecutor(1) as person, paused(mongodb):
        asked = person.submit(submit, waiting, metadata={"mark": mark}, requested_by="ann@example.com")
        eventually(lambda: looks() > before)
        yield asked


def test_of_a_redis_that_went_away_after_the_look_the_record_says_that_the_task_was_not_published(
    redis_server: Server, mongodb_server: Server
) -> None:
    mark = new_id()
    with ExitStack() as away:
        with after_the_look(mongodb_server, mark) as asked:
            away.enter_context(paused(redis_server))
        with pytest.raises(ServiceUnavailable, match="Redis does not answer"):
            asked.result()
    (task,) = recorded(mark)
    assert (task["status"], task["requested_by"]) == ("FAILURE", "ann@example.com")
    assert "NotPublished" in task["result"]
    assert "will not run" in task["result"]
    assert task["date_done"] is not None
    assert [event["note"] for event in task["timeline"]] == [None, "not published"]
    # Also if Redis read the message when it came back.
    assert ledger.claim(task["_id"], task["name"], [], {}, "first@test") == ledger.Refused("FAILURE")


@pytest.mark.parametrize("word", REFUSALS)
def test_what_redis_refuses_after_the_look_is_taken_back(word: str, mongodb_server: Server) -> None:
    mark, queued = new_id(), messages()
    with ExitStack() as refusal:
        with after_the_look(mongodb_server, mark) as asked:
            refusal.enter_context(refusing(word))
        with pytest.raises(ServiceUnavailable) as refused:
            asked.result()
    assert refused.value.title == REDIS_REFUSALS[word][0]
    assert recorded(mark) == []
    assert messages() == queued


def test_a_task_that_changed_since_it_was_recorded_is_not_taken_back() -> None:
    task = ledger.find_task(submit(waiting))
    assert ledger.request_cancellation(task["_id"])
    assert not ledger.withdraw(task)
    assert ledger.find_task(task["_id"])["status"] == "REVOKED"


def test_while_mongodb_is_away_the_asker_is_told_in_time_and_nothing_is_published(mongodb_server: Server) -> None:
    mark, queued = new_id(), messages()
    with paused(mongodb_server):
        with answered_in_time(), pytest.raises(ServiceUnavailable, match="MongoDB does not answer"):
            submit(waiting, metadata={"mark": mark})
        assert messages() == queued


def test_submitting_again_asks_for_the_same_as_a_new_task() -> None:
    first = task_in("FAILURE", args=["u1", 2], kwargs={"option": 1}, queue=UNATTENDED, attempt=3, result='"old"')
    second = submit_again(first)
    assert second != first
    assert messages().count(second) == 1
    asked, again = ledger.find_task(first), ledger.find_task(second)
    for field in ("name", "args", "kwargs", "queue", "metadata"):
        assert again[field] == asked[field], field
    assert (again["status"], again["attempt"], again["result"]) == ("PENDING", 0, "null")
    assert asked["status"] == "FAILURE"


def test_an_unknown_task_can_not_be_submitted_again() -> None:
    queued = messages()
    with pytest.raises(TaskNotFound):
        submit_again(new_id())
    assert messages() == queued


def test_a_task_of_which_nothing_says_what_it_was_to_do_can_not_be_submitted_again() -> None:
    nameless = task_in("FAILURE", name=None)
    with pytest.raises(DovetailError):
        submit_again(nameless)


@pytest.mark.parametrize("server", ["redis_server", "mongodb_server"])
def test_submitting_again_while_a_server_is_away_is_answered_in_time_and_works_afterwards(
    server: str, request: pytest.FixtureRequest
) -> None:
    asked, away = task_in("SUCCESS", queue=UNATTENDED), request.getfixturevalue(server)
    with paused(away), answered_in_time(), pytest.raises(ServiceUnavailable, match=away.name):
        submit_again(asked)
    # And when it is back, it is as if nothing had been.
    assert submit_again(asked) in messages()


def led_join() -> tuple[JoinSpec, str]:
    """A join, and the id of a task that leads it and never ends."""
    spec = read_join({"database": "shop", "from": "users", "match": {"_id": new_id()}, "joins": [ORDERS]})
    leader = ledger.new_document(new_id(), submission.RUN_JOIN, [spec.canonical()], fingerprint=spec.fingerprint)
    ledger.record(leader | {"leads": spec.fingerprint})
    return spec, leader["_id"]


def test_a_recorded_follower_is_accepted_though_mongodb_goes_away_right_after(
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

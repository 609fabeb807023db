"""The live state has the revision and progress of a task, so that polls do not have to read its document."""

from collections.abc import Callable

import pytest
from redis.exceptions import RedisError

from development.servers import Server
from tests.support import REFUSALS, paused, refusing
from tests.worker_tasks.support import answered_in_time, new_id
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger, live
from worker_tasks.records.live import LIVE_SECONDS, Live, Progress

pytestmark = pytest.mark.usefixtures("servers")


def tag(task_id: str) -> str:
    state = live.read_live(task_id)
    assert state is not None
    return state.tag


def time_to_live(task_id: str) -> int:
    """Seconds until the live state of the task expires."""
    (key,) = connections().results.keys(f"*{task_id}*")
    return int(connections().results.ttl(key))


def test_a_task_without_an_announcement_has_no_live_state() -> None:
    assert live.read_live(new_id()) is None


def test_an_announced_revision_is_read_back() -> None:
    task_id = new_id()
    live.announce(task_id, "3")
    assert live.read_live(task_id) == Live("3.0", None)
    assert 0 < time_to_live(task_id) <= LIVE_SECONDS


def test_each_announcement_and_each_report_changes_the_tag() -> None:
    task_id = new_id()
    tags = []
    changes: list[Callable[[], None]] = [
        lambda: live.announce(task_id, "1"),
        lambda: live.announce(task_id, "2"),
        lambda: live.report(task_id, Progress(1, 20, "steps")),
        lambda: live.report(task_id, Progress(1, 20, "steps")),
        lambda: live.announce(task_id, "11"),
    ]
    for change in changes:
        change()
        tags.append(tag(task_id))
    assert len(set(tags)) == len(tags)


def test_reported_progress_is_read_back() -> None:
    task_id = new_id()
    live.announce(task_id, "2")
    live.report(task_id, Progress(3, 20, "ünïts"))
    assert live.read_live(task_id) == Live("2.1", Progress(3, 20, "ünïts"))
    assert 0 < time_to_live(task_id) <= LIVE_SECONDS


def test_progress_without_a_revision_is_ignored() -> None:
    task_id = new_id()
    live.report(task_id, Progress(3, 20, "steps"))
    assert live.read_live(task_id) is None


def test_an_expired_revision_is_announced_again_unless_a_newer_one_exists() -> None:
    task_id = new_id()
    live.announce_if_unknown(task_id, "2")
    assert tag(task_id) == "2.0"
    live.announce_if_unknown(task_id, "1")
    assert tag(task_id) == "2.0"
    assert 0 < time_to_live(task_id) <= LIVE_SECONDS


def test_each_change_of_a_task_announces_its_revision() -> None:
    document = ledger.new_document(new_id())
    task_id = document["_id"]
    changes: list[Callable[[], object]] = [
        lambda: ledger.record(document),
        lambda: ledger.claim(task_id, "a.task", [], {}, "first@test"),
        lambda: ledger.request_cancellation(task_id),
        lambda: ledger.transition(task_id, "SUCCESS"),
        lambda: ledger.record(document),
    ]
    for change in changes:
        change()
        assert tag(task_id) == f"{ledger.find_task(task_id)['revision']}.0"


@pytest.mark.parametrize(
    ("publish", "warning"),
    [
        (lambda: live.announce("lost", "1"), "revision of task lost not announced"),
        (lambda: live.report("lost", Progress(1, 2, "steps")), "progress of task lost not reported"),
    ],
    ids=["announce", "report"],
)
def test_a_frozen_redis_causes_a_warning_and_no_delay(
    publish: Callable[[], None], warning: str, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with paused(redis_server), answered_in_time():
        publish()
    assert warning in caplog.text


def test_reading_from_a_frozen_redis_fails_in_time(redis_server: Server) -> None:
    with paused(redis_server), answered_in_time(), pytest.raises(RedisError):
        live.read_live(new_id())


def test_a_transition_succeeds_without_redis(redis_server: Server) -> None:
    task_id = new_id()
    with paused(redis_server), answered_in_time():
        ledger.transition(task_id, "STARTED")
    assert ledger.find_task(task_id)["status"] == "STARTED"


def test_a_follower_shows_the_progress_of_its_leader() -> None:
    leader, follower = new_id(), new_id()
    live.announce_if_unknown(leader, "1")
    live.announce_if_unknown(follower, "7", follows=leader)
    before = live.read_live(follower)
    live.report(leader, Progress(40, None, "rows"))
    after = live.read_live(follower)
    assert before is not None
    assert after is not None
    assert (before.progress, after.progress) == (None, Progress(40, None, "rows"))
    assert before.tag != after.tag
    assert after.follows == leader


@pytest.mark.parametrize("word", [*REFUSALS, "MASTERDOWN"])
def test_no_error_is_raised_while_redis_refuses_writes(word: str) -> None:
    task_id = new_id()
    with refusing(word):
        live.announce(task_id, "1")
        live.report(task_id, Progress(1, 2, "rows"))
        live.announce_if_unknown(task_id, "1")
    live.announce(task_id, "2")
    assert tag(task_id) == "2.0"

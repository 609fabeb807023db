"""A run apart from those who ask for it: they come and go, and the last one out stops it."""

from itertools import count
from typing import Any

import pytest
from celery import states
from pymongo.database import Database

from tests.faults.conftest import StartWorker
from tests.faults.support import METADATA, in_mongodb, is_written, slow_join, wrong_with_slow_rows
from tests.support import eventually, submit_join, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger, task_search
from worker_tasks.submission import cancel
from worker_tasks.tasks import long_running_task

pytestmark = pytest.mark.timeout(120)

ENDS_WITHIN = 60.0
NUMBERS = count(1)
WAYS = pytest.mark.parametrize("way", ["one stream", "parts"])


@pytest.fixture
def join(slow: Database[Document], start_worker: StartWorker, way: str) -> Document:
    """A slow join that a worker is there for, and another one in each test."""
    start_worker("first", "--queues celery", PART_DOCUMENTS="500" if way == "parts" else "100000")
    return slow_join(match={"_id": {"$gte": -next(NUMBERS)}})


def under_way(join: Document) -> str:
    """Submits the join; its task, once the run has written rows."""
    task_id = submit_join(join, metadata=METADATA)
    eventually(lambda: is_written(task_id))
    return task_id


def left_over(task_id: str) -> list[bytes]:
    """The keys of runs of this task that are in Redis."""
    staged: Any = connections().results.keys(f"staging:{task_id}*")
    runs: Any = connections().results.keys(f"join_*:{task_id}*")
    return [*staged, *runs]


@WAYS
def test_a_run_goes_on_for_those_who_share_it_and_who_asks_next_joins_it(join: Document) -> None:
    leader = under_way(join)
    follower = submit_join(join, metadata=METADATA | {"who": "follower"})
    assert ledger.find_task(follower)["shares"] == leader
    assert cancel(leader)
    assert ledger.find_task(leader)["status"] == states.REVOKED
    assert in_mongodb(leader)
    late = submit_join(join, metadata=METADATA | {"who": "late"})
    assert ledger.find_task(late)["shares"] == leader
    tasks = [wait_for_state(task_id, *ledger.FINAL_STATES, within=ENDS_WITHIN) for task_id in (follower, late)]
    assert [wrong_with_slow_rows(task) for task in tasks] == [None, None]
    assert [task["metadata"].get("who") for task in tasks] == ["follower", "late"]
    assert [ledger.find_task(task_id)["attempt"] for task_id in (leader, follower, late)] == [1, 0, 0]
    assert task_search.leader_of(tasks[0]["fingerprint"]) is None
    eventually(lambda: not left_over(leader))


@WAYS
def test_the_last_one_to_leave_stops_the_run_and_who_asks_next_begins_another(join: Document) -> None:
    leader = under_way(join)
    follower = submit_join(join, metadata=METADATA)
    assert cancel(leader)
    assert cancel(follower)
    assert in_mongodb(leader) == []
    assert [ledger.find_task(task_id)["status"] for task_id in (leader, follower)] == [states.REVOKED] * 2
    assert not cancel(leader)
    anew = submit_join(join, metadata=METADATA)
    assert ledger.find_task(anew)["shares"] is None
    eventually(lambda: not left_over(leader))
    eventually(lambda: is_written(anew))
    assert cancel(anew)
    assert wait_for_state(anew, *ledger.FINAL_STATES)["status"] == states.REVOKED
    eventually(lambda: not left_over(anew))


@pytest.mark.parametrize("way", ["one stream"])
def test_the_practice_task_stops_when_it_is_cancelled(start_worker: StartWorker, queue: str, way: str) -> None:
    start_worker("first", LONG_TASK_SECONDS="60")
    task_id = long_running_task.apply_async(["x"], queue=queue, metadata=METADATA).id
    wait_for_state(task_id, states.STARTED)
    assert cancel(task_id)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=15)
    assert (task["status"], task["metadata"]) == (states.REVOKED, METADATA)
    assert left_over(task_id) == []

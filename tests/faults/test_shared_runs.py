"""Tasks may join and leave a shared run. Cancelling the last one stops the run."""

from itertools import count
from typing import Any

import pytest
from celery import states
from pymongo.database import Database

from tests.faults.conftest import StartWorker
from tests.faults.support import METADATA, has_written_rows, mongodb_operations, slow_join, slow_rows_error
from tests.support import eventually, submit_join, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger, task_search
from worker_tasks.submission import cancel
from worker_tasks.tasks import long_running_task

pytestmark = pytest.mark.timeout(120)

END_SECONDS = 60.0
DISTINCT = count(1)
BOTH_MODES = pytest.mark.parametrize("mode", ["one stream", "parts"])


@pytest.fixture
def join(slow: Database[Document], start_worker: StartWorker, mode: str) -> Document:
    """A slow join, different in each test, and a worker for it."""
    start_worker("first", "--queues celery", PART_DOCUMENTS="500" if mode == "parts" else "100000")
    return slow_join(match={"_id": {"$gte": -next(DISTINCT)}})


def running(join: Document) -> str:
    """Submits the join. Returns its task once the run has written rows."""
    task_id = submit_join(join, metadata=METADATA)
    eventually(lambda: has_written_rows(task_id))
    return task_id


def left_over(task_id: str) -> list[bytes]:
    """The keys in Redis that belong to runs of this task."""
    staged: Any = connections().results.keys(f"staging:{task_id}*")
    runs: Any = connections().results.keys(f"join_*:{task_id}*")
    return [*staged, *runs]


@BOTH_MODES
def test_a_run_without_its_leader_goes_on_for_followers_and_accepts_new_ones(join: Document) -> None:
    leader = running(join)
    follower = submit_join(join, metadata=METADATA | {"who": "follower"})
    assert ledger.find_task(follower)["shares"] == leader
    assert cancel(leader)
    assert ledger.find_task(leader)["status"] == states.REVOKED
    assert mongodb_operations(leader)
    late = submit_join(join, metadata=METADATA | {"who": "late"})
    assert ledger.find_task(late)["shares"] == leader
    tasks = [wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS) for task_id in (follower, late)]
    assert [slow_rows_error(task) for task in tasks] == [None, None]
    assert [task["metadata"].get("who") for task in tasks] == ["follower", "late"]
    assert [ledger.find_task(task_id)["attempt"] for task_id in (leader, follower, late)] == [1, 0, 0]
    assert task_search.leader_of(tasks[0]["fingerprint"]) is None
    eventually(lambda: not left_over(leader))


@BOTH_MODES
def test_cancelling_the_last_task_stops_the_run_and_the_next_task_starts_another(join: Document) -> None:
    leader = running(join)
    follower = submit_join(join, metadata=METADATA)
    assert cancel(leader)
    assert cancel(follower)
    assert mongodb_operations(leader) == []
    assert [ledger.find_task(task_id)["status"] for task_id in (leader, follower)] == [states.REVOKED] * 2
    assert not cancel(leader)
    next_task = submit_join(join, metadata=METADATA)
    assert ledger.find_task(next_task)["shares"] is None
    eventually(lambda: not left_over(leader))
    eventually(lambda: has_written_rows(next_task))
    assert cancel(next_task)
    assert wait_for_state(next_task, *ledger.FINAL_STATES)["status"] == states.REVOKED
    eventually(lambda: not left_over(next_task))


@pytest.mark.parametrize("mode", ["one stream"])
def test_the_practice_task_stops_when_it_is_cancelled(start_worker: StartWorker, queue: str, mode: str) -> None:
    start_worker("first", LONG_TASK_SECONDS="60")
    task_id = long_running_task.apply_async(["x"], queue=queue, metadata=METADATA).id
    wait_for_state(task_id, states.STARTED)
    assert cancel(task_id)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=15)
    assert (task["status"], task["metadata"]) == (states.REVOKED, METADATA)
    assert left_over(task_id) == []

"""Joins that are stopped, die, or reach a limit: MongoDB ends its operations, and the rows joined so far are kept."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import states
from pymongo.database import Database

from development.servers import Server, start_redis
from tests.faults.conftest import StartWorker
from tests.faults.support import (
    METADATA,
    TAGGED,
    child_that_runs,
    failure_message,
    mongodb_operations,
    slow_join,
    submit_to,
)
from tests.support import eventually, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.planning import Plan
from worker_tasks.joins.plan.strategy import choose_strategy
from worker_tasks.joins.run import lifecycle, run_state
from worker_tasks.joins.run.lifecycle import PartJob
from worker_tasks.joins.spec.spec import parse_spec
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.results import result_store, result_writer, summaries
from worker_tasks.submission import cancel
from worker_tasks.tasks import run_join

pytestmark = pytest.mark.timeout(180)

POOLS = ["prefork", "threads"]


def first_rows(task_id: str) -> list[Any]:
    state = run_state.find_run(task_id)
    return result_writer.glimpse(state.first_key, 10) if state else []


def cancelled(task_id: str) -> Document:
    """Cancels a task, which must end its operations in MongoDB at once. Returns the final task document."""
    assert cancel(task_id)
    assert mongodb_operations(task_id) == []
    return wait_for_state(task_id, *ledger.FINAL_STATES, within=5)


def assert_revoked(task: Document) -> None:
    assert task["status"] == states.REVOKED
    assert task["metadata"] == METADATA
    assert task["timeline"][-1]["note"] == "stopped; MongoDB has nothing of it left"


def partial_rows(task: Document) -> list[Any]:
    summary = result_store.find_result(task["partial"]["redis_key"])
    assert summary is not None
    assert not summary.complete
    value: Any = connections().results.get(summary.key)
    rows: list[Any] = json.loads(value)
    assert len(rows) == task["partial"]["count"] == summary.count
    return rows


def assert_nothing_is_staged(task_id: str) -> None:
    eventually(lambda: connections().results.keys(f"staging:{task_id}*") == [])


@pytest.mark.parametrize("pool", POOLS)
def test_a_join_can_be_stopped_before_its_first_batch(
    slow: Database[Document], start_worker: StartWorker, queue: str, pool: str
) -> None:
    start_worker("first", f"--pool {pool}")
    task_id = submit_to(slow_join(sort=[["_id", -1]]), queue)
    eventually(lambda: mongodb_operations(task_id))
    task = cancelled(task_id)
    assert_revoked(task)
    assert task["partial"] is None
    assert_nothing_is_staged(task_id)


def test_terminating_a_join_through_celery_ends_it_in_mongodb_and_its_follower_runs(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    start_worker("first", "--concurrency 1")
    task_id = submit_to(slow_join(sort=[["_id", -1]]), queue)
    eventually(lambda: mongodb_operations(task_id))
    follower = ledger.new_document(f"follower-{queue}", "worker_tasks.tasks.long_running_task", ["own"], queue=queue)
    connections().tasks.insert_one(follower | {"shares": task_id, "fingerprint": queue})
    app.control.terminate(task_id, signal="SIGTERM")
    task = wait_for_state(task_id, states.REVOKED)
    assert (task["cancel_requested"], task["metadata"]) == (True, METADATA)
    eventually(lambda: not mongodb_operations(task_id), within=3)
    wait_for_state(follower["_id"], states.SUCCESS)


@pytest.mark.parametrize("pool", POOLS)
def test_a_join_stopped_in_mid_stream_keeps_its_rows(
    slow: Database[Document], start_worker: StartWorker, queue: str, pool: str
) -> None:
    start_worker("first", f"--pool {pool}")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: first_rows(task_id))
    task = cancelled(task_id)
    assert_revoked(task)
    assert 0 < len(partial_rows(task)) < TAGGED
    assert result_store.find_result(summaries.join_key(task_id)) is None
    assert_nothing_is_staged(task_id)


@pytest.mark.parametrize("pool", POOLS)
def test_stopping_a_join_stops_all_of_its_parts(
    slow: Database[Document], start_worker: StartWorker, queue: str, pool: str
) -> None:
    start_worker("first", f"--pool {pool}", PART_DOCUMENTS="250")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: len(mongodb_operations(task_id)) == 2)
    eventually(lambda: first_rows(task_id))
    task = cancelled(task_id)
    assert_revoked(task)
    assert task["plan"]["parts"] == 4
    assert 0 < len(partial_rows(task)) < TAGGED
    assert_nothing_is_staged(task_id)


def test_a_join_can_be_stopped_while_its_cursor_is_idle(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    start_worker()
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: first_rows(task_id))
    child = child_that_runs(task_id, "first@test")
    os.kill(child, signal.SIGSTOP)
    try:
        eventually(lambda: [operation["type"] for operation in mongodb_operations(task_id)] == ["idleCursor"])
        assert cancel(task_id)
        assert mongodb_operations(task_id) == []
    finally:
        os.kill(child, signal.SIGCONT)
    assert_revoked(wait_for_state(task_id, *ledger.FINAL_STATES))


def test_a_waiting_join_is_stopped_before_it_starts(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    task_id = submit_to(slow_join(), queue)
    assert cancel(task_id)
    start_worker()
    assert ledger.find_task(task_id)["status"] == states.REVOKED
    assert not cancel(task_id)


def test_cancelling_ends_a_join_whose_parts_wait_for_lost_workers(slow: Database[Document], queue: str) -> None:
    task_id = submit_to(slow_join(), queue)
    ledger.claim(task_id, run_join.name, [], {}, "gone@test")
    ranges = [{"_id": {"$lt": 100}}, {"_id": {"$gte": 100}}]
    pipeline = pipeline_of(slow_join())
    lifecycle.start_run(task_id, 1, Plan("result of parts", "big", "tagged", pipeline, ranges), lambda *_: None)
    assert lifecycle.work_on_part(PartJob(task_id, run_state.name_of(task_id, 1), 0)) is None
    assert cancel(task_id)
    task = ledger.find_task(task_id)
    assert_revoked(task)
    assert [row["_id"] for row in partial_rows(task)] == list(range(100))
    assert lifecycle.work_on_part(PartJob(task_id, run_state.name_of(task_id, 1), 1)) is None
    assert_nothing_is_staged(task_id)


def pipeline_of(join: Document) -> list[Document]:
    spec = parse_spec(join, {"big"})
    return compile_pipeline(spec, choose_strategy(spec, Catalog(spec), 300)).pipeline


def test_a_part_whose_child_is_killed_runs_again_alone(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    start_worker("first", PART_DOCUMENTS="250")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: len(mongodb_operations(task_id)) == 2)
    state = run_state.find_run(task_id)
    assert state is not None
    os.kill(child_that_runs(f"{state.run}.1", "first@test"), signal.SIGKILL)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=60)
    assert task["status"] == states.SUCCESS
    assert (task["attempt"], json.loads(task["result"])["count"]) == (1, TAGGED)
    value: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    assert [row["_id"] for row in json.loads(value)] == list(range(TAGGED))


def test_another_worker_runs_the_parts_of_a_killed_worker(
    slow: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    first = start_worker("first", PART_DOCUMENTS="250")
    task_id = submit_to(slow_join(), queue)
    eventually(lambda: len(mongodb_operations(task_id)) == 2)
    first.kill()
    start_worker("second", PART_DOCUMENTS="250")
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=90)
    assert task["status"] == states.SUCCESS
    value: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    assert [row["_id"] for row in json.loads(value)] == list(range(TAGGED))


@pytest.mark.parametrize("parts", [{}, {"PART_DOCUMENTS": "250"}], ids=["one part", "four parts"])
def test_a_join_with_too_many_rows_fails_and_keeps_the_allowed_ones(
    slow: Database[Document], start_worker: StartWorker, queue: str, parts: dict[str, str]
) -> None:
    start_worker("first", RESULT_MAX_ROWS="300", **parts)
    task_id = submit_to(slow_join(), queue)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=60)
    assert task["status"] == states.FAILURE
    assert failure_message(task).startswith("It has more than 300 rows, which is the limit.")
    # Parts learn of each other's row counts only a few times a second, so they may exceed the limit.
    assert 0 < len(partial_rows(task)) <= (600 if parts else 300)
    assert mongodb_operations(task_id) == []
    assert_nothing_is_staged(task_id)


def many_joins() -> Document:
    """A join whose result is far larger, and takes far longer, than its collections suggest."""
    on = [{"local": "_id", "foreign": "userId"}]
    joins: list[Document] = [{"from": "orders", "as": f"orders{number}", "on": on} for number in range(6)]
    return {"database": "big", "from": "users", "joins": [joins[0] | {"shape": "rows"}, *joins[1:]]}


def test_a_join_that_takes_too_long_fails_with_that_reason(
    big: Database[Document], start_worker: StartWorker, queue: str
) -> None:
    start_worker("first", JOIN_SECONDS="0.5", PART_DOCUMENTS="100000")
    task_id = submit_to(many_joins(), queue)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=60)
    assert task["status"] == states.FAILURE
    assert failure_message(task).startswith("It took longer than 0.5 s, which is the limit.")
    assert mongodb_operations(task_id) == []
    assert_nothing_is_staged(task_id)


@pytest.fixture
def small_redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis for results alone, with room for eight megabytes."""
    with start_redis(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "8mb")
        yield server


def test_a_join_that_fills_redis_fails_and_leaves_nothing_in_it(
    big: Database[Document], start_worker: StartWorker, queue: str, small_redis: Server
) -> None:
    start_worker("first", RESULTS_REDIS_URL=small_redis.url)
    join = {"from": "orders", "as": "order", "shape": "rows", "on": [{"local": "_id", "foreign": "userId"}]}
    others = {"from": "orders", "as": "others", "on": [{"local": "_id", "foreign": "userId"}]}
    more = [others | {"as": f"others{number}"} for number in range(5)]
    task = wait_for_state(
        submit_to({"database": "big", "from": "users", "joins": [join, *more]}, queue), "FAILURE", "SUCCESS"
    )
    assert task["status"] == states.FAILURE
    assert "Redis has no room for the result" in failure_message(task)
    with redis.Redis.from_url(small_redis.url, db=2) as client:
        assert [key for key in client.keys("*") if key.startswith(b"staging:")] == []


def test_a_full_redis_fails_a_join_before_it_starts(
    big: Database[Document], start_worker: StartWorker, queue: str, small_redis: Server
) -> None:
    with redis.Redis.from_url(small_redis.url) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 900_000)
    start_worker("first", RESULTS_REDIS_URL=small_redis.url)
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    task = wait_for_state(submit_to({"database": "big", "from": "users", "joins": [join]}, queue), "FAILURE", "SUCCESS")
    assert "Redis has no room" in failure_message(task)

"""Compares one user's join on an idle system, and no-op tasks, with a combination of the two originals."""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import baselines
from benchmarks.noop import nothing
from benchmarks.stack import Row, Servers, fill, ratio, timed, wait_until
from worker_tasks import release
from worker_tasks.infra.connections import connections
from worker_tasks.queue.celery_app import app
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders

TASKS = 2_000
JOINS = 40


def ours(user_id: str) -> None:
    submit(join_users_orders, user_id, metadata={"metadata_1": "important info"})
    wait_until(lambda: connections().results.exists(f"user_order_result:{user_id}"), pause=0.0005)


def original(user_id: str) -> None:
    baselines.join_user.delay(user_id)
    wait_until(lambda: baselines.results().exists(f"user_order_result:{user_id}"), pause=0.0005)


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    fill(baselines.mongodb().bench)
    mine, theirs = [], []
    with servers.worker(1), servers.original_worker(1):
        for number in range(repeats * JOINS):
            mine.append(timed(lambda number=number: ours(f"u{number}")))  # type: ignore[misc]
            theirs.append(timed(lambda number=number: original(f"u{number}")))  # type: ignore[misc]
    yield ratio("one user's join, idle: submitted to readable", "<= 1.0", mine[JOINS:], theirs[JOINS:])
    rates: dict[str, list[float]] = {"ours": [], "original": []}
    for _ in range(repeats):
        rates["ours"].append(_our_rate(servers))
        rates["original"].append(_original_rate(servers))
    yield ratio("no-op tasks per second, one worker process", ">= 1.5", rates["ours"], rates["original"], "1/s")


def _our_rate(servers: Servers) -> float:
    connections().tasks.delete_many({})
    for _ in range(TASKS):
        app.send_task(nothing.name)
    done = {"status": "SUCCESS"}
    with servers.worker(1, include="benchmarks.noop"):
        wait_until(lambda: connections().tasks.count_documents(done) == TASKS, pause=0.1)
    return _rate(connections().tasks, done)


def _original_rate(servers: Servers) -> float:
    stored = baselines.mongodb().original.results
    stored.delete_many({})
    for _ in range(TASKS):
        baselines.nothing.delay()
    done = {"status": "SUCCESS"}
    with servers.original_worker(1):
        wait_until(lambda: stored.count_documents(done) == TASKS, pause=0.1)
    return _rate(stored, done)


def _rate(collection: Any, done: dict[str, Any]) -> float:
    """The tasks per second, without the first tenth of the tasks, because the worker is still starting then."""
    ends = sorted(document["date_done"] for document in collection.find(done, {"date_done": 1}))
    first = len(ends) // 10
    return (len(ends) - 1 - first) / statistics.fmean([(ends[-1] - ends[first]).total_seconds()])

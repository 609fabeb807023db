"""Joins 100,000 users with 1,000,000 orders. The baselines are the original task, and a cursor that drops all rows."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from benchmarks import baselines
from benchmarks.stack import Row, Servers, amount, fill, memory_of, ratio, timed, wait_until
from worker_tasks import release
from worker_tasks.joins.run import run_state
from worker_tasks.records import ledger
from worker_tasks.results import result_store, result_writer
from worker_tasks.submission import read_join, submit_join

JOIN = {
    "database": "bench",
    "from": "users",
    "joins": [{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}],
}
MEBIBYTE = 2**20


def drain() -> None:
    """Reads the joined documents and drops them, to measure MongoDB alone."""
    for _ in baselines.mongodb().bench.users.aggregate_raw_batches([baselines.LOOKUP]):
        pass


def ours() -> dict[str, Any]:
    """Submits the join and waits for the result; returns the task document."""
    task_id = submit_join(read_join(JOIN), fresh=True)
    task: dict[str, Any] = wait_until(lambda: _ended(task_id), pause=0.05)
    if task["status"] != "SUCCESS":
        raise RuntimeError(task["result"])
    return task


def _ended(task_id: str) -> dict[str, Any] | None:
    task = ledger.find_task(task_id)
    return task if task["status"] in ledger.FINAL_STATES else None


def original() -> None:
    baselines.join_all.delay()
    baselines.results().delete("all")
    wait_until(lambda: baselines.results().exists("all"), pause=0.05)


def first_rows() -> float:
    """Submits the join and waits until it ends; returns the seconds until the first rows were readable."""
    began = time.perf_counter()
    task_id = submit_join(read_join(JOIN), fresh=True)

    def rows() -> Any:
        state = run_state.find_run(task_id)
        return state and result_writer.glimpse(state.first_key, 10)

    wait_until(rows)
    took = time.perf_counter() - began
    wait_until(lambda: _ended(task_id), pause=0.05)
    return took


class Peak:
    """The peak memory of a process and its children during the block."""

    def __init__(self, process: int):
        self._process = process
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self.idle = self.peak = memory_of(self._process)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, memory_of(self._process))

    @property
    def growth(self) -> float:
        """The growth in MiB over the memory at the start."""
        return (self.peak - self.idle) / MEBIBYTE


def measure(servers: Servers, repeats: int) -> Iterator[Row]:
    release.ensure_indexes()
    fill(baselines.mongodb().bench)
    drain()
    times: dict[str, list[float]] = {name: [] for name in ("drain", "one", "two", "original", "first", "memory")}
    for _ in range(repeats):
        times["drain"].append(timed(drain))
        with servers.worker(1):
            ours()  # a new worker process first has to connect and import
            times["one"].append(timed(ours))
            times["first"].append(first_rows())
        with servers.worker(1) as process, Peak(process) as peak:
            ours()
        times["memory"].append(peak.growth)
        times["drain"].append(timed(drain))
        with servers.worker(2):
            ours()
            times["two"].append(timed(ours))
        with servers.original_worker(1):
            original()
            times["original"].append(timed(original))
    yield ratio("100 k x 1 M, one worker process, against the raw drain", "<= 1.35", times["one"], times["drain"])
    yield ratio("the same, two worker processes", "<= 0.75", times["two"], times["drain"])
    yield ratio("the same, two processes, against the original's task", "<= 0.35", times["two"], times["original"])
    yield amount("peak memory of the worker above idle", "<= 100", times["memory"], "MiB")
    yield amount("first rows readable after the start", "<= 0.5", times["first"], "s")
    yield from _pages(servers, repeats)
    yield from _flat(servers)


def _pages(servers: Servers, repeats: int) -> Iterator[Row]:
    with servers.worker(2):
        task = ours()
    summary = result_store.find_task_result(task)
    if summary is None:
        raise RuntimeError("the result is gone")
    limit = result_store.PAGE_ROWS
    pages = -(-summary.count // limit)
    first, any_page = [], []
    for number in range(1, repeats * 40):
        first.append(timed(lambda: result_store.read_rows(summary, 0, limit)))
        start = number * 7919 % pages * limit
        any_page.append(timed(lambda start=start: result_store.read_rows(summary, start, limit)))  # type: ignore[misc]
    yield ratio("page k of the 100 k-row result, any k, against page 1", "<= 1.5", any_page, first)


def _flat(servers: Servers) -> Iterator[Row]:
    growth = []
    for users in (100_000, 400_000):
        fill(baselines.mongodb().bench, users, users * 4)
        with servers.worker(1) as process, Peak(process) as peak:
            ours()
        growth.append(peak.growth)
    yield ratio("peak memory, 400 k users against 100 k", "flat", [growth[1]], [growth[0]], "MiB")

"""Runs joins through a real worker, and measures the time until their results are published."""

import json
import threading
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.stack import wait_until
from worker_tasks.joins.run import run_state
from worker_tasks.records import ledger
from worker_tasks.results import result_writer
from worker_tasks.submission import read_join, submit_join

Join = dict[str, Any]
WITHIN = 300.0
PAUSE = 0.02


def run(join: Join, within: float = WITHIN) -> int:
    """Submits a join and waits until its result is published; returns the number of its rows.

    Raises:
        RuntimeError: the join failed.
    """
    task_id = submit_join(read_join(join), fresh=True)
    task: dict[str, Any] = wait_until(lambda: _ended(task_id), within, PAUSE)
    return _count(task)


def run_watched(join: Join, rows_expected: int | None = None) -> tuple[float, float]:
    """Runs a join; returns the seconds until people could see its first rows, and until its result was published."""
    began = time.perf_counter()
    task_id = submit_join(read_join(join), fresh=True)

    def rows() -> Any:
        state = run_state.find_run(task_id)
        return (state and result_writer.glimpse(state.first_key, 10)) or _ended(task_id)

    wait_until(rows, WITHIN, PAUSE)
    first = time.perf_counter() - began
    task = wait_until(lambda: _ended(task_id), WITHIN, PAUSE)
    took = time.perf_counter() - began
    count = _count(task)
    if rows_expected not in {None, count}:
        raise RuntimeError(f"{count:,} rows instead of {rows_expected:,}")
    return first, took


def _count(task: dict[str, Any]) -> int:
    if task["status"] != "SUCCESS":
        raise RuntimeError(task["result"])
    return int(json.loads(task["result"])["count"])


def _ended(task_id: str) -> dict[str, Any] | None:
    task = ledger.find_task(task_id)
    return task if task["status"] in ledger.FINAL_STATES else None


class DiskPeak:
    """The largest number of bytes in a folder during the block."""

    def __init__(self, folder: Path):
        self._folder, self._done = folder, threading.Event()
        self.peak = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            size = 0
            for file in self._folder.rglob("*"):
                try:
                    size += file.stat().st_size if file.is_file() else 0
                except FileNotFoundError:
                    continue  # DuckDB deletes its temporary files at any time
            self.peak = max(self.peak, size)

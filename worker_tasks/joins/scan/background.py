"""Runs DuckDB in another thread, so that reading and reports go on."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import duckdb

from worker_tasks.joins.reading.progress import REPORT_SECONDS, Progress


class Background:
    """Calls DuckDB in ``thread``, one call after the other.

    One call may be pending: it runs while the caller reads on, and every later call waits for it and for its handler.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, thread: ThreadPoolExecutor, progress: Progress):
        self._database, self._thread, self._progress = database, thread, progress
        self._latest: Future[Any] | None = None
        self._pending: Callable[[], None] | None = None

    def wait(self, call: Callable[[], Any]) -> Any:
        """Makes a call and returns its value. Reports progress in the meantime, which may raise Stopped."""
        self.settle()
        return self._await(self._submit(call))

    def start(self, call: Callable[[], Any], handle: Callable[[Any], None] | None = None) -> None:
        """Makes a call without waiting for it; ``handle`` takes its value later."""
        self.settle()
        future = self._submit(call)

        def finish() -> None:
            value = self._await(future)
            if handle is not None:
                handle(value)

        self._pending = finish

    def settle(self) -> None:
        """Waits for the pending call and its handler."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    def interrupt(self) -> None:
        """Ends the running call, if any."""
        while self._latest is not None and not self._latest.done():
            self._database.interrupt()
            time.sleep(0.01)

    def _submit(self, call: Callable[[], Any]) -> Future[Any]:
        self._latest = self._thread.submit(call)
        return self._latest

    def _await(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=REPORT_SECONDS)
            except TimeoutError:
                if future.done():
                    continue
            self._progress.now()

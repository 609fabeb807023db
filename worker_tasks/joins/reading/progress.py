"""Progress reports of a part, which also tell it to stop."""

import time
from collections.abc import Callable

from worker_tasks.results.result_writer import PartWriter

#: Seconds between two progress reports of a part.
REPORT_SECONDS = 0.25


class Stopped(Exception):
    """The run was told to stop."""


#: Takes the rows and bytes written so far; returns whether to stop.
Report = Callable[[int, int], bool]


class Progress:
    """Reports the rows and bytes written so far, a few times per second.

    Raises:
        Stopped: from every method, if ``report`` asks to stop.
    """

    def __init__(self, writer: PartWriter, report: Report):
        self._writer, self._report = writer, report
        self._next = 0.0

    def tick(self) -> None:
        """Makes the written rows visible to readers and reports them, if a report is due."""
        if time.monotonic() >= self._next:
            self._writer.flush()
            self.now()

    def now(self) -> None:
        """Reports immediately."""
        if self._report(self._writer.rows, self._writer.size):
            raise Stopped
        self._next = time.monotonic() + REPORT_SECONDS

"""Shared helpers that wait for a condition, pause a server, run a process of the Procfile, or publish a result."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import bson
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from development.lifetime import end_with_parent
from development.processes import read_procfile
from development.servers import Server
from worker_tasks import submission
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.reading.encoding import LineEncoder
from worker_tasks.records import ledger
from worker_tasks.results import publishing
from worker_tasks.results.result_writer import PartWriter
from worker_tasks.results.summaries import Summary

ROOT = Path(__file__).resolve().parents[1]
Value = TypeVar("Value")

WAIT_SECONDS = 20.0
STOP_SECONDS = 28.0


def eventually(condition: Callable[[], Value | None], within: float = WAIT_SECONDS) -> Value:
    """Returns the value of ``condition`` as soon as it is truthy; fails after ``within`` seconds."""
    give_up = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < give_up, f"still {value!r} after {within} s"
        time.sleep(0.05)
    return value


def wait_for_state(task_id: str, *states: str, within: float = WAIT_SECONDS) -> Document:
    """Waits until the task is in one of these states; returns its document."""

    def task_in_state() -> Document | None:
        task = ledger.find_task(task_id)
        return task if task["status"] in states else None

    return eventually(task_in_state, within)


#: The codes of the errors with which Redis refuses writes.
REFUSALS = ("OOM", "MISCONF", "NOREPLICAS", "READONLY")


@contextmanager
def refusing(code: str) -> Iterator[None]:
    """Makes Redis refuse writes with this error code during the block; with MASTERDOWN it also refuses reads."""
    server = connections().queue
    dump = Path(str(server.config_get("dir")["dir"])) / "dump.rdb"
    if code == "OOM":
        server.config_set("maxmemory", "500kb")
    elif code == "NOREPLICAS":
        server.config_set("min-replicas-to-write", 1)
    elif code == "MISCONF":
        # A folder in place of the dump file, which even root cannot overwrite.
        dump.unlink(missing_ok=True)
        dump.mkdir()
        server.config_set("save", "3600 1")
        server.bgsave()
        eventually(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
    else:
        server.config_set("replica-serve-stale-data", "no" if code == "MASTERDOWN" else "yes")
        server.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        server.config_set("maxmemory", 0)
        server.config_set("min-replicas-to-write", 0)
        server.config_set("save", "")
        server.replicaof("NO", "ONE")
        if dump.is_dir():
            dump.rmdir()


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """Freezes the server during the block. It accepts connections and never answers, which is worse than being down."""
    os.kill(server.pid, signal.SIGSTOP)
    # A busy thread stops a moment later, and would answer until then.
    eventually(lambda: all(_is_stopped(thread) for thread in Path(f"/proc/{server.pid}/task").iterdir()))
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


class Process:
    """A process of the Procfile in its own process group, with its output in a file; it ends with pytest."""

    def __init__(self, name: str, log: Path, *arguments: str, **environment: str):
        self.log = log
        command = " ".join([read_procfile(ROOT / "Procfile")[name], *arguments])
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S602 - the command is the repository's own
                command,
                shell=True,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - takes no lock
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for_line(self, text: str) -> None:
        """Waits until the log contains this text; fails if the process ends first."""

        def is_logged() -> bool:
            assert self.is_running, self.log.read_text()
            return text in self.log.read_text()

        eventually(is_logged, within=30)

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kills the main process and its children at once, as the kernel does when memory runs out."""
        self.signal_group(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Sends SIGTERM to the whole group, as a platform does; returns the exit code."""
        if self.is_running:
            self.signal_group(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)


def submit_join(join: Document, **options: Any) -> str:
    """Submits a join written as JSON; returns the task id."""
    return submission.submit_join(submission.read_join(join), **options)


def publish(
    documents: Sequence[Document],
    key: str,
    task_id: str,
    ttl_seconds: int = 300,
    *,
    parts: int = 1,
    complete: bool = True,
) -> Summary:
    """Publishes these documents as the result of a task, written in this number of parts of about the same length."""
    run = f"{task_id}.1"
    borders = [len(documents) * number // parts for number in range(parts + 1)]
    written = []
    for number, (start, end) in enumerate(pairwise(borders)):
        writer = PartWriter(run, number, max_rows=10**6, max_size=2**28)
        lines = LineEncoder(writer.columns)
        for document in documents[start:end]:
            for piece in lines.encode(bson.encode(document)):
                writer.append(piece)
        written.append(writer.close())
    return publishing.publish(run, written, key, task_id, ttl_seconds, complete=complete)


def submit_form(client: FlaskClient, page: str, fields: Mapping[str, str], **options: Any) -> TestResponse:
    """Opens the page and posts its form, with the page's CSRF token."""
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get(page).text)
    assert token, f"{page} has no form"
    return client.post(page, data={"csrf_token": token[1], **fields}, **options)

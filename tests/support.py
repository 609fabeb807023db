"""What tests do again and again: wait for something, pause a server, run a process of the Procfile."""

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
from worker_tasks.joins.run.encoding import LineEncoder
from worker_tasks.records import ledger
from worker_tasks.results import publishing
from worker_tasks.results.result_store import Summary
from worker_tasks.results.result_writer import PartWriter

ROOT = Path(__file__).resolve().parents[1]
Seen = TypeVar("Seen")

WAIT_SECONDS = 20.0
STOP_SECONDS = 28.0


def eventually(look: Callable[[], Seen | None], within: float = WAIT_SECONDS) -> Seen:
    """What ``look`` returns as soon as that is truthy; fails if it never is."""
    give_up = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < give_up, f"still {seen!r} after {within} s"
        time.sleep(0.05)
    return seen


def wait_for_state(task_id: str, *states: str, within: float = WAIT_SECONDS) -> Document:
    """The task document, as soon as it is in one of these states."""

    def look() -> Document | None:
        task = ledger.find_task(task_id)
        return task if task["status"] in states else None

    return eventually(look, within)


#: The first words of the errors with which Redis refuses to write.
REFUSALS = ("OOM", "MISCONF", "NOREPLICAS", "READONLY")


@contextmanager
def refusing(word: str) -> Iterator[None]:
    """Redis is there and refuses to write, with this word; with MASTERDOWN it refuses to read as well."""
    server = connections().queue
    dump = Path(str(server.config_get("dir")["dir"])) / "dump.rdb"
    if word == "OOM":
        server.config_set("maxmemory", "500kb")
    elif word == "NOREPLICAS":
        server.config_set("min-replicas-to-write", 1)
    elif word == "MISCONF":
        # A folder in the place of its file, which not even root can write.
        dump.unlink(missing_ok=True)
        dump.mkdir()
        server.config_set("save", "3600 1")
        server.bgsave()
        eventually(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
    else:
        server.config_set("replica-serve-stale-data", "no" if word == "MASTERDOWN" else "yes")
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
    """The server is there and answers nothing: worse than one that is gone."""
    os.kill(server.pid, signal.SIGSTOP)
    # A thread that is busy is stopped a moment later, and would answer until then.
    eventually(lambda: all(_is_stopped(thread) for thread in Path(f"/proc/{server.pid}/task").iterdir()))
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


class Process:
    """One process of the Procfile, in a process group of its own, its output in a file; it ends with pytest."""

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
        def look() -> bool:
            assert self.is_running, self.log.read_text()
            return text in self.log.read_text()

        eventually(look, within=30)

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """As the kernel does when memory runs out: at once, main process and children alike."""
        self.signal_group(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """As a platform does: SIGTERM to all of them; returns the exit code."""
        if self.is_running:
            self.signal_group(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)


def submit_join(join: Document, **options: Any) -> str:
    """Asks for a join that is written as JSON; its task."""
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
    """Puts these documents into Redis as a task does that joined them, in so many parts of about the same length."""
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
    """Opens the page and sends its form, with the token that stands in it."""
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get(page).text)
    assert token, f"{page} has no form"
    return client.post(page, data={"csrf_token": token[1], **fields}, **options)

"""Workers that a test may kill, on a queue of its own."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from pymongo.database import Database

from tests.faults.support import LABELS, METADATA, TAGGED
from tests.support import Process
from worker_tasks.infra.connections import Document, connections
from worker_tasks.tasks import join_users_orders, long_running_task


class StartWorker(Protocol):
    def __call__(self, name: str = "first", *options: str, until: str = "ready.", **environment: str) -> Process: ...


Submit = Callable[[str], str]


@pytest.fixture
def queue() -> str:
    return f"faults-{uuid4().hex}"


@pytest.fixture
def start_worker(shop: Database[Document], queue: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers named ``<name>@test`` on the test's queue. They end with the test."""
    started: list[Process] = []

    def start(name: str = "first", *options: str, until: str = "ready.", **environment: str) -> Process:
        line = ("--concurrency 2", f"--queues {queue}", f"--hostname {name}@test", *options)
        worker = Process("worker", tmp_path / f"{name}.log", *line, **environment)
        started.append(worker)
        worker.wait_for_line(until)
        return worker

    yield start
    for worker in started:
        with contextlib.suppress(ProcessLookupError):
            worker.signal_group(signal.SIGKILL)
        worker._process.wait()


@pytest.fixture(scope="session")
def slow(servers: None) -> Database[Document]:
    """Collections whose lookup compares every pair for about six seconds: the keys are lists without an index.

    The collation keeps the join from being scanned, which would take far less than a second.
    """
    database = connections().joins.big
    database.create_collection("tagged", collation={"locale": "en"})
    database.tagged.insert_many([{"_id": number, "tags": [number, -number]} for number in range(TAGGED)])
    database.labels.insert_many([{"_id": number, "labels": [number % TAGGED, "x"]} for number in range(LABELS)])
    return database


@pytest.fixture
def submit_practice(servers: None, queue: str) -> Submit:
    """Submits the practice task, which takes the ``LONG_TASK_SECONDS`` of its worker."""

    def submit(task_input: str) -> str:
        return long_running_task.apply_async([task_input], queue=queue, metadata=METADATA).id

    return submit


@pytest.fixture
def submit_join(servers: None, queue: str) -> Submit:
    """Submits the join of a user with their orders."""

    def submit(user_id: str) -> str:
        return join_users_orders.apply_async([user_id], queue=queue, metadata=METADATA).id

    return submit

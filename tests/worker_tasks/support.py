"""Helpers for task documents in any state, a task that waits, queued messages, and time limits."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from worker_tasks.infra.connections import Document, connections
from worker_tasks.queue.celery_app import app
from worker_tasks.queue.claim import ClaimedTask
from worker_tasks.records import ledger

#: The metadata of every task here, which no change of the task may alter.
METADATA = {"reason": "audit", "ticket": 4711}
#: A queue without workers.
UNATTENDED = "unattended"
#: The longest acceptable time for an answer during an outage, in seconds.
ANSWER_SECONDS = 3.0


def new_id() -> str:
    return str(uuid4())


def task_in(status: str, **fields: Any) -> str:
    """Inserts a task document in this state, bypassing the ledger's rules, and returns its id."""
    document = ledger.new_document(new_id(), waiting.name, ["u1"], metadata=METADATA)
    connections().tasks.insert_one(document | {"status": status, **fields})
    return document["_id"]


class Unattended(ClaimedTask):
    """A task that goes to the queue without workers."""

    def apply_async(self, *arguments: Any, **options: Any) -> Any:
        return super().apply_async(*arguments, **{"queue": UNATTENDED, **options})


@app.task(name="tests.waiting", base=Unattended)
def waiting(*_: Any) -> None:
    """Never runs."""


def messages() -> list[str]:
    """The ids of the tasks with a message in the queue without workers."""
    queued: Any = connections().queue.lrange(UNATTENDED, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in queued]


def recorded(mark: str) -> list[Document]:
    """The task documents with this mark in their metadata."""
    return list(connections().tasks.find({"metadata.mark": mark}))


@contextmanager
def answered_in_time() -> Iterator[None]:
    """Fails if the block takes ``ANSWER_SECONDS`` or longer."""
    started = time.monotonic()
    yield
    duration = time.monotonic() - started
    assert duration < ANSWER_SECONDS, f"took {duration:.1f} s"

"""What these tests do again and again: a task document in any state, a task that waits, a message looked for."""

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

#: Goes with every task; nothing that happens to the task may change it.
METADATA = {"reason": "audit", "ticket": 4711}
#: No worker takes from this queue.
UNATTENDED = "unattended"
#: The longest that anybody waits for an answer, whatever is away.
ANSWER_SECONDS = 3.0


def new_id() -> str:
    return str(uuid4())


def task_in(status: str, **fields: Any) -> str:
    """The id of a task document in this state, put there past the ledger's rules."""
    document = ledger.new_document(new_id(), waiting.name, ["u1"], metadata=METADATA)
    connections().tasks.insert_one(document | {"status": status, **fields})
    return document["_id"]


class Unattended(ClaimedTask):
    """A task that goes where no worker takes it."""

    def apply_async(self, *arguments: Any, **options: Any) -> Any:
        return super().apply_async(*arguments, **{"queue": UNATTENDED, **options})


@app.task(name="tests.waiting", base=Unattended)
def waiting(*_: Any) -> None:
    """Waits, and goes on waiting."""


def messages() -> list[str]:
    """The ids of the tasks whose message waits where no worker takes it."""
    queued: Any = connections().queue.lrange(UNATTENDED, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in queued]


def recorded(mark: str) -> list[Document]:
    """The task documents whose metadata bear this mark."""
    return list(connections().tasks.find({"metadata.mark": mark}))


@contextmanager
def answered_in_time() -> Iterator[None]:
    """Fails if what is done here takes longer than anybody waits."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < ANSWER_SECONDS, f"took {took:.1f} s"

"""Helpers of the fault tests that kill and restart servers, inspect queues, and submit slow joins."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import states

from development.servers import Server, start_mongodb, start_redis
from tests.support import eventually
from worker_tasks.infra import sources
from worker_tasks.infra.connections import Document, connections
from worker_tasks.queue.celery_app import app
from worker_tasks.tasks import run_join

#: The metadata of every task; no fault may change it.
METADATA = {"reason": "audit", "ticket": 4711}
#: The number of documents on each side of the slow join. Each tagged document matches 12 labels.
TAGGED, LABELS = 1_000, 12_000


def slow_join(**more: Any) -> Document:
    """A join of the fixture ``slow`` that takes about six seconds. Its first rows come within one second."""
    join = {"from": "labels", "as": "labels", "on": [{"local": "tags", "foreign": "labels"}]}
    return {"database": "big", "from": "tagged", "joins": [join], **more}


def submit_to(join: Document, queue: str) -> str:
    return run_join.apply_async([join], queue=queue, metadata=METADATA).id


def slow_rows_error(task: Document) -> str | None:
    """Compares the result of a slow join with rows computed here. Returns the difference as text, or None."""
    if task["status"] != states.SUCCESS:
        return f"{task['status']}: {task['result']}"
    value: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    actual = [(row["_id"], sorted(label["_id"] for label in row["labels"])) for row in json.loads(value)]
    expected = [(number, list(range(number, LABELS, TAGGED))) for number in range(TAGGED)]
    return None if actual == expected else f"{len(actual)} rows, not as expected"


def mongodb_operations(task_id: str) -> list[Document]:
    """MongoDB's operations and idle cursors of this task."""
    mark = {"$regex": f"^{sources.operation_prefix(task_id)}[0-9]"}
    comments = [{"command.comment": mark}, {"cursor.originatingCommand.comment": mark}]
    pipeline: list[Document] = [{"$currentOp": {"allUsers": False, "idleCursors": True}}, {"$match": {"$or": comments}}]
    return list(connections().mongodb.admin.aggregate(pipeline))


def has_written_rows(task_id: str, parts: int = 1) -> bool:
    """Whether at least this many parts of a join have written rows."""
    fields: Any = connections().results.hkeys(f"join_run:{task_id}")
    return sum(field.startswith(b"rows:") for field in fields) >= parts


@contextmanager
def killed(server: Server, *, wiped: bool = False) -> Iterator[None]:
    """Kills a server, and restarts it at the end on its folder and port; if ``wiped``, without its data."""
    folder = _folder(server)
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait()
    try:
        yield
    finally:
        if wiped:
            shutil.rmtree(folder / "data")
        start = start_redis if server.name == "Redis" else start_mongodb
        # The session's fixture stops the server through this object.
        server._process = start(folder, server.port)._process


def _folder(server: Server) -> Path:
    """The server's folder, according to its own configuration."""
    if server.name == "Redis":
        return Path(str(connections().queue.config_get("dir")["dir"])).parent
    options = connections().mongodb.admin.command("getCmdLineOpts")["parsed"]
    return Path(options["storage"]["dbPath"]).parent


def messages(queue: str) -> list[str]:
    """The task ids of the messages in this queue, oldest first."""
    waiting = connections().queue.lrange(queue, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(waiting)]


def unacknowledged() -> list[str]:
    """The task ids of the messages that are delivered and not acknowledged."""
    held = connections().queue.hvals("unacked")
    return [json.loads(entry)[0]["headers"]["id"] for entry in held]


def starts(task: Document) -> list[str]:
    """The names of the workers that started this task, in order."""
    return [
        event["note"]
        for event in task["timeline"]
        if event["status"] == states.STARTED and event["note"].endswith("@test")
    ]


def notes(task: Document) -> list[str]:
    """The notes in the task's timeline."""
    return [event["note"] for event in task["timeline"] if event["note"]]


def failure_message(task: Document) -> str:
    """The error message of a failed task."""
    return " ".join(map(str, json.loads(task["result"])["exc_message"]))


def child_that_runs(task_id: str, worker: str) -> int:
    """The process id of the worker's child process that is running this task."""

    def find_pid() -> int | None:
        # A new connection, because an earlier test's may have died with its Redis.
        with app.connection_for_write() as connection:
            running = (app.control.inspect([worker], connection=connection).active() or {}).get(worker, [])
        return next((request["worker_pid"] for request in running if request["id"] == task_id), None)

    return eventually(find_pid)

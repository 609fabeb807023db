"""What the tests of faults do again and again: kill a server and bring it back, look into a queue."""

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

#: Goes with every task; no fault may change it.
METADATA = {"reason": "audit", "ticket": 4711}
#: How many documents the slow join has on either side; each of the first matches 12 of the second.
TAGGED, LABELS = 1_000, 12_000


def slow_join(**more: Any) -> Document:
    """A join of the fixture ``slow`` that takes some six seconds, its first rows within one."""
    join = {"from": "labels", "as": "labels", "on": [{"local": "tags", "foreign": "labels"}]}
    return {"database": "big", "from": "tagged", "joins": [join], **more}


def submit_to(join: Document, queue: str) -> str:
    return run_join.apply_async([join], queue=queue, metadata=METADATA).id


def wrong_with_slow_rows(task: Document) -> str | None:
    """What is wrong with the result of a slow join, beside a count made without one; None where nothing is."""
    if task["status"] != states.SUCCESS:
        return f"{task['status']}: {task['result']}"
    value: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    found = [(row["_id"], sorted(label["_id"] for label in row["labels"])) for row in json.loads(value)]
    expected = [(number, list(range(number, LABELS, TAGGED))) for number in range(TAGGED)]
    return None if found == expected else f"{len(found)} rows, not as expected"


def in_mongodb(task_id: str) -> list[Document]:
    """What MongoDB has of this task: operations, and cursors that are idle."""
    mark = {"$regex": f"^{sources.operation_prefix(task_id)}[0-9]"}
    comments = [{"command.comment": mark}, {"cursor.originatingCommand.comment": mark}]
    look: list[Document] = [{"$currentOp": {"allUsers": False, "idleCursors": True}}, {"$match": {"$or": comments}}]
    return list(connections().mongodb.admin.aggregate(look))


def is_written(task_id: str, parts: int = 1) -> bool:
    """Whether so many parts of a join have written rows."""
    written: Any = connections().results.hkeys(f"join_run:{task_id}")
    return sum(field.startswith(b"rows:") for field in written) >= parts


@contextmanager
def killed(server: Server, *, wiped: bool = False) -> Iterator[None]:
    """The server dies at once; at the end it starts again on its folder and port, ``wiped`` without its memory."""
    folder = _folder(server)
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait()
    try:
        yield
    finally:
        if wiped:
            shutil.rmtree(folder / "data")
        start = start_redis if server.name == "Redis" else start_mongodb
        # The fixture of the session stops it in the end, and knows only this object.
        server._process = start(folder, server.port)._process


def _folder(server: Server) -> Path:
    """The folder that the server was started on, as it says itself."""
    if server.name == "Redis":
        return Path(str(connections().queue.config_get("dir")["dir"])).parent
    options = connections().mongodb.admin.command("getCmdLineOpts")["parsed"]
    return Path(options["storage"]["dbPath"]).parent


def messages(queue: str) -> list[str]:
    """The ids of the tasks whose message waits in this queue, oldest first."""
    waiting = connections().queue.lrange(queue, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(waiting)]


def unacknowledged() -> list[str]:
    """The ids of the tasks whose message some worker has."""
    held = connections().queue.hvals("unacked")
    return [json.loads(entry)[0]["headers"]["id"] for entry in held]


def beginnings(task: Document) -> list[str]:
    """The names of the workers that began this task, in order."""
    return [
        event["note"]
        for event in task["timeline"]
        if event["status"] == states.STARTED and event["note"].endswith("@test")
    ]


def notes(task: Document) -> list[str]:
    """What the timeline says beside the states."""
    return [event["note"] for event in task["timeline"] if event["note"]]


def failure(task: Document) -> str:
    """What a failed task says to people."""
    return " ".join(map(str, json.loads(task["result"])["exc_message"]))


def child_that_runs(task_id: str, worker: str) -> int:
    """The process id of the worker's child that runs this task."""

    def look() -> int | None:
        # The connection that a test before had may have died with its Redis.
        with app.connection_for_write() as connection:
            running = (app.control.inspect([worker], connection=connection).active() or {}).get(worker, [])
        return next((request["worker_pid"] for request in running if request["id"] == task_id), None)

    return eventually(look)

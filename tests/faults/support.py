"""What the tests of faults do again and again: kill a server and bring it back, look into a queue."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import states

from development.servers import Server, start_mongodb, start_redis
from tests.support import eventually
from worker_tasks.celery_app import app
from worker_tasks.connections import Document, connections

#: Goes with every task; no fault may change it.
METADATA = {"reason": "audit", "ticket": 4711}


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
        running = (app.control.inspect([worker]).active() or {}).get(worker, [])
        return next((request["worker_pid"] for request in running if request["id"] == task_id), None)

    return eventually(look)

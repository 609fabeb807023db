"""bin/dev from start to stop, in a copy of this clone, with real servers, web and worker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymongo
import pytest

from development.samples.loading import MARKERS
from development.servers import free_port, start_mongodb

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "var", "tests", "__pycache__", ".*_cache")
READY_WITHIN = 60.0  # seconds, with the sample data

pytestmark = pytest.mark.timeout(180)


class Stack:
    """One run of bin/dev in this test's .venv."""

    def __init__(self, clone: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.clone = clone
        self.log = clone / "run.log"
        environment = {**os.environ, "PORT": str(port)}
        for name in ("REDIS_URL", "CELERY_BROKER_URL", "MONGODB_URI", "MONGODB_HOST", "SECRET_KEY"):
            environment.pop(name, None)
        self.environment = environment
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, **self.options())

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "development.stack", *arguments]

    def options(self) -> dict[str, Any]:
        return {"cwd": self.clone, "env": self.environment, "start_new_session": True}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=30, check=False, **self.options()
        )

    def wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_WITHIN
        while "Dovetail is ready" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.1)

    def servers(self) -> dict[str, str]:
        """Returns the environment of a shell after `eval "$(bin/dev env)"`."""
        script = (
            self.run("env").stdout + f'"{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        )
        variables: dict[str, str] = json.loads(subprocess.check_output(["/bin/sh", "-c", script], env={}, timeout=10))
        return variables

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("stack") / "clone", ignore=NOT_COPIED))
    pretend_flights_are_loaded(clone)
    return clone


def pretend_flights_are_loaded(clone: Path) -> None:
    """They take eight seconds, and test_samples.py has them."""
    with (
        start_mongodb(clone / "var" / "mongodb") as server,
        pymongo.MongoClient[Any](server.url, timeoutMS=5000) as client,
    ):
        client.flights.flights.insert_one({})
        client[MARKERS[0]][MARKERS[1]].insert_one({"_id": "flights", "finished_at": datetime.now(UTC)})


@pytest.fixture
def stack(clone: Path) -> Iterator[Stack]:
    stack = Stack(clone, free_port())
    yield stack
    if stack.process.poll() is None:
        stack.stop(signal.SIGTERM)


def connect_mongodb(stack: Stack) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(stack.servers()["MONGODB_URI"], timeoutMS=5000)


def processes_in(clone: Path) -> dict[int, str]:
    """Returns the command lines of all processes whose working directory is this folder, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == clone:
                found[int(process.name)] = (process / "cmdline").read_text()
        except (FileNotFoundError, PermissionError, ProcessLookupError):  # it has ended or belongs to another user
            continue
    return found


def test_everything_starts_is_reachable_and_stops_without_leftovers(stack: Stack) -> None:
    stack.wait_until_ready()
    assert "Loading shop.users: 400 documents" in stack.log.read_text()
    assert urllib.request.urlopen(f"{stack.address}/healthz", timeout=5).status == 200
    second = stack.run()
    assert second.returncode == 1
    assert second.stderr.startswith(
        f"bin/dev already runs in this clone (process {stack.process.pid}, {stack.address})"
    )
    with connect_mongodb(stack) as client:
        client.trial.documents.insert_one({"_id": "kept"})
    assert stack.stop(signal.SIGTERM) == 0
    assert processes_in(stack.clone) == {}
    stopped = stack.run("env")
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr.startswith("bin/dev is not running in this clone.")


def test_the_next_run_finds_its_data_and_loads_no_samples(stack: Stack) -> None:
    stack.wait_until_ready()
    assert "Loading" not in stack.log.read_text()
    with connect_mongodb(stack) as client:
        assert client.trial.documents.find_one("kept")
    stack.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert stack.stop(signal.SIGINT) == 0  # a second Ctrl-C does no harm
    assert processes_in(stack.clone) == {}


def test_everything_stops_with_a_message_when_the_worker_dies(stack: Stack) -> None:
    stack.wait_until_ready()
    os.kill(worker_pid(stack.clone), signal.SIGKILL)
    assert stack.process.wait(timeout=40) == 1
    assert "worker ended by itself (exit code -9), so everything was stopped." in stack.log.read_text()
    assert processes_in(stack.clone) == {}


def worker_pid(clone: Path) -> int:
    """Returns the process id of the worker's main process, the first of its group."""
    return next(pid for pid, command in sorted(processes_in(clone).items()) if "worker_tasks.celery_app" in command)


def test_no_process_outlives_a_killed_bin_dev(stack: Stack, eventually: Callable[..., None]) -> None:
    stack.wait_until_ready()
    stack.process.kill()
    eventually(lambda: processes_in(stack.clone) == {}, timeout=20)


def test_a_taken_port_is_reported_before_any_server_starts(tmp_path: Path) -> None:
    clone = Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=NOT_COPIED))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = Stack(clone, port)
        assert stack.process.wait(timeout=20) == 1
    assert stack.log.read_text().startswith(f"Port {port} is taken. Stop what uses it, or choose another: PORT=")
    assert not (clone / "var" / "mongodb").exists()

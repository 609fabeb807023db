"""A process opens its clients once, and pings each of them within a time limit."""

import subprocess
import sys

import pytest

from development.servers import Server
from tests.support import ROOT, paused
from tests.worker_tasks.support import answered_in_time
from worker_tasks.infra.connections import Connections, connections
from worker_tasks.infra.settings import Settings

OK = {"MongoDB": "ok", "Redis (queue)": "ok", "Redis (results)": "ok"}

#: A process that closes its clients, opens new ones and forks.
SCRIPT = """
import os

from worker_tasks.infra.connections import close_connections, connections

closed = connections()
assert set(closed.ping().values()) == {"ok"}
close_connections()
parent = connections()
assert parent is not closed
assert set(parent.ping().values()) == {"ok"}
assert connections() is parent
if child := os.fork():
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert connections() is parent
else:
    ours = connections()
    assert ours is not parent
    for name in ("mongodb", "results", "hints", "queue"):
        assert getattr(ours, name) is not getattr(parent, name), name
assert set(connections().ping().values()) == {"ok"}
print("good", flush=True)
os._exit(0)
"""


def test_ping_reports_running_servers_as_ok(servers: None) -> None:
    assert connections().ping() == OK


@pytest.mark.parametrize(
    ("server", "names"),
    [("mongodb_server", {"MongoDB"}), ("redis_server", {"Redis (queue)", "Redis (results)"})],
)
def test_ping_names_a_frozen_server_in_time(
    servers: None, server: str, names: set[str], request: pytest.FixtureRequest
) -> None:
    with paused(request.getfixturevalue(server)), answered_in_time():
        status = connections().ping()
    assert {name for name, text in status.items() if text != "ok"} == names
    assert all("Timeout" in status[name] for name in names)
    assert connections().ping() == OK


def test_ping_takes_no_longer_when_all_servers_are_frozen(
    servers: None, redis_server: Server, mongodb_server: Server
) -> None:
    with paused(redis_server), paused(mongodb_server), answered_in_time():
        status = connections().ping()
    assert "ok" not in status.values()


def test_a_process_opens_its_clients_once_and_a_forked_child_opens_its_own(servers: None) -> None:
    # Python 3.12 warns about forking a process with threads, which Celery does.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "good\ngood\n", "")


def test_clients_connect_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URI", "mongodb://nowhere.invalid")
    monkeypatch.setenv("REDIS_URL", "redis://nowhere.invalid")
    with answered_in_time():
        clients = Connections(Settings())
    assert clients.tasks.full_name == "tasks.task_results"
    clients.close()


def test_the_tasks_database_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKS_DATABASE", "mine")
    clients = Connections(Settings())
    assert clients.tasks.full_name == "mine.task_results"
    clients.close()

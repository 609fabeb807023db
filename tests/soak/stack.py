"""A Dovetail of the soak's own: servers behind proxies, web and workers of the Procfile, supervised as a platform does.

Everything is started from one thread, the main one: what it starts ends with it.
"""

import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from development.processes import read_procfile
from development.servers import Server, free_port, start_mongodb, start_redis
from tests.soak import data
from tests.soak.processes import ROOT, STOPPED_WITHIN, Process
from tests.soak.proxy import HOST, Proxy

#: Seconds after which a task of a dead worker goes to another one.
VISIBILITY_SECONDS = 10
#: Seconds of the practice task.
PRACTICE_SECONDS = 1.5
#: Seconds that a process may take to come up.
READY_WITHIN = 90.0
#: Seconds between two looks at the processes.
LOOK_SECONDS = 0.1
#: libfaketime, and what Python needs beside it. Locks wait by the monotonic clock, which must therefore be left alone;
#: then every time.sleep() fails with EINVAL, which libfaketime makes of its clock_nanosleep().
SLEEP = """
import select, time

def sleep(seconds):
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)

time.sleep = sleep
"""
FAKETIME = "*/faketime/libfaketime.so.1"


class NotReady(Exception):
    """A process did not come up; the message says which, with the end of its log."""


@dataclass(frozen=True)
class Death:
    """A process that ended by itself."""

    at: float
    name: str
    code: int
    words: str


class Stack:
    """As a context manager it runs from start to end; :meth:`pause` is where supervision happens."""

    def __init__(self, folder: Path, workers: int, result_seconds: int, clock_off: int) -> None:
        """Say what is wanted.

        Args:
            result_seconds: how long results stay in Redis.
            clock_off: seconds by which the clock of the last worker is off; 0 for none.
        """
        self.folder = folder
        self.worker_names = [f"w{number + 1}" for number in range(workers)]
        self.deaths: list[Death] = []
        self.memory: dict[str, list[int]] = {}
        self.clock_note = "right"
        self._result_seconds = result_seconds
        self._clock_off = clock_off
        self._running = contextlib.ExitStack()
        self._servers: dict[str, Server] = {}
        #: The servers that were killed and are not to be started by supervision.
        self._away: set[str] = set()
        self._measured_at = 0.0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _start(self) -> None:
        redis_port, mongodb_port = free_port(), free_port()
        self.redis_proxies = {
            name: self._running.enter_context(Proxy(redis_port)) for name in ("web", *self.worker_names)
        }
        self.mongodb_proxy = self._running.enter_context(Proxy(mongodb_port))
        self._running.callback(self._stop_servers)
        self._servers["redis"] = start_redis(self.folder / "redis", redis_port)
        member = f"{HOST}:{self.mongodb_proxy.port}"
        self._servers["mongodb"] = start_mongodb(self.folder / "mongodb", mongodb_port, member)
        self._fill()
        self.web_port = free_port()
        commands = read_procfile(ROOT / "Procfile")
        subprocess.run(  # noqa: S602 - the command is the repository's own
            commands["release"], shell=True, cwd=ROOT, env=self._environment("web"), timeout=READY_WITHIN, check=True
        )
        self.processes: dict[str, Process] = {}
        self._running.callback(self._stop_processes)
        self._add("web", commands["web"])
        for name in self.worker_names:
            self._add(name, f"{commands['worker']} --concurrency 2 --hostname {name}@soak")
        self.wait(lambda: self.is_ready("web"), "web")
        for name in self.worker_names:
            self.wait(partial(self.is_ready, name), name)

    def _add(self, name: str, command: str) -> None:
        self.processes[name] = Process(name, command, self.folder / f"{name}.log", self._environment(name))

    def _environment(self, name: str) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key in {"HOME", "LANG", "TZ", "TMPDIR"}}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": f"redis://{HOST}:{self.redis_proxies[name].port}",
            "MONGODB_URI": self._servers["mongodb"].url,
            "JOIN_DATABASE": data.DATABASE,
            "JOIN_DATABASES": data.DATABASE,
            "PART_DOCUMENTS": "2000",
            "RESULT_TTL_SECONDS": str(self._result_seconds),
            "RESULT_KEEP_SECONDS": str(2 * self._result_seconds),
            "LONG_TASK_SECONDS": str(PRACTICE_SECONDS),
            "VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS),
            "RECONCILE_SECONDS": "5",
            "WORKER_SOFT_SHUTDOWN_SECONDS": "5",
            "SECRET_KEY": "only for the soak",
            "COOKIES_SECURE": "false",
            "GUNICORN_CMD_ARGS": f"--bind {HOST}:{self.web_port}",
            **(self._wrong_clock() if name == self.worker_names[-1] else {}),
        }

    def _wrong_clock(self) -> dict[str, str]:
        if not self._clock_off:
            return {}
        if not (found := list(Path("/usr/lib").glob(FAKETIME))):
            self.clock_note = "right: libfaketime is not installed, so no worker has a wrong one"
            return {}
        self.clock_note = f"{self.worker_names[-1]} is off by {self._clock_off:+} s"
        mended = self.folder / "clock"
        mended.mkdir(exist_ok=True)
        (mended / "sitecustomize.py").write_text(SLEEP)
        clock = {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{self._clock_off:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return clock | {"PYTHONPATH": str(mended)}

    def _fill(self) -> None:
        with self.mongodb() as client:
            database = client[data.DATABASE]
            for collection in data.COLLECTIONS:
                database[collection].insert_many(data.documents(collection))
                if collection in data.INDEXES:
                    database[collection].create_index(data.INDEXES[collection])

    @contextlib.contextmanager
    def mongodb(self, seconds: float = 5.0) -> Iterator["pymongo.MongoClient[dict[str, Any]]"]:
        """A client that goes past the proxy, and raises after so many seconds."""
        port = self._servers["mongodb"].port
        client: pymongo.MongoClient[dict[str, Any]]
        limits: dict[str, Any] = {"serverSelectionTimeoutMS": seconds * 1000, "timeoutMS": seconds * 1000}
        with pymongo.MongoClient(HOST, port, directConnection=True, tz_aware=True, **limits) as client:
            yield client

    def redis(self, database: int) -> "redis.Redis":
        """A client that goes past the proxies."""
        port = self._servers["redis"].port
        return redis.Redis(
            HOST, port, database, socket_timeout=10, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    # ---- supervision

    def pause(self, seconds: float) -> None:
        """Lets time go by; what ended by itself meanwhile is noted, and started again."""
        until = time.monotonic() + seconds
        while True:
            self._supervise()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(LOOK_SECONDS, left))

    def wait(self, look: Callable[[], bool], what: str, within: float = READY_WITHIN) -> None:
        """Pauses until something is so.

        Raises:
            NotReady: it is not so in time.
        """
        give_up = time.monotonic() + within
        while not look():
            if time.monotonic() > give_up:
                words = self.processes[what].last_words() if what in self.processes else ""
                raise NotReady(f"{what} was not ready within {within:.0f} s. {words}")
            self.pause(LOOK_SECONDS)

    def _supervise(self) -> None:
        for name, process in self.processes.items():
            if process.is_wanted and (code := process.code) is not None:
                self.deaths.append(Death(time.time(), name, code, process.last_words()))
                process.kill()  # children that it left behind
                process.start()
        for name, server in list(self._servers.items()):
            if not server.is_running and name not in self._away:
                self.deaths.append(Death(time.time(), name, -1, f"see {self.folder / name}"))
                self._start_server(name)
        if time.monotonic() - self._measured_at > 5:
            self._measured_at = time.monotonic()
            for name, process in self.processes.items():
                self.memory.setdefault(name, []).append(process.memory_mib())

    def is_ready(self, name: str) -> bool:
        """Whether web answers, or a worker, in its present life, has said that it is ready."""
        if name == "web":
            return self.get("/readyz") == 200
        return self.processes[name].has_said("ready.")

    def get(self, path: str) -> int:
        """The status of a page; 0 where no answer comes."""
        connection = http.client.HTTPConnection(HOST, self.web_port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    # ---- what faults do

    def kill(self, name: str) -> None:
        """SIGKILL to a server, or to a process with all its children; it stays away until it is started."""
        if name in self._servers:
            self._away.add(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._servers[name].pid, signal.SIGKILL)
            self._servers[name].stop()
        else:
            self.processes[name].is_wanted = False
            self.processes[name].kill()

    def start(self, name: str) -> None:
        """Starts what was killed or stopped; of a server, returns when it answers."""
        if name in self._servers:
            self._start_server(name)
        else:
            self.processes[name].start()
            self.processes[name].is_wanted = True

    def _start_server(self, name: str) -> None:
        folder = self.folder / name
        log = folder / ("redis.log" if name == "redis" else "mongod.log")
        log.rename(log.with_name(f"{log.name}.life-{len(list(folder.glob('*.life-*'))) + 1}"))
        old = self._servers[name]
        if name == "redis":
            self._servers[name] = start_redis(folder, old.port)
        else:
            self._servers[name] = start_mongodb(folder, old.port, f"{HOST}:{self.mongodb_proxy.port}")
        self._away.discard(name)

    def terminate(self, name: str) -> bool:
        """SIGTERM, as at a deploy; whether it ended in time. It stays away until it is started."""
        process = self.processes[name]
        process.is_wanted = False
        process.signal(signal.SIGTERM)
        give_up = time.monotonic() + STOPPED_WITHIN
        while process.code is None and time.monotonic() < give_up:
            self.pause(LOOK_SECONDS)
        ended = process.code is not None
        process.kill()
        return ended

    def signal(self, name: str, number: signal.Signals) -> None:
        """To a server, or to a process with all its children."""
        if name in self._servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._servers[name].pid, number)
        else:
            self.processes[name].signal(number)

    def a_child(self, name: str, rng: random.Random) -> int | None:
        """The process id of one of a process' children."""
        children = self.processes[name].children()
        return rng.choice(children) if children else None

    # ---- the end

    def _stop_processes(self) -> None:
        for process in self.processes.values():
            process.is_wanted = False
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        give_up = time.monotonic() + 10
        while any(process.code is None for process in self.processes.values()) and time.monotonic() < give_up:
            time.sleep(LOOK_SECONDS)
        for process in self.processes.values():
            process.kill()

    def _stop_servers(self) -> None:
        for server in self._servers.values():
            server.stop()

"""The soak's own Dovetail has servers behind proxies, and supervised web and worker processes from the Procfile.

The main thread starts everything, because child processes end with the thread that started them.
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

#: The time after which another worker takes over the tasks of a dead one, in seconds.
VISIBILITY_SECONDS = 10
#: Duration of the practice task in seconds.
PRACTICE_SECONDS = 1.5
#: The time limit for a process to become ready, in seconds.
READY_WITHIN = 90.0
#: The interval between two checks of the processes, in seconds.
CHECK_SECONDS = 0.1
#: A sitecustomize module that Python needs with libfaketime. Locks wait by the monotonic clock, which libfaketime must
#: leave alone; but then it makes clock_nanosleep(), and with it every time.sleep(), fail with EINVAL.
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
    """A process did not become ready; the message names it and has the end of its log."""


@dataclass(frozen=True)
class Death:
    """A process that ended by itself, with the time in seconds since 1970, the exit code and the end of its log."""

    at: float
    name: str
    code: int
    log_tail: str


class Stack:
    """Runs for the duration of a ``with`` block. :meth:`pause` supervises the processes."""

    def __init__(self, folder: Path, workers: int, result_seconds: int, clock_off: int) -> None:
        """Configures the stack.

        Args:
            folder: for data and logs.
            workers: the number of workers.
            result_seconds: how long results stay in Redis.
            clock_off: seconds by which the clock of the last worker is wrong; 0 for none.
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
        #: Killed servers that supervision must not restart.
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
        if not (libraries := list(Path("/usr/lib").glob(FAKETIME))):
            self.clock_note = "right: libfaketime is not installed, so every worker has the right clock"
            return {}
        self.clock_note = f"{self.worker_names[-1]} is off by {self._clock_off:+} s"
        patches = self.folder / "clock"
        patches.mkdir(exist_ok=True)
        (patches / "sitecustomize.py").write_text(SLEEP)
        clock = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME": f"{self._clock_off:+}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return clock | {"PYTHONPATH": str(patches)}

    def _fill(self) -> None:
        with self.mongodb() as client:
            database = client[data.DATABASE]
            for collection in data.COLLECTIONS:
                database[collection].insert_many(data.documents(collection))
                if collection in data.INDEXES:
                    database[collection].create_index(data.INDEXES[collection])

    @contextlib.contextmanager
    def mongodb(self, seconds: float = 5.0) -> Iterator["pymongo.MongoClient[dict[str, Any]]"]:
        """Yields a client that bypasses the proxy, and raises after this many seconds."""
        port = self._servers["mongodb"].port
        client: pymongo.MongoClient[dict[str, Any]]
        limits: dict[str, Any] = {"serverSelectionTimeoutMS": seconds * 1000, "timeoutMS": seconds * 1000}
        with pymongo.MongoClient(HOST, port, directConnection=True, tz_aware=True, **limits) as client:
            yield client

    def redis(self, database: int) -> "redis.Redis":
        """Returns a client that bypasses the proxies."""
        port = self._servers["redis"].port
        return redis.Redis(
            HOST, port, database, socket_timeout=10, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    # ---- supervision

    def pause(self, seconds: float) -> None:
        """Waits, while recording and restarting processes that end by themselves."""
        until = time.monotonic() + seconds
        while True:
            self._supervise()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(CHECK_SECONDS, left))

    def wait(self, is_ready: Callable[[], bool], name: str, within: float = READY_WITHIN) -> None:
        """Pauses until the process of this name is ready.

        Raises:
            NotReady: it is not ready in time.
        """
        give_up = time.monotonic() + within
        while not is_ready():
            if time.monotonic() > give_up:
                log_tail = self.processes[name].log_tail() if name in self.processes else ""
                raise NotReady(f"{name} was not ready within {within:.0f} s. {log_tail}")
            self.pause(CHECK_SECONDS)

    def _supervise(self) -> None:
        for name, process in self.processes.items():
            if process.is_wanted and (code := process.code) is not None:
                self.deaths.append(Death(time.time(), name, code, process.log_tail()))
                process.kill()  # remaining children
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
        """Whether web answers requests, or whether a worker has logged that it is ready since its last start."""
        if name == "web":
            return self.get("/readyz") == 200
        return self.processes[name].has_logged("ready.")

    def get(self, path: str) -> int:
        """Returns the status of a page; 0 if no response comes."""
        connection = http.client.HTTPConnection(HOST, self.web_port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    # ---- actions of faults

    def kill(self, name: str) -> None:
        """Kills a server, or a process with its children; it stays down until :meth:`start`."""
        if name in self._servers:
            self._away.add(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._servers[name].pid, signal.SIGKILL)
            self._servers[name].stop()
        else:
            self.processes[name].is_wanted = False
            self.processes[name].kill()

    def start(self, name: str) -> None:
        """Starts a killed or terminated process; for a server, returns when it answers."""
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
        """Sends SIGTERM, as a deploy does; returns whether it ended in time. It stays down until :meth:`start`."""
        process = self.processes[name]
        process.is_wanted = False
        process.signal(signal.SIGTERM)
        give_up = time.monotonic() + STOPPED_WITHIN
        while process.code is None and time.monotonic() < give_up:
            self.pause(CHECK_SECONDS)
        ended = process.code is not None
        process.kill()
        return ended

    def signal(self, name: str, number: signal.Signals) -> None:
        """Signals a server, or a process with its children."""
        if name in self._servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._servers[name].pid, number)
        else:
            self.processes[name].signal(number)

    def pick_child(self, name: str, rng: random.Random) -> int | None:
        """Returns the process id of a random child of a process, None if it has none."""
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
            time.sleep(CHECK_SECONDS)
        for process in self.processes.values():
            process.kill()

    def _stop_servers(self) -> None:
        for server in self._servers.values():
            server.stop()

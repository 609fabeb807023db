"""Finds Redis and MongoDB on PATH or in the wheels, and starts and stops them for development and tests.

A server ends with the process that started it, listens on 127.0.0.1 only, and locks its folder.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
import redis
from pymongo.errors import OperationFailure, PyMongoError
from redis.backoff import NoBackoff
from redis.retry import Retry

from development.lifetime import end_with_parent
from development.locks import take_lock
from development.programs import ServerError, find_mongod, find_redis, mongod_environment

__all__ = ["REPLICA_SET", "Server", "ServerError", "free_port", "is_free", "start_mongodb", "start_redis"]

READY_WITHIN = 60.0  # seconds; after a crash the server replays its journal first
GONE_WITHIN = 2.0  # seconds for which a killed server may still hold its lock and port
HOST = "127.0.0.1"
REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94  # MongoDB's error code


class Server:
    """A running server; as a context manager it stops at the end."""

    def __init__(self, name: str, url: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.url = url
        self.port = port
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout: float = 30.0) -> None:
        """Asks the server to save and exit, even if it is paused; kills it after `timeout` seconds."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_redis(folder: Path, port: int | None = None) -> Server:
    """Starts Redis with its data in this folder, on any free port unless one is given.

    Raises:
        ServerError: it cannot start.
    """
    port, log = port or free_port(), folder / "redis.log"
    command = [find_redis(), "--bind", HOST, "--port", str(port), "--dir", str(folder / "data"), "--daemonize", "no"]
    # Append-only file, no snapshots. A power cut may lose the last second of writes; a stop or a crash loses none.
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command += ["--maxmemory-policy", "noeviction"]  # a queue must never silently lose a message
    _prepare("Redis", folder)
    process = _spawn("Redis", command, log, port)
    return _when_ready(Server("Redis", f"redis://{HOST}:{port}", port, process), _redis_answers, log)


def start_mongodb(folder: Path, port: int | None = None, member: str | None = None) -> Server:
    """Starts MongoDB with its data in this folder, as the primary and only member of the replica set rs0.

    Its URL names the replica set and does not ask for a direct connection, so that clients behave as in production.

    Args:
        member: the host and port that clients connect to; a proxy must already listen there. Default: the server's own.

    Raises:
        ServerError: it cannot start.
    """
    port, log, program = port or free_port(), folder / "mongod.log", find_mongod()
    member = member or f"{HOST}:{port}"
    command = [program, "--bind_ip", HOST, "--port", str(port), "--dbpath", str(folder / "data"), "--nounixsocket"]
    command += ["--replSet", REPLICA_SET, "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5", "--quiet"]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    _prepare("MongoDB", folder)
    process = _spawn("MongoDB", command, log, port, mongod_environment(program, folder))
    url = f"mongodb://{member}/?replicaSet={REPLICA_SET}"
    return _when_ready(Server("MongoDB", url, port, process), partial(_mongodb_is_primary, member=member), log)


def free_port() -> int:
    """Returns a port for a server to listen on, reserved on this machine for as long as this process lives."""
    probe = socket.socket()
    probe.bind((HOST, 0))
    # The socket stays bound, so the kernel does not choose the port again; with SO_REUSEADDR a server can still listen.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port = int(probe.getsockname()[1])
    probe.detach()
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a stopped server linger for a minute; they do not prevent listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _prepare(name: str, folder: Path) -> None:
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        os.close(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600))
        next((folder / "data").iterdir(), None)
    except OSError as error:
        raise ServerError(f"{name} cannot use {folder} ({error.strerror}). Make it yours, or remove it.") from error


@contextmanager
def _lock(name: str, folder: Path) -> Iterator[int]:
    """Locks the folder, since two servers would ruin it. The server inherits the lock and holds it until it ends."""
    lock = os.open(folder / "lock", os.O_RDWR)
    give_up = time.monotonic() + GONE_WITHIN
    try:
        while not take_lock(lock):
            if time.monotonic() > give_up:
                raise ServerError(f"{name} already runs on {folder}. Stop that one first, or use another folder.")
            time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def _spawn(
    name: str, command: list[str], log: Path, port: int, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with _lock(name, log.parent) as lock:
        if not is_free(port):
            raise ServerError(
                f"Port {port} is taken, so {name} cannot listen there. Stop what uses it, or name another."
            )
        if log.exists():
            log.replace(log.with_suffix(".log.previous"))
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C must reach only our process, which stops its servers in order
                preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - takes no lock
            )


def _when_ready(server: Server, is_ready: Callable[[int], bool], log: Path) -> Server:
    give_up = time.monotonic() + READY_WITHIN
    try:
        while not is_ready(server.port):
            if not server.is_running:
                raise ServerError(f"{server.name} ended as it started: {_last_message(log)} (see {log}).")
            if time.monotonic() > give_up:
                raise ServerError(
                    f"{server.name} was not ready in {READY_WITHIN:.0f} s: {_last_message(log)} (see {log})."
                )
            time.sleep(0.05)
    except BaseException:
        server.stop(timeout=5)
        raise
    return server


def _last_message(log: Path) -> str:
    """Returns the last line of a log; for MongoDB, which logs JSON, the last error or warning."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("{") and '"s":"I"' not in line]
    last = (errors or lines or ["it wrote nothing"])[-1]
    if last.startswith("{"):
        entry = json.loads(last)
        last = f"{entry['msg']} {json.dumps(entry.get('attr', {}))}"
    return last.rstrip(".")


def _redis_answers(port: int) -> bool:
    client = redis.Redis(HOST, port, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))
    with client:
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its data
            return False


def _mongodb_is_primary(port: int, member: str) -> bool:
    """Whether the server is primary. If it has no replica set or another address, configures it for the next call."""
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(HOST, port, directConnection=True, timeoutMS=2000) as client:
        try:
            if client.admin.command("hello")["isWritablePrimary"]:
                return True
            _make_member(client, member)
        except PyMongoError:  # not listening yet, or still loading its configuration
            return False
    return False


def _make_member(client: pymongo.MongoClient[dict[str, Any]], host: str) -> None:
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
        return
    (member,) = config["members"]
    if member["host"] != host:
        config |= {"members": [member | {"host": host}], "version": config["version"] + 1}
        client.admin.command("replSetReconfig", config, force=True)

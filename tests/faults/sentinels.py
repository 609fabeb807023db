"""A Redis primary and a replica, watched by three Sentinels; all of them require a password."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from development.programs import find_redis
from development.servers import HOST, Server, free_port, start_redis
from tests.support import eventually

NAME = "the-primary"
PASSWORD, SENTINELS_PASSWORD = "of redis / ; @", "of the sentinels"
#: The primary counts as dead after this many milliseconds without an answer.
DEAD_AFTER_MS = 1_000


class WatchedRedis:
    """The servers and their Sentinels."""

    def __init__(self, servers: dict[int, Server], sentinels: dict[int, subprocess.Popen[bytes]]):
        self.servers = servers
        self.sentinels = sentinels
        # The last Sentinel, because a test may freeze the first one.
        self._last_sentinel = redis.Redis(HOST, list(sentinels)[-1], password=SENTINELS_PASSWORD, socket_timeout=2)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of Dovetail for these servers; they do not name the primary."""
        return {
            "REDIS_SENTINELS": ",".join(f"{HOST}:{port}" for port in self.sentinels),
            "REDIS_SENTINEL_MASTER": NAME,
            "REDIS_SENTINEL_PASSWORD": SENTINELS_PASSWORD,
            "REDIS_URL": "redis://:of%20redis%20%2F%20%3B%20%40@",
        }

    @property
    def primary(self) -> Server:
        """The primary, according to the last Sentinel."""
        address: Any = self._last_sentinel.sentinel_get_master_addr_by_name(NAME)
        return self.servers[int(address[1])]

    def fail_over(self) -> None:
        """Orders a failover, as an operator does before maintenance of the primary's host."""
        self._last_sentinel.sentinel_failover(NAME)

    def is_settled(self) -> bool:
        """Whether every Sentinel knows the replica and both other Sentinels, as a failover requires."""
        for port in self.sentinels:
            with redis.Redis(HOST, port, password=SENTINELS_PASSWORD, socket_timeout=2) as sentinel:
                try:
                    state: Any = sentinel.sentinel_master(NAME)
                    replicas: Any = sentinel.sentinel_slaves(NAME)
                except redis.ConnectionError:  # not listening yet
                    return False
            linked = any(replica["master-link-status"] == "ok" for replica in replicas)
            if not linked or state["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
        return True


@contextmanager
def watched_redis(folder: Path) -> Iterator[WatchedRedis]:
    """Starts all five processes, and stops them at the end."""
    with ExitStack() as running:
        primary, replica = (running.enter_context(start_redis(_created(folder / name))) for name in ("first", "second"))
        for server in (primary, replica):
            with redis.Redis(HOST, server.port, socket_timeout=2) as client:
                if server is replica:
                    client.replicaof(HOST, primary.port)
                client.config_set("masterauth", PASSWORD)
                client.config_set("requirepass", PASSWORD)
        sentinels = {port: _sentinel(folder, port, primary.port) for port in (free_port() for _ in range(3))}
        for process in sentinels.values():
            running.callback(_kill, process)
        watched = WatchedRedis({server.port: server for server in (primary, replica)}, sentinels)
        eventually(watched.is_settled, within=30)
        yield watched


def _created(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _sentinel(folder: Path, port: int, primary: int) -> subprocess.Popen[bytes]:
    config = folder / f"sentinel-{port}.conf"
    config.write_text(
        f'port {port}\nbind {HOST}\ndir "{folder}"\nrequirepass "{SENTINELS_PASSWORD}"\n'
        f'sentinel monitor {NAME} {HOST} {primary} 2\nsentinel auth-pass {NAME} "{PASSWORD}"\n'
        f"sentinel down-after-milliseconds {NAME} {DEAD_AFTER_MS}\nsentinel failover-timeout {NAME} 5000\n"
    )
    with config.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([find_redis(), str(config), "--sentinel"], stdout=log, stderr=log)


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

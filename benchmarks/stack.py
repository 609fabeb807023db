"""Shared parts of the benchmarks: servers, workers, sample data, timers, and rows of the results table."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from development.processes import read_procfile
from development.servers import free_port, start_mongodb, start_redis

ROOT = Path(__file__).resolve().parents[1]
USERS, ORDERS = 100_000, 1_000_000
STATES = ("PAID", "OPEN", "CANCELLED", "SHIPPED")
READY_SECONDS = 60


@dataclass(frozen=True)
class Row:
    """One line of the table, with a ratio of medians and both medians."""

    name: str
    goal: str
    ratio: float
    ours: float
    theirs: float
    unit: str
    repeats: int

    def line(self) -> str:
        parts = (
            f"{self.ours:.4g} against {self.theirs:.4g} {self.unit}" if self.theirs else f"{self.ours:.4g} {self.unit}"
        )
        return f"{self.name:<62} goal {self.goal:<8} {self.ratio:7.2f}   ({parts}, {self.repeats} repeats)"

    def to_document(self) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in vars(self).items()}


def ratio(name: str, goal: str, ours: Sequence[float], theirs: Sequence[float], unit: str = "s") -> Row:
    """A row with the median of ours divided by the median of theirs."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    return Row(name, goal, mine / other, mine, other, unit, len(ours))


def amount(name: str, goal: str, values: Sequence[float], unit: str) -> Row:
    """A row with a median that has no baseline."""
    median = statistics.median(values)
    return Row(name, goal, median, median, 0, unit, len(values))


class Servers:
    """Runs Redis and MongoDB with their data in a folder, and sets the environment variables that name them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> Self:
        self.redis = start_redis(self.folder / "redis", free_port())
        self.mongodb = start_mongodb(self.folder / "mongodb", free_port())
        os.environ |= {
            "REDIS_URL": self.redis.url,
            "MONGODB_URI": self.mongodb.url,
            "SECRET_KEY": "only for measurements",
            "COOKIES_SECURE": "false",
            "JOIN_DATABASES": "bench,flights",
            "JOIN_DATABASE": "bench",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mongodb.__exit__(kind, error, trace)
        self.redis.__exit__(kind, error, trace)

    @contextmanager
    def process(self, command: str, ready: str, **environment: str) -> Iterator[int]:
        """Runs a process for the duration of the block; yields its id once its log contains ``ready``."""
        log = self.folder / "process.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S602 - the commands are the repository's own
                command,
                shell=True,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: ready in log.read_text() or process.poll() is not None)
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            yield process.pid
        finally:
            process.terminate()
            process.wait(READY_SECONDS)

    def worker(self, concurrency: int, include: str = "", **environment: str) -> Any:
        """Runs our worker, as in the Procfile."""
        line = read_procfile(ROOT / "Procfile")["worker"].replace("INFO", "INFO" if not include else "WARNING")
        more = f" --include {include}" if include else ""
        return self.process(f"{line} --concurrency {concurrency}{more} --loglevel INFO", "ready.", **environment)

    def original_worker(self, concurrency: int) -> Any:
        """Runs the worker of the two originals."""
        flags = "--loglevel INFO --without-gossip --without-mingle"
        line = f"exec celery --app benchmarks.baselines worker {flags} --concurrency {concurrency}"
        return self.process(line, "ready.")


def wait_until(condition: Callable[[], Any], within: float = READY_SECONDS, pause: float = 0.005) -> Any:
    """Returns the value of ``condition`` as soon as it is truthy.

    Raises:
        TimeoutError: it stays falsy for ``within`` seconds.
    """
    give_up = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise TimeoutError("waited too long")
        time.sleep(pause)
    return value


def timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def fill(database: Any, users: int = USERS, orders: int = ORDERS) -> None:
    """Fills the collections with the same users and orders each time, and indexes the orders by user."""
    if database.users.estimated_document_count() == users:
        return
    database.users.drop()
    database.orders.drop()
    for start in range(0, users, 50_000):
        numbers = range(start, min(users, start + 50_000))
        database.users.insert_many(
            [
                {"_id": f"u{number}", "name": f"User {number}", "email": f"user{number}@example.com"}
                for number in numbers
            ]
        )
    for start in range(0, orders, 50_000):
        numbers = range(start, min(orders, start + 50_000))
        database.orders.insert_many(
            [
                {
                    "_id": number,
                    "userId": f"u{number * 7919 % users}",
                    "amount": number % 5000,
                    "status": STATES[number % 4],
                }
                for number in numbers
            ]
        )
    database.orders.create_index("userId")


def memory_of(process: int) -> int:
    """Bytes of memory of a process and its descendants, with shared pages counted once (PSS)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return own + sum(memory_of(int(child)) for child in children)

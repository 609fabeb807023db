"""One client per process for each server, a ping for each, one place to close."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pymongo
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from worker_tasks.infra.errors import TookTooLong, is_refusal, to_service_unavailable
from worker_tasks.infra.settings import Settings, settings

#: Limit of one MongoDB operation, in milliseconds. Without it the driver waits for ever on a frozen server.
MONGODB_TIMEOUT_MS = 2_000
#: Limit of one Redis reply, in seconds.
REDIS_TIMEOUT = 1.0
#: The same for hints, which must not hold up what they are about. Asking, publishing and two hints on a frozen
#: Redis stay under 3 s.
HINT_TIMEOUT = 0.3
#: The same for a Sentinel, which keeps everything in memory. All of them may have to be asked, one after the other.
SENTINEL_TIMEOUT = 0.2
#: How many times as long as it took them the Sentinels are left alone after none of them knew a primary.
LEFT_ALONE = 5
#: Seconds after which a pool asks the Sentinels whether the primary is still the same; and where none of them knew.
FOLLOW_SECONDS, FOLLOW_LATER_SECONDS = 1.0, 10.0
TASKS_COLLECTION = "task_results"
#: A key, and an id, of which nothing is ever there.
_NOTHING = "nothing"

Document = dict[str, Any]


class Sentinels(Sentinel):
    """Sentinels that are left alone for a while after none of them knew a primary, the longer the longer it took them.

    One answer to a person needs several connections, and must not wait for silent Sentinels at each.
    """

    _ask_at = 0.0

    def discover_master(self, service_name: str) -> Any:
        began = time.monotonic()
        if began < self._ask_at:
            raise MasterNotFoundError(f"No Sentinel knew a primary named {service_name!r} a moment ago")
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            now = time.monotonic()
            self._ask_at = now + LEFT_ALONE * (now - began)
            raise


class FollowingPool(SentinelConnectionPool):
    """Connections to the primary that Sentinels name, also where the one before lives on.

    An operator's failover leaves that one writable for about ten seconds, and then it throws away what it took.
    redis-py asks the Sentinels only when it connects.
    """

    _ask_at = 0.0

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + FOLLOW_SECONDS
            try:
                # Of another primary than before this closes the idle connections; the others as they come back.
                self.get_master_address()  # type: ignore[no-untyped-call]
            except MasterNotFoundError:
                # The primary may well be there; a Sentinel that hangs must not slow each request down.
                self._ask_at = time.monotonic() + FOLLOW_LATER_SECONDS
        return super().get_connection(*arguments, **options)


class Connections:
    """The clients of one process. Nothing connects before it is used."""

    def __init__(self, settings: Settings):
        self.mongodb: MongoClient[Document] = MongoClient(
            settings.mongodb_uri, tz_aware=True, timeoutMS=MONGODB_TIMEOUT_MS, connect=False, appname="dovetail"
        )
        self.joins: MongoClient[Document] = MongoClient(
            settings.mongodb_uri,
            tz_aware=True,
            timeoutMS=MONGODB_TIMEOUT_MS,
            connect=False,
            appname="dovetail joins",
            # What closes the connection, such as a joined document of over 16 MB, would only do so again.
            retryReads=False,
            # A date past the year 9999 is a value as any other, and Python has none for it.
            datetime_conversion="DATETIME_AUTO",
        )
        self._sentinel = Sentinels(  # type: ignore[no-untyped-call]
            settings.sentinels, sentinel_kwargs=sentinel_options(settings)
        )
        primary = partial(self._sentinel.master_for, settings.redis_sentinel_master) if settings.sentinels else None
        results_at = None if settings.results_redis_url else primary
        self.results = _redis_client(settings.results_url, results_at)
        self.hints = _redis_client(settings.results_url, results_at, HINT_TIMEOUT)
        self.queue = _redis_client(settings.queue_url, primary)
        self._settings = settings

    @property
    def tasks(self) -> Collection[Document]:
        """The task documents."""
        return self.mongodb[self._settings.tasks_database][TASKS_COLLECTION]

    @property
    def join_database(self) -> Database[Document]:
        """The collections to join."""
        return self.joins[self._settings.join_database]

    def ping(self) -> Mapping[str, str]:
        """Asks every server whether it does what is needed: with a write that changes nothing.

        Returns:
            ``{name of the server: "ok" or why it is away}``. A Redis that is only full is ok: room.py.
        """
        pings: list[tuple[str, Callable[[], Any]]] = [
            ("MongoDB", lambda: self.tasks.update_one({"_id": _NOTHING}, {"$set": {"seen": True}})),
            ("Redis (queue)", lambda: _takes_writes(self.queue)),
            ("Redis (results)", lambda: _takes_writes(self.results)),
        ]
        # Side by side, so that several servers that hang take no longer to find out than one.
        with ThreadPoolExecutor(len(pings)) as pool:
            return dict(pool.map(_sign_of_life, pings))

    def close(self) -> None:
        self.mongodb.close()
        self.joins.close()
        self.results.close()
        self.hints.close()
        self.queue.close()
        self._sentinel.close()


class _DropsWhatTimedOut:
    """redis-py keeps a connection to a primary that did not answer, and so would never learn of the new one."""

    def read_response(self, *arguments: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        return super().read_response(*arguments, disconnect_on_error=disconnect_on_error, **options)  # type: ignore[misc]


class PrimaryConnection(_DropsWhatTimedOut, SentinelManagedConnection):  # type: ignore[misc]
    pass


class PrimarySSLConnection(_DropsWhatTimedOut, SentinelManagedSSLConnection):  # type: ignore[misc]
    pass


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """How a Sentinel is spoken to; kombu takes the same options."""
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        # The next one is asked instead.
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.redis_sentinel_password is not None:
        options["password"] = settings.redis_sentinel_password.get_secret_value()
    said = _said_by(settings.queue_url)
    if "connection_class" in said:
        options |= {"ssl": True} | {name: value for name, value in said.items() if name.startswith("ssl_")}
    return options


def _redis_client(
    url: str, primary: Callable[..., redis.Redis] | None = None, timeout: float = REDIS_TIMEOUT
) -> redis.Redis:
    """A client of the server at this URL, or of the ``primary``, with everything else that the URL says."""
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # redis-py alone would try ten times, which is a minute on a frozen server. One more try mends a pooled
        # connection that a restart has cut; after a time-out there is none.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        "health_check_interval": 25,
    }
    if primary is None:
        return redis.Redis.from_url(url, **options)
    said = _said_by(url)
    is_tls = said.pop("connection_class", None) is not None
    said["connection_class"] = PrimarySSLConnection if is_tls else PrimaryConnection
    for where in ("host", "port"):
        said.pop(where, None)
    return primary(connection_pool_class=FollowingPool, **said, **options)


def _said_by(url: str) -> dict[str, Any]:
    """The options of a connection that the URL asks for; ``connection_class`` among them if it is to be TLS."""
    return dict(parse_url(url))  # type: ignore[no-untyped-call]


def _sign_of_life(named_ping: tuple[str, Callable[[], Any]]) -> tuple[str, str]:
    name, ping = named_ping
    try:
        ping()
    except (PyMongoError, RedisError) as error:
        return name, str(to_service_unavailable(error)) if is_refusal(error) else type(error).__name__
    return name, "ok"


def _takes_writes(store: redis.Redis) -> None:
    store.ping()
    with suppress(OutOfMemoryError):
        store.setrange(_NOTHING, 0, b"")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limits the time of what is asked of MongoDB inside.

    Raises:
        TookTooLong: it was not answered by then.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        # The server may say so itself, or the connection be given up first.
        if error.timeout:
            raise TookTooLong from error
        raise


_by_process: dict[int, Connections] = {}


def connections() -> Connections:
    """The clients of this process.

    They are kept by process id because workers fork while their parent holds open clients, and a client
    must not be used on both sides of a fork.
    """
    process = os.getpid()
    if process not in _by_process:
        _by_process.setdefault(process, Connections(settings()))
    return _by_process[process]


def close_connections() -> None:
    """Closes the clients of this process; the next use makes new ones."""
    if (current := _by_process.pop(os.getpid(), None)) is not None:
        current.close()

"""The clients of MongoDB and Redis: one per server and process, with a ping and one place to close them."""

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

#: Time limit of one MongoDB operation, in milliseconds. Without it the driver waits forever for a frozen server.
MONGODB_TIMEOUT_MS = 2_000
#: The interval of the driver's heartbeats. While the shortest round trip they measured exceeds an operation's limit,
#: the driver refuses the operation at once: after two slow heartbeats, for one interval, which by default is 10 s.
MONGODB_HEARTBEAT_MS = 1_000
#: Time limit of one Redis reply, in seconds.
REDIS_TIMEOUT = 1.0
#: The same for hints, which must not delay the task they describe. Submitting a task (one query, one publish, two
#: hints) to a frozen Redis stays under 3 s.
HINT_TIMEOUT = 0.3
#: The same for a Sentinel. It answers from memory, and a client may have to try all of them in turn.
SENTINEL_TIMEOUT = 0.2
#: After a failed search for a primary, no Sentinel gets a query for this many times the duration of the search.
BACKOFF_FACTOR = 5
#: Seconds between a pool's checks for a new primary; the second number applies after a failed check.
CHECK_SECONDS, CHECK_AFTER_FAILURE_SECONDS = 1.0, 10.0
TASKS_COLLECTION = "task_results"
#: Used as a key and as a document id; neither ever exists.
_NOTHING = "nothing"

Document = dict[str, Any]


class Sentinels(Sentinel):
    """Sentinels with a back-off: after a failed search for a primary, further searches fail at once for a while.

    The back-off is proportional to the duration of the failed search. One web request opens several connections, and
    must not wait for silent Sentinels each time.
    """

    _retry_at = 0.0

    def discover_master(self, service_name: str) -> Any:
        started = time.monotonic()
        if started < self._retry_at:
            raise MasterNotFoundError(f"No Sentinel knew a primary named {service_name!r} a moment ago")
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            now = time.monotonic()
            self._retry_at = now + BACKOFF_FACTOR * (now - started)
            raise


class FollowingPool(SentinelConnectionPool):
    """Connections to the current primary, even while the previous one still accepts writes.

    After a manual failover the old primary stays writable for about ten seconds, and then discards those writes.
    redis-py alone asks the Sentinels only when it opens a connection.
    """

    _check_at = 0.0

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_SECONDS
            try:
                # If the primary has changed, this closes idle connections now and busy ones on their return.
                self.get_master_address()  # type: ignore[no-untyped-call]
            except MasterNotFoundError:
                # The primary may be fine. Check less often, so that a hanging Sentinel does not slow every request.
                self._check_at = time.monotonic() + CHECK_AFTER_FAILURE_SECONDS
        return super().get_connection(*arguments, **options)


class Connections:
    """The clients of one process. Each connects on first use."""

    def __init__(self, settings: Settings):
        self.mongodb: MongoClient[Document] = MongoClient(
            settings.mongodb_uri,
            tz_aware=True,
            timeoutMS=MONGODB_TIMEOUT_MS,
            heartbeatFrequencyMS=MONGODB_HEARTBEAT_MS,
            connect=False,
            appname="dovetail",
        )
        self.joins = _joins_client(settings.mongodb_uri)
        self._sources: dict[str, MongoClient[Document]] = {}
        self._sentinel = Sentinels(  # type: ignore[no-untyped-call]
            settings.sentinels, sentinel_kwargs=sentinel_options(settings)
        )
        primary = partial(self._sentinel.master_for, settings.redis_sentinel_master) if settings.sentinels else None
        results_primary = None if settings.results_redis_url else primary
        self.results = _redis_client(settings.results_url, results_primary)
        self.hints = _redis_client(settings.results_url, results_primary, HINT_TIMEOUT)
        self.queue = _redis_client(settings.queue_url, primary)
        self._settings = settings

    @property
    def tasks(self) -> Collection[Document]:
        """The collection of task documents."""
        return self.mongodb[self._settings.tasks_database][TASKS_COLLECTION]

    def source(self, name: str | None) -> MongoClient[Document]:
        """The client for the joins of a source in the settings; None stands for the server in ``MONGODB_URI``."""
        if name is None:
            return self.joins
        if name not in self._sources:
            self._sources.setdefault(name, _joins_client(self._settings.sources[name].uri))
        return self._sources[name]

    def ping(self) -> Mapping[str, str]:
        """Checks that every server accepts writes, using a write that changes nothing.

        Returns:
            ``{server name: "ok" or the reason it is unavailable}``. A full Redis counts as ok; redis_memory.py
            reports that separately.
        """
        pings: list[tuple[str, Callable[[], Any]]] = [
            ("MongoDB", lambda: self.tasks.update_one({"_id": _NOTHING}, {"$set": {"seen": True}})),
            ("Redis (queue)", lambda: _require_writable(self.queue)),
            ("Redis (results)", lambda: _require_writable(self.results)),
        ]
        # In parallel, so that several hanging servers take no longer than one.
        with ThreadPoolExecutor(len(pings)) as pool:
            return dict(pool.map(_ping_status, pings))

    def close(self) -> None:
        self.mongodb.close()
        for client in (self.joins, *self._sources.values()):
            client.close()
        self.results.close()
        self.hints.close()
        self.queue.close()
        self._sentinel.close()


class _DisconnectsOnTimeout:
    """Closes a connection after a time-out. redis-py would keep it, and never learn of a new primary."""

    def read_response(self, *arguments: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        return super().read_response(*arguments, disconnect_on_error=disconnect_on_error, **options)  # type: ignore[misc]


class PrimaryConnection(_DisconnectsOnTimeout, SentinelManagedConnection):  # type: ignore[misc]
    pass


class PrimarySSLConnection(_DisconnectsOnTimeout, SentinelManagedSSLConnection):  # type: ignore[misc]
    pass


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """The connection options for the Sentinels, in the form that both redis-py and kombu accept."""
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        # redis-py tries the next Sentinel instead.
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.redis_sentinel_password is not None:
        options["password"] = settings.redis_sentinel_password.get_secret_value()
    redis_options = _url_options(settings.queue_url)
    if "connection_class" in redis_options:
        options |= {"ssl": True} | {name: value for name, value in redis_options.items() if name.startswith("ssl_")}
    return options


def _joins_client(uri: str) -> MongoClient[Document]:
    return MongoClient(
        uri,
        tz_aware=True,
        timeoutMS=MONGODB_TIMEOUT_MS,
        heartbeatFrequencyMS=MONGODB_HEARTBEAT_MS,
        connect=False,
        appname="dovetail joins",
        # An operation that closed the connection, such as a join with documents over 16 MB, would close it again.
        retryReads=False,
        # MongoDB stores dates past the year 9999; datetime cannot hold them.
        datetime_conversion="DATETIME_AUTO",
        # MongoDB also stores texts that are not UTF-8.
        unicode_decode_error_handler="replace",
    )


def _redis_client(
    url: str, primary: Callable[..., redis.Redis] | None = None, timeout: float = REDIS_TIMEOUT
) -> redis.Redis:
    """A client of the server at ``url``, or of the Sentinels' ``primary``; ``url`` sets all other options."""
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # redis-py's default of ten retries takes a minute on a frozen server. One retry replaces a pooled connection
        # that a restart has cut; time-outs are not retried.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        "health_check_interval": 25,
    }
    if primary is None:
        return redis.Redis.from_url(url, **options)
    url_options = _url_options(url)
    is_tls = url_options.pop("connection_class", None) is not None
    url_options["connection_class"] = PrimarySSLConnection if is_tls else PrimaryConnection
    for address_part in ("host", "port"):
        url_options.pop(address_part, None)
    return primary(connection_pool_class=FollowingPool, **url_options, **options)


def _url_options(url: str) -> dict[str, Any]:
    """The connection options in a Redis URL; ``connection_class`` is among them only for TLS."""
    return dict(parse_url(url))  # type: ignore[no-untyped-call]


def _ping_status(named_ping: tuple[str, Callable[[], Any]]) -> tuple[str, str]:
    name, ping = named_ping
    try:
        ping()
    except (PyMongoError, RedisError) as error:
        return name, str(to_service_unavailable(error)) if is_refusal(error) else type(error).__name__
    return name, "ok"


def _require_writable(store: redis.Redis) -> None:
    store.ping()
    with suppress(OutOfMemoryError):
        store.setrange(_NOTHING, 0, b"")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limits the total time of the MongoDB operations in the block.

    Raises:
        TookTooLong: the time is up.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        # The driver sets this both when the server ended the operation and when the driver stopped waiting.
        if error.timeout:
            raise TookTooLong from error
        raise


_by_process: dict[int, Connections] = {}


def connections() -> Connections:
    """The clients of this process.

    Kept by process id: workers fork while their parent holds open clients, and a client must not be used on both
    sides of a fork.
    """
    process_id = os.getpid()
    if process_id not in _by_process:
        _by_process.setdefault(process_id, Connections(settings()))
    return _by_process[process_id]


def close_connections() -> None:
    """Closes the clients of this process; the next use opens new ones."""
    if (current := _by_process.pop(os.getpid(), None)) is not None:
        current.close()

"""The broker connection: kombu's Redis transport, with deliveries that outlive their connection.

These rules replace kombu's own:

* A worker returns its messages to their queue when it stops, but not when it loses a connection, because its pool is
  still working on them. The messages of a lost worker come back when their leases run out.
* A delivery keeps its lease while Celery holds the message or the pool works on it, even if the connection is lost:
  see :class:`Leases`.
* Leases use Redis's clock, not the host's.
* Redis errors do not reach Celery's main loop.

This module never uses MULTI, because a Redis over its memory limit refuses every transaction, even one that only frees
memory.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import ConnectionError, RedisError, ResponseError  # noqa: A004 - Redis's own

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import PrimaryConnection, PrimarySSLConnection, connections

#: The largest number of deliveries that one sweep returns to their queues.
SWEEP_LIMIT = 200
#: Seconds between a new connection and its first sweep. After an outage every lease appears to have run out,
#: and live workers need a moment to renew theirs.
FIRST_SWEEP_SECONDS = 5.0

#: This module uses some undocumented parts of kombu, as they are in this version. A test fails if they change.
KOMBU_VERSION = "5.7.0"
PRIVATE_IN_KOMBU: dict[type, list[str]] = {
    kombu_redis.Channel: ["_q_for_pri", "_connparams"],
    virtual.Channel: ["_lookup", "_get_message_priority", "_next_delivery_tag"],
    virtual.QoS: ["_delivered", "_flush"],
}

logger = logging.getLogger(__name__)

_RECORD = lua_scripts.load("broker/record")
_RENEW = lua_scripts.load("broker/renew")
_SETTLE = lua_scripts.load("broker/settle")
_OVERDUE = lua_scripts.load("broker/overdue")
_GIVE_BACK = lua_scripts.load("broker/give_back")

UNACKED_KEYS = [kombu_redis.Channel.unacked_index_key, kombu_redis.Channel.unacked_key]


def _run(script: str, arguments: Iterable[Any], queues: Iterable[str] = ()) -> Any:
    keys = [*UNACKED_KEYS, *queues]
    return connections().queue.eval(script, len(keys), *keys, *arguments)


class Leases:
    """The deliveries of this process by delivery tag, and the related writes that Redis has not accepted yet.

    A lease starts with the delivery. It ends when the delivery is acknowledged or rejected, or when Celery drops the
    message. If the connection is lost, Celery drops every message that the pool is not working on. The leases of these
    messages run out, and a free worker takes the messages.
    """

    def __init__(self) -> None:
        #: The number of deliveries that this process has taken since it started.
        self.total_taken = 0
        self._lock = threading.Lock()
        #: Weak references, so that a lease ends when Celery drops the message.
        self._held: WeakValueDictionary[str, Message] = WeakValueDictionary()
        #: Entries for ``unacked`` that Redis has not accepted yet.
        self._unrecorded: dict[str, str] = {}
        #: Tags of acknowledgements that Redis has not accepted yet.
        self._unsettled: set[str] = set()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def has_pending_writes(self) -> bool:
        """Whether some writes still have to be repeated."""
        return bool(self._unsettled or self._unrecorded)

    def take(self, tag: str, message: "Message", entry: str) -> None:
        """Records a delivery. If Redis fails, work starts anyway, and a later renewal records the delivery."""
        with self._lock:
            self.total_taken += 1
            self._held[tag] = message
        try:
            _run(_RECORD, [tag, entry])
        except RedisError as error:
            logger.warning("delivery %s not recorded yet: %s", tag, error)
            with self._lock:
                self._unrecorded[tag] = entry

    def settle(self, tag: str) -> None:
        """Acknowledges a delivery. If Redis fails, a later renewal acknowledges it."""
        self.drop([tag])
        try:
            _run(_SETTLE, [tag])
        except RedisError as error:
            logger.warning("delivery %s not acknowledged yet: %s", tag, error)
            with self._lock:
                self._unsettled.add(tag)

    def drop(self, tags: Iterable[str]) -> None:
        """Stops renewing these deliveries, so that their leases run out."""
        with self._lock:
            for tag in tags:
                self._held.pop(tag, None)
                self._unrecorded.pop(tag, None)

    def renew(self) -> None:
        """Repeats the writes that Redis has not accepted, then renews every lease.

        Raises:
            redis.exceptions.RedisError: a write failed. The next renewal repeats the remaining writes.
        """
        with self._lock:
            unsettled, unrecorded = set(self._unsettled), dict(self._unrecorded)
        for tag, entry in unrecorded.items():
            _run(_RECORD, [tag, entry])
            with self._lock:
                if self._unrecorded.pop(tag, None) is None:  # acknowledged in the meantime
                    unsettled.add(tag)
        if unsettled:
            _run(_SETTLE, unsettled)
        with self._lock:
            self._unsettled -= unsettled
            tags = {*self._held}
        if tags := tags | tags_in_progress():
            _run(_RENEW, tags)


leases = Leases()


def tags_in_progress() -> set[str]:
    """The delivery tags of the messages that the pool is working on, whichever connection delivered them."""
    while True:
        try:
            return {request.message.delivery_tag for request in tuple(state.active_requests)}
        except RuntimeError:
            # The main loop changed the set during the iteration.
            continue


def _is_stopping() -> bool:
    # Celery stores exit codes in these attributes, and 0 is a valid exit code.
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


class Message(virtual.Message):
    """One delivery of a message. Each delivery gets a new tag, and therefore its own lease."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any):
        payload["properties"]["delivery_tag"] = channel._next_delivery_tag()  # noqa: SLF001
        super().__init__(payload, channel, **options)  # type: ignore[no-untyped-call]


class QoS(kombu_redis.QoS):
    """Counts the deliveries of a channel towards the prefetch limit. Their leases can outlive the channel."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._first_sweep = time.monotonic() + FIRST_SWEEP_SECONDS

    def append(self, message: Any, delivery_tag: str) -> None:
        delivery = message.delivery_info
        entry = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])  # noqa: SLF001
        leases.take(delivery_tag, message, entry)
        # Pass None instead of the message, because the lease ends only when all references to the message are gone.
        virtual.QoS.append(self, None, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        # Comes first, so that the prefetch slot is free even if Redis then fails.
        virtual.QoS.ack(self, delivery_tag)
        leases.settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.ack(delivery_tag)
            return
        virtual.QoS.ack(self, delivery_tag)
        leases.drop([delivery_tag])
        self._give_back(delivery_tag, first=False)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Returns all messages to their queues if the worker is stopping.

        If only the connection is lost, messages in progress keep their leases.
        """
        self._on_collect.cancel()
        self._flush()
        tags = list(self._delivered)
        self._delivered.clear()
        if _is_stopping():
            logger.info("returning %d messages to their queues", len(tags))
            for tag in tags:
                self._give_back(tag, first=True)
            leases.drop(tags)
        else:
            leases.drop(set(tags) - tags_in_progress())

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:
        """Returns deliveries with expired leases to their queues."""
        if time.monotonic() < self._first_sweep:
            return
        try:
            for tag in _run(_OVERDUE, [self.visibility_timeout, SWEEP_LIMIT]):
                self._give_back(bytes_to_str(tag), first=True, overdue_by=self.visibility_timeout)
        except RedisError as error:
            logger.warning("no sweep for the messages of lost workers: %s", error)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        self._give_back(tag, first=not leftmost)

    def _give_back(self, tag: str, *, first: bool, overdue_by: float | None = None) -> None:
        """Returns a delivery to its queue. If that fails, the delivery comes back when its lease runs out.

        Args:
            first: whether the message is the next one to be taken from the queue, or the last one.
            overdue_by: does nothing if the lease was renewed within this many seconds. None ignores the lease.
        """
        try:
            entry: Any = connections().queue.hget(self.unacked_key, tag)
            queues: list[str] = []
            message: dict[str, Any] = {}
            if entry is not None:
                message, exchange, routing_key = loads(bytes_to_str(entry))
                queues = self._queues(message, exchange, routing_key)
                if not queues:
                    logger.error("delivery %s has no queue: exchange %r, key %r", tag, exchange, routing_key)
                    return
            overdue = "" if overdue_by is None else overdue_by
            _run(_GIVE_BACK, [tag, dumps(message), overdue, "RPUSH" if first else "LPUSH"], queues)
        except (RedisError, *self.channel.connection_errors, AttributeError) as error:
            # kombu raises AttributeError on a closed channel.
            logger.warning("delivery %s not returned now; it comes back when its lease runs out: %s", tag, error)

    def _queues(self, message: dict[str, Any], exchange: str, routing_key: str) -> list[str]:
        """The Redis keys of the message's queues. Also marks the message as redelivered."""
        message.setdefault("headers", {})["redelivered"] = True
        message["properties"].setdefault("delivery_info", {})["redelivered"] = True
        priority = self.channel._get_message_priority(message, reverse=False)  # noqa: SLF001
        names = self.channel._lookup(exchange, routing_key)  # noqa: SLF001
        return [self.channel._q_for_pri(name, priority) for name in names if name]  # noqa: SLF001


class _ChannelMixin:
    QoS = QoS
    Message = Message

    def close(self) -> None:
        """Closes the channel. Celery closes a broken channel twice and expects neither call to raise."""
        try:
            super().close()  # type: ignore[misc]
        except (*Transport.connection_errors, AttributeError) as error:
            logger.debug("broken channel closed: %r", error)

    def _connparams(self, asynchronous: bool = False) -> Any:
        # kombu would raise AttributeError here, and Celery does not treat that as a lost connection.
        if self.connection is None:  # type: ignore[attr-defined]
            raise ConnectionError("the connection of this channel is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]


class Channel(_ChannelMixin, kombu_redis.Channel):
    pass


class SentinelChannel(_ChannelMixin, kombu_redis.SentinelChannel):
    connection_class = PrimaryConnection
    connection_class_ssl = PrimarySSLConnection  # type: ignore[assignment]


class Transport(kombu_redis.Transport):
    """kombu's Redis transport. It also reconnects if Redis refuses a command, because Redis may accept it later."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


class SentinelTransport(kombu_redis.SentinelTransport):
    Channel = SentinelChannel
    connection_errors = Transport.connection_errors


def install() -> None:
    """Registers these transports with kombu for Redis URLs."""
    ours = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
    TRANSPORT_ALIASES.update({scheme: f"{__name__}:{transport.__name__}" for scheme, transport in ours.items()})

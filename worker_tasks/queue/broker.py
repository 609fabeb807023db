"""The broker connection: kombu's Redis transport, with deliveries that outlive the connection they came through.

Three rules replace kombu's own:

* What a worker holds goes back to its queue when the worker stops, never when a connection is lost: the pool still
  works on it. What a lost worker held comes back when its lease runs out.
* A lease belongs to a delivery that is in hand or being worked on, whatever connection there is: see :class:`Leases`.
* Redis's clock counts, not the host's; and no failure of Redis raises into Celery's main loop.

Nothing here uses MULTI: a Redis over its memory limit refuses every transaction, even one that only frees memory.
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

#: Deliveries that one sweep may give back to their queues.
SWEEP_LIMIT = 200
#: Seconds that a new connection waits before its first sweep. After an outage every lease looks as if it had run out,
#: and the workers that hold them need a moment to say that they are still there.
FIRST_SWEEP_SECONDS = 5.0

#: What is used of this version of kombu beyond its documentation. A test fails when one of these changes.
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
    """The deliveries that this process has, by delivery tag, and what Redis has still to be told of them.

    A delivery is leased from when it is taken until it is acknowledged or rejected, for as long as Celery has its
    message in hand. When its connection is lost, only those stay leased that the pool works on. Celery drops the
    others, so they run out and come to a worker that is free.
    """

    def __init__(self) -> None:
        #: How many deliveries this process has taken.
        self.total_taken = 0
        self._lock = threading.Lock()
        self._in_hand: WeakValueDictionary[str, Message] = WeakValueDictionary()
        #: The entries in ``unacked`` that Redis has not taken yet.
        self._unrecorded: dict[str, str] = {}
        #: Acknowledged here, and not yet in Redis.
        self._owed: set[str] = set()

    def __len__(self) -> int:
        return len(self._in_hand)

    @property
    def has_pending_writes(self) -> bool:
        """Whether Redis has missed something."""
        return bool(self._owed or self._unrecorded)

    def take(self, tag: str, message: "Message", entry: str) -> None:
        """Records a delivery. If Redis refuses, it is worked on all the same, and recorded by a later renewal."""
        with self._lock:
            self.total_taken += 1
            self._in_hand[tag] = message
        try:
            _run(_RECORD, [tag, entry])
        except RedisError as error:
            logger.warning("delivery %s not recorded yet: %s", tag, error)
            with self._lock:
                self._unrecorded[tag] = entry

    def settle(self, tag: str) -> None:
        """Acknowledges a delivery; if Redis does not answer, a later renewal does so."""
        self.drop([tag])
        try:
            _run(_SETTLE, [tag])
        except RedisError as error:
            logger.warning("delivery %s not acknowledged yet: %s", tag, error)
            with self._lock:
                self._owed.add(tag)

    def drop(self, tags: Iterable[str]) -> None:
        """Lets the leases of these run out."""
        with self._lock:
            for tag in tags:
                self._in_hand.pop(tag, None)
                self._unrecorded.pop(tag, None)

    def renew(self) -> None:
        """Tells Redis what it missed, and renews every lease.

        Raises:
            redis.exceptions.RedisError: not all of it was done.
        """
        with self._lock:
            owed, unrecorded = set(self._owed), dict(self._unrecorded)
        for tag, entry in unrecorded.items():
            _run(_RECORD, [tag, entry])
            with self._lock:
                if self._unrecorded.pop(tag, None) is None:  # acknowledged in the meantime
                    owed.add(tag)
        if owed:
            _run(_SETTLE, owed)
        with self._lock:
            self._owed -= owed
            tags = {*self._in_hand}
        if tags := tags | tags_in_progress():
            _run(_RENEW, tags)


leases = Leases()


def tags_in_progress() -> set[str]:
    """The delivery tags of what the pool works on, on whatever connection it came."""
    while True:
        try:
            return {request.message.delivery_tag for request in tuple(state.active_requests)}
        except RuntimeError:
            # The main loop changed the set in the same moment.
            continue


def _stopping() -> bool:
    return any(asked is not None and asked is not False for asked in (state.should_stop, state.should_terminate))


class Message(virtual.Message):
    """A delivery, with a tag of its own: a message that is delivered again has another lease."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any):
        payload["properties"]["delivery_tag"] = channel._next_delivery_tag()  # noqa: SLF001
        super().__init__(payload, channel, **options)  # type: ignore[no-untyped-call]


class QoS(kombu_redis.QoS):
    """Which messages a channel has delivered, for the prefetch limit; their leases outlive it."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._first_sweep = time.monotonic() + FIRST_SWEEP_SECONDS

    def append(self, message: Any, delivery_tag: str) -> None:
        delivery = message.delivery_info
        entry = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])  # noqa: SLF001
        leases.take(delivery_tag, message, entry)
        # Not the message itself: that only Celery has it in hand is what its lease depends on.
        virtual.QoS.append(self, None, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        # Whatever Redis says, the slot is free again.
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
        """Gives back what is held, if the worker stops. If its connection is lost, what the pool has stays leased."""
        self._on_collect.cancel()
        self._flush()
        tags = list(self._delivered)
        self._delivered.clear()
        if _stopping():
            logger.info("giving %d messages back to their queues", len(tags))
            for tag in tags:
                self._give_back(tag, first=True)
            leases.drop(tags)
        else:
            leases.drop(set(tags) - tags_in_progress())

    def restore_visible(self, start: int = 0, num: int | None = None, interval: int = 1) -> None:
        """Gives back what nobody has renewed for the visibility timeout."""
        if time.monotonic() < self._first_sweep:
            return
        try:
            for tag in _run(_OVERDUE, [self.visibility_timeout, SWEEP_LIMIT]):
                self._give_back(bytes_to_str(tag), first=True, overdue_by=self.visibility_timeout)
        except RedisError as error:
            logger.warning("no sweep for messages of lost workers: %s", error)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        self._give_back(tag, first=not leftmost)

    def _give_back(self, tag: str, *, first: bool, overdue_by: float | None = None) -> None:
        """Puts a delivery back into its queue, as the ``first`` or the last; a failure leaves its lease to run out."""
        try:
            entry: Any = connections().queue.hget(self.unacked_key, tag)
            queues: list[str] = []
            message: dict[str, Any] = {}
            if entry is not None:
                message, exchange, routing_key = loads(bytes_to_str(entry))
                queues = self._queues(message, exchange, routing_key)
                if not queues:
                    logger.error("delivery %s belongs to no queue: exchange %r, key %r", tag, exchange, routing_key)
                    return
            overdue = "" if overdue_by is None else overdue_by
            _run(_GIVE_BACK, [tag, dumps(message), overdue, "RPUSH" if first else "LPUSH"], queues)
        except (RedisError, *self.channel.connection_errors, AttributeError) as error:
            # AttributeError: kombu's closed channel knows no server any more.
            logger.warning("delivery %s not given back now, it comes back when its lease runs out: %s", tag, error)

    def _queues(self, message: dict[str, Any], exchange: str, routing_key: str) -> list[str]:
        """The Redis keys of the queues that this message belongs to; marks it as delivered before."""
        message.setdefault("headers", {})["redelivered"] = True
        message["properties"].setdefault("delivery_info", {})["redelivered"] = True
        priority = self.channel._get_message_priority(message, reverse=False)  # noqa: SLF001
        names = self.channel._lookup(exchange, routing_key)  # noqa: SLF001
        return [self.channel._q_for_pri(name, priority) for name in names if name]  # noqa: SLF001


class _ChannelMixin:
    QoS = QoS
    Message = Message

    def close(self) -> None:
        """Closes the channel. Celery closes one that is broken twice, and expects neither to raise."""
        try:
            super().close()  # type: ignore[misc]
        except (*Transport.connection_errors, AttributeError) as error:
            logger.debug("broken channel closed: %r", error)

    def _connparams(self, asynchronous: bool = False) -> Any:
        # kombu would fail with an AttributeError, which nobody takes for a lost connection.
        if self.connection is None:  # type: ignore[attr-defined]
            raise ConnectionError("the connection of this channel is closed")
        return super()._connparams(asynchronous)  # type: ignore[misc]


class Channel(_ChannelMixin, kombu_redis.Channel):
    pass


class SentinelChannel(_ChannelMixin, kombu_redis.SentinelChannel):
    connection_class = PrimaryConnection
    connection_class_ssl = PrimarySSLConnection  # type: ignore[assignment]


class Transport(kombu_redis.Transport):
    """kombu's Redis transport, to which a Redis that refuses is as good as one that is away: it will be back."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


class SentinelTransport(kombu_redis.SentinelTransport):
    Channel = SentinelChannel
    connection_errors = Transport.connection_errors


def install() -> None:
    """Makes kombu use these transports for the URLs of Redis."""
    ours = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
    TRANSPORT_ALIASES.update({scheme: f"{__name__}:{transport.__name__}" for scheme, transport in ours.items()})

"""The broker connection measures leases by Redis's clock, and its acknowledgements never fail."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import kombu
import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer, Producer
from kombu.transport import virtual
from kombu.transport.redis import Channel

from development.servers import Server
from tests.support import paused
from worker_tasks.infra.connections import connections
from worker_tasks.queue import broker
from worker_tasks.queue.broker import KOMBU_VERSION, PRIVATE_IN_KOMBU, UNACKED_KEYS, leases
from worker_tasks.queue.celery_app import app

pytestmark = pytest.mark.usefixtures("servers")

INDEX, UNACKED = UNACKED_KEYS


@pytest.fixture
def queue() -> str:
    return f"broker-{uuid4().hex}"


@pytest.fixture
def connection() -> Iterator[Connection]:
    with app.connection_for_read() as opened:
        yield opened


@pytest.fixture
def take(connection: Connection, queue: str) -> Iterator[Any]:
    """A function that publishes ``count`` messages and returns their deliveries."""

    def deliver(count: int = 1) -> list[Any]:
        channel = connection.channel()
        for number in range(count):
            Producer(channel).publish({"number": number}, routing_key=queue, headers={"id": f"{queue}.{number}"})
        delivered: list[Any] = []
        consumer = Consumer(channel, [Queue(queue)], on_message=delivered.append, accept=["json"])
        consumer.consume()
        while len(delivered) < count:
            connection.drain_events(timeout=5)
        consumer.cancel()
        consumer.on_message = None
        return delivered

    yield deliver
    for each in [*leases._held]:
        leases.settle(each)


def now() -> float:
    seconds, microseconds = connections().queue.time()
    return seconds + microseconds / 1e6


def score(message: Any) -> Any:
    """The time of the lease's last renewal, as a Unix time of Redis, or None without a lease."""
    renewed_at: Any = connections().queue.zscore(INDEX, message.delivery_tag)
    return renewed_at


def waiting(queue: str) -> list[str]:
    """The numbers of the waiting messages, the next one last."""
    queued: Any = connections().queue.lrange(queue, 0, -1)
    return [kombu.utils.json.loads(text)["headers"]["id"].rpartition(".")[2] for text in queued]


def backdate(message: Any, seconds: float) -> None:
    connections().queue.zadd(INDEX, {message.delivery_tag: now() - seconds})


def sweep(connection: Connection) -> None:
    qos = connection.channel().qos
    qos._first_sweep = 0.0
    qos.restore_visible()


@contextmanager
def full_redis() -> Iterator[None]:
    """Puts Redis over its memory limit, so that it refuses every write that takes room, and every transaction."""
    connections().queue.config_set("maxmemory", 1)
    try:
        yield
    finally:
        connections().queue.config_set("maxmemory", 0)


def test_the_kombu_internals_that_we_use_still_exist(connection: Connection) -> None:
    assert kombu.__version__ == KOMBU_VERSION, "read the new version's redis.py against broker.py, then change this"
    instances: dict[type, Any] = {virtual.QoS: virtual.QoS(connection.default_channel)}
    for owner, names in PRIVATE_IN_KOMBU.items():
        for name in names:
            assert hasattr(instances.get(owner, owner), name), f"{owner.__name__}.{name}"
    assert (Channel.unacked_index_key, Channel.unacked_key) == (INDEX, UNACKED)


def test_redis_urls_use_our_transport(connection: Connection) -> None:
    assert isinstance(connection.default_channel, broker.Channel)
    assert isinstance(connection.default_channel.qos, broker.QoS)


def test_leases_follow_the_clock_of_redis(take: Any) -> None:
    (message,) = take()
    assert 0 <= now() - score(message) < 5
    backdate(message, 100)
    leases.renew()
    assert 0 <= now() - score(message) < 5


def test_a_redelivered_message_has_a_new_lease(take: Any, connection: Connection, queue: str) -> None:
    (first,) = take()
    backdate(first, 100)
    sweep(connection)
    assert waiting(queue) == ["0"]
    (again,) = take_from(connection, queue)
    assert again.delivery_tag != first.delivery_tag
    # The first worker wakes up and acknowledges its delivery. The second one keeps its own.
    first.ack()
    assert score(again) is not None
    assert connections().queue.hexists(UNACKED, again.delivery_tag)
    again.ack()


def take_from(connection: Connection, queue: str) -> list[Any]:
    delivered: list[Any] = []
    with Consumer(connection.channel(), [Queue(queue)], on_message=delivered.append, accept=["json"]):
        connection.drain_events(timeout=5)
    return delivered


def test_a_sweep_leaves_renewed_leases_alone(take: Any, connection: Connection, queue: str) -> None:
    (message,) = take()
    sweep(connection)
    assert waiting(queue) == []
    assert score(message) is not None


def test_a_message_that_celery_has_dropped_is_not_renewed(take: Any, connection: Connection, queue: str) -> None:
    (message,) = take()
    tag = message.delivery_tag
    backdate(message, 100)
    del message
    gc.collect()
    leases.renew()
    lease: Any = connections().queue.zscore(INDEX, tag)
    # There is no lease, because another worker on the same Redis also sweeps and has already returned the message.
    assert lease is None or now() - lease > 90
    sweep(connection)
    assert waiting(queue) == ["0"]


def test_a_rejected_message_goes_last_and_a_lost_one_first(take: Any, connection: Connection, queue: str) -> None:
    rejected, lost = take(2)
    Producer(connection.channel()).publish({}, routing_key=queue, headers={"id": f"{queue}.2"})
    rejected.reject(requeue=True)
    backdate(lost, 100)
    leases.drop([lost.delivery_tag])
    sweep(connection)
    assert waiting(queue) == ["0", "2", "1"]
    connections().queue.delete(queue)


def test_a_lost_connection_returns_no_messages(take: Any, connection: Connection, queue: str) -> None:
    (message,) = take()
    message.channel.close()
    message.channel.close()  # as Celery does after an error
    assert waiting(queue) == []
    assert score(message) is not None
    message.ack()
    assert score(message) is None


def test_a_full_redis_accepts_an_acknowledgement(take: Any) -> None:
    (message,) = take()
    with full_redis():
        message.ack()
    assert score(message) is None
    assert not connections().queue.hexists(UNACKED, message.delivery_tag)


def test_a_delivery_that_a_full_redis_refuses_is_recorded_later(connection: Connection, queue: str, take: Any) -> None:
    delivered: list[Any] = []
    with Consumer(connection.channel(), [Queue(queue)], on_message=delivered.append, accept=["json"]):
        Producer(connection.channel()).publish({}, routing_key=queue, headers={"id": f"{queue}.0"})
        with full_redis():
            connection.drain_events(timeout=5)
    (message,) = delivered
    assert score(message) is None
    leases.renew()
    assert score(message) is not None
    message.ack()
    assert score(message) is None


def test_an_acknowledgement_that_a_frozen_redis_missed_is_repeated(take: Any, redis_server: Server) -> None:
    (message,) = take()
    with paused(redis_server):
        message.ack()
    leases.renew()
    assert score(message) is None
    assert message.delivery_tag not in leases._held


def test_a_message_that_cannot_be_returned_comes_back_when_its_lease_runs_out(
    take: Any, connection: Connection, queue: str
) -> None:
    (message,) = take()
    with full_redis():
        message.reject(requeue=True)
    assert waiting(queue) == []
    backdate(message, 100)
    sweep(connection)
    assert waiting(queue) == ["0"]
    connections().queue.delete(queue)

"""The broker connection: leases by Redis's clock, acknowledgements that never fail, and what is used of kombu."""

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
    with app.connection_for_read() as made:
        yield made


@pytest.fixture
def taken(connection: Connection, queue: str) -> Iterator[Any]:
    """Publishes so many messages; returns them as they were delivered."""

    def take(count: int = 1) -> list[Any]:
        channel = connection.channel()
        for number in range(count):
            Producer(channel).publish({"number": number}, routing_key=queue, headers={"id": f"{queue}.{number}"})
        found: list[Any] = []
        consumer = Consumer(channel, [Queue(queue)], on_message=found.append, accept=["json"])
        consumer.consume()
        while len(found) < count:
            connection.drain_events(timeout=5)
        consumer.cancel()
        consumer.on_message = None
        return found

    yield take
    for each in [*leases._held]:
        leases.settle(each)


def now() -> float:
    seconds, microseconds = connections().queue.time()
    return seconds + microseconds / 1e6


def score(message: Any) -> Any:
    """When the lease of a delivery was renewed, as a Unix time of Redis; None where it has none."""
    found: Any = connections().queue.zscore(INDEX, message.delivery_tag)
    return found


def waiting(queue: str) -> list[str]:
    """The ids that wait, the next one last."""
    found: Any = connections().queue.lrange(queue, 0, -1)
    return [kombu.utils.json.loads(text)["headers"]["id"].rpartition(".")[2] for text in found]


def backdate(message: Any, seconds: float) -> None:
    connections().queue.zadd(INDEX, {message.delivery_tag: now() - seconds})


def sweep(connection: Connection) -> None:
    qos = connection.channel().qos
    qos._first_sweep = 0.0
    qos.restore_visible()


@contextmanager
def full() -> Iterator[None]:
    """Redis is over its memory limit: it refuses whatever takes room, and every transaction."""
    connections().queue.config_set("maxmemory", 1)
    try:
        yield
    finally:
        connections().queue.config_set("maxmemory", 0)


def test_what_is_used_of_kombu_is_still_there(connection: Connection) -> None:
    assert kombu.__version__ == KOMBU_VERSION, "read the new version's redis.py against broker.py, then change this"
    made: dict[type, Any] = {virtual.QoS: virtual.QoS(connection.default_channel)}
    for owner, names in PRIVATE_IN_KOMBU.items():
        for name in names:
            assert hasattr(made.get(owner, owner), name), f"{owner.__name__}.{name}"
    assert (Channel.unacked_index_key, Channel.unacked_key) == (INDEX, UNACKED)


def test_our_transport_takes_the_urls_of_redis(connection: Connection) -> None:
    assert isinstance(connection.default_channel, broker.Channel)
    assert isinstance(connection.default_channel.qos, broker.QoS)


def test_a_lease_counts_by_the_clock_of_redis(taken: Any) -> None:
    (message,) = taken()
    assert 0 <= now() - score(message) < 5
    backdate(message, 100)
    leases.renew()
    assert 0 <= now() - score(message) < 5


def test_a_message_that_is_delivered_again_has_another_lease(taken: Any, connection: Connection, queue: str) -> None:
    (first,) = taken()
    backdate(first, 100)
    sweep(connection)
    assert waiting(queue) == ["0"]
    (again,) = taken_from(connection, queue)
    assert again.delivery_tag != first.delivery_tag
    # The first worker wakes up, and says that it is done: the second one keeps what it has.
    first.ack()
    assert score(again) is not None
    assert connections().queue.hexists(UNACKED, again.delivery_tag)
    again.ack()


def taken_from(connection: Connection, queue: str) -> list[Any]:
    found: list[Any] = []
    with Consumer(connection.channel(), [Queue(queue)], on_message=found.append, accept=["json"]):
        connection.drain_events(timeout=5)
    return found


def test_a_lease_that_was_renewed_meanwhile_is_not_given_back(taken: Any, connection: Connection, queue: str) -> None:
    (message,) = taken()
    sweep(connection)
    assert waiting(queue) == []
    assert score(message) is not None


def test_what_celery_has_no_longer_in_hand_is_not_renewed(taken: Any, connection: Connection, queue: str) -> None:
    (message,) = taken()
    tag = message.delivery_tag
    backdate(message, 100)
    del message
    gc.collect()
    leases.renew()
    lease: Any = connections().queue.zscore(INDEX, tag)
    # Without one a worker on the same Redis, which sweeps as well, has given the message back already.
    assert lease is None or now() - lease > 90
    sweep(connection)
    assert waiting(queue) == ["0"]


def test_a_rejected_message_is_the_last_one_and_a_lost_one_the_first(
    taken: Any, connection: Connection, queue: str
) -> None:
    rejected, lost = taken(2)
    Producer(connection.channel()).publish({}, routing_key=queue, headers={"id": f"{queue}.2"})
    rejected.reject(requeue=True)
    backdate(lost, 100)
    leases.drop([lost.delivery_tag])
    sweep(connection)
    assert waiting(queue) == ["0", "2", "1"]
    connections().queue.delete(queue)


def test_a_lost_connection_gives_nothing_back(taken: Any, connection: Connection, queue: str) -> None:
    (message,) = taken()
    message.channel.close()
    message.channel.close()  # as Celery does after an error
    assert waiting(queue) == []
    assert score(message) is not None
    message.ack()
    assert score(message) is None


def test_a_full_redis_takes_an_acknowledgement(taken: Any) -> None:
    (message,) = taken()
    with full():
        message.ack()
    assert score(message) is None
    assert not connections().queue.hexists(UNACKED, message.delivery_tag)


def test_a_delivery_that_a_full_redis_does_not_record_is_recorded_later(
    connection: Connection, queue: str, taken: Any
) -> None:
    found: list[Any] = []
    with Consumer(connection.channel(), [Queue(queue)], on_message=found.append, accept=["json"]):
        Producer(connection.channel()).publish({}, routing_key=queue, headers={"id": f"{queue}.0"})
        with full():
            connection.drain_events(timeout=5)
    (message,) = found
    assert score(message) is None
    leases.renew()
    assert score(message) is not None
    message.ack()
    assert score(message) is None


def test_an_acknowledgement_that_a_frozen_redis_did_not_take_is_caught_up(taken: Any, redis_server: Server) -> None:
    (message,) = taken()
    with paused(redis_server):
        message.ack()
    leases.renew()
    assert score(message) is None
    assert message.delivery_tag not in leases._held


def test_messages_that_can_not_be_given_back_now_stay_leased(taken: Any, connection: Connection, queue: str) -> None:
    (message,) = taken()
    with full():
        message.reject(requeue=True)
    assert waiting(queue) == []
    backdate(message, 100)
    sweep(connection)
    assert waiting(queue) == ["0"]
    connections().queue.delete(queue)

"""How many tasks all workers can run at once, as they say themselves in Redis: what a large join is cut for."""

from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections

#: Seconds between two announcements of a worker, and until one that is silent no longer counts.
ANNOUNCE_SECONDS, SILENT_SECONDS = 10, 35

_KEY = "worker_slots"

_ANNOUNCE = lua_scripts.load("capacity/announce")

logger = get_logger(__name__)


def announce(hostname: str, slots: int) -> None:
    """Says how many tasks a worker runs at once.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.eval(_ANNOUNCE, 1, _KEY, hostname, slots, SILENT_SECONDS)


def withdraw(hostname: str) -> None:
    """Says that a worker stops.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.hdel(_KEY, hostname)


def slots() -> int:
    """The tasks that can run at once, on all workers that were heard of lately.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with connections().results.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hvals(_KEY)
        (now, _), found = pipe.execute()
    announced = [value.decode().split() for value in found]
    return sum(int(count) for count, until in announced if int(until) > now)


class Announcer(bootsteps.StartStopStep):
    """A step of the consumer that announces what its worker can run."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any):
        self._timer: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        self._announce(consumer)
        self._timer = consumer.timer.call_repeatedly(ANNOUNCE_SECONDS, self._announce, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            try:
                withdraw(consumer.hostname)
            except RedisError as error:
                logger.warning("capacity not withdrawn: %s", error)

    shutdown = stop

    def _announce(self, consumer: Any) -> None:
        try:
            announce(consumer.hostname, consumer.controller.concurrency)
        except RedisError as error:
            logger.warning("capacity not announced: %s", error)

"""The number of tasks that all workers can run at once. Each worker announces its number of slots in Redis.

If there is only one slot, joins are not divided into parts.
"""

from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections

#: Seconds between two announcements of a worker, and seconds for which an announcement is valid.
ANNOUNCE_SECONDS, VALID_SECONDS = 10, 35

_KEY = "worker_slots"

_ANNOUNCE = lua_scripts.load("capacity/announce")

logger = get_logger(__name__)


def announce(hostname: str, slots: int) -> None:
    """Announces the number of tasks that a worker runs at once.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.eval(_ANNOUNCE, 1, _KEY, hostname, slots, VALID_SECONDS)


def withdraw(hostname: str) -> None:
    """Removes the announcement of a worker that is stopping.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.hdel(_KEY, hostname)


def slots() -> int:
    """The number of tasks that all workers together can run at once. Ignores outdated announcements.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with connections().results.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hvals(_KEY)
        (now, _), values = pipe.execute()
    announcements = [value.decode().split() for value in values]
    return sum(int(count) for count, valid_until in announcements if int(valid_until) > now)


class Announcer(bootsteps.StartStopStep):
    """A consumer step that announces the capacity of its worker."""

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

"""What changes while a task lives, in Redis: the version that polls compare, and its progress.

MongoDB is the truth about a task. These keys only spare it: a poll that finds its own tag here needs no
query. They live briefly, so that an announcement lost in a Redis outage is made good by the next poll.
"""

import logging
from dataclasses import dataclass

from kombu.utils.encoding import bytes_to_str

from worker_tasks.connections import connections
from worker_tasks.errors import REDIS_FAILURES

#: Seconds a version is trusted without being announced again.
LIVE_SECONDS = 15

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a running task is: ``done`` of ``total``, in ``unit`` (a plural noun)."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Live:
    """``tag`` changes whenever what can be seen of the task changes."""

    tag: str
    progress: Progress | None


def _key(task_id: str) -> str:
    return f"task_live:{task_id}"


def announce(task_id: str, version: int) -> None:
    """Tells polls that the task document has this version now. A missing Redis is logged, never raised."""
    try:
        with connections().hints.pipeline() as pipe:
            pipe.hset(_key(task_id), "version", str(version))
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except REDIS_FAILURES as error:
        logger.warning("version of task %s not announced: %s", task_id, error)


def report(task_id: str, progress: Progress) -> None:
    """Tells polls how far the task is. A missing Redis is logged, never raised."""
    try:
        with connections().hints.pipeline() as pipe:
            pipe.hset(
                _key(task_id),
                mapping={"done": str(progress.done), "total": str(progress.total), "unit": progress.unit},
            )
            pipe.hincrby(_key(task_id), "reports", 1)
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except REDIS_FAILURES as error:
        logger.warning("progress of task %s not reported: %s", task_id, error)


def read(task_id: str) -> Live | None:
    """What is known of the task without asking MongoDB; None where nothing is trusted any more.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    fields = connections().results.hgetall(_key(task_id))
    if b"version" not in fields:
        return None
    text = {bytes_to_str(name): bytes_to_str(value) for name, value in fields.items()}
    progress = None
    if "done" in text:
        progress = Progress(int(text["done"]), int(text["total"]), text["unit"])
    return Live(f"{text['version']}.{text.get('reports', '0')}", progress)


def announce_if_unknown(task_id: str, version: int) -> None:
    """Puts back a version that has run out; a newer one that is already there stays.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with connections().results.pipeline() as pipe:
        pipe.hsetnx(_key(task_id), "version", str(version))
        pipe.expire(_key(task_id), LIVE_SECONDS)
        pipe.execute()

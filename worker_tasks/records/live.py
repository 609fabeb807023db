"""What changes while a task lives, in Redis: the revision that polls compare, and its progress.

MongoDB is the truth about a task. These keys only spare it: a poll that finds its own tag here needs no
query. They live briefly, so that an announcement lost in a Redis outage is made good by the next poll.
"""

import logging
from dataclasses import dataclass

from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from worker_tasks.infra.connections import connections

#: Seconds a revision is trusted without being announced again.
LIVE_SECONDS = 15

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a running task is: ``done`` of ``total`` (None: not known before), in ``unit`` (a plural noun).

    ``size`` is what was written so far, in bytes; ``rate`` is how many are done in a second.
    """

    done: int
    total: int | None
    unit: str
    size: int | None = None
    rate: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """None where nothing tells."""
        return None if self.total is None or not self.rate else max(0, self.total - self.done) / self.rate


@dataclass(frozen=True)
class Live:
    """``tag`` changes whenever what can be seen of the task does; ``follows`` is the task whose run it shares."""

    tag: str
    progress: Progress | None
    follows: str | None = None


def _key(task_id: str) -> str:
    return f"task_live:{task_id}"


def announce(task_id: str, revision: str) -> None:
    """Tells polls that the task document has this revision now. What Redis has against it is logged, never raised."""
    try:
        with connections().hints.pipeline(transaction=False) as pipe:
            pipe.hset(_key(task_id), "revision", revision)
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except RedisError as error:
        logger.warning("revision of task %s not announced: %s", task_id, error)


def report(task_id: str, progress: Progress) -> None:
    """Tells polls how far the task is. What Redis has against it is logged, never raised."""
    total = progress.total
    try:
        with connections().hints.pipeline(transaction=False) as pipe:
            pipe.hset(
                _key(task_id),
                mapping={
                    "done": progress.done,
                    "total": "" if total is None else total,
                    "unit": progress.unit,
                    "size": "" if progress.size is None else progress.size,
                    "rate": "" if progress.rate is None else progress.rate,
                },
            )
            pipe.hincrby(_key(task_id), "reports", 1)
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except RedisError as error:
        logger.warning("progress of task %s not reported: %s", task_id, error)


def remember(key: str, text: str, seconds: int) -> None:
    """Keeps what can be found out again. What Redis has against it is logged, never raised."""
    try:
        connections().hints.set(key, text, ex=seconds)
    except RedisError as error:
        logger.warning("%s not remembered: %s", key.partition(":")[0], error)


def read_live(task_id: str) -> Live | None:
    """What is known of the task without asking MongoDB; None where nothing is trusted any more.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    own = _fields(task_id)
    if "revision" not in own:
        return None
    follows = own.get("follows")
    # Whoever shares a run sees how far that is.
    running = own if follows is None else _fields(follows)
    progress = None
    if "done" in running:
        progress = Progress(
            done=int(running["done"]),
            total=int(running["total"]) if running["total"] else None,
            unit=running["unit"],
            size=int(running["size"]) if running.get("size") else None,
            rate=float(running["rate"]) if running.get("rate") else None,
        )
    return Live(f"{own['revision']}.{running.get('reports', '0')}", progress, follows)


def _fields(task_id: str) -> dict[str, str]:
    found = connections().results.hgetall(_key(task_id))
    return {bytes_to_str(name): bytes_to_str(value) for name, value in found.items()}


def announce_if_unknown(task_id: str, revision: str, follows: str | None = None) -> None:
    """Puts back a revision that has run out; a newer one that is already there stays.

    What Redis has against it is logged, never raised.

    Args:
        follows: the task whose run this one shares.
    """
    try:
        with connections().hints.pipeline(transaction=False) as pipe:
            pipe.hsetnx(_key(task_id), "revision", revision)
            if follows is not None:
                pipe.hset(_key(task_id), "follows", follows)
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except RedisError as error:
        logger.warning("revision of task %s not announced again: %s", task_id, error)

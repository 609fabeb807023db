"""The live state of tasks in Redis: the revisions of their documents, and their progress.

MongoDB is the source of truth, and these keys only save queries. A poll reads the document only if the live state has
changed or expired. The keys expire quickly, so that polls soon notice a change that Redis missed during an outage.
"""

import logging
from dataclasses import dataclass

from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from worker_tasks.infra.connections import connections

#: Seconds until the keys of a task expire, counted from the last announcement or report.
LIVE_SECONDS = 15

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The progress of a running task.

    Attributes:
        done: the number of units done so far.
        total: the total number of units; None if unknown.
        unit: a plural noun, such as "rows".
        size: the number of bytes written so far.
        rate: the number of units per second.
    """

    done: int
    total: int | None
    unit: str
    size: int | None = None
    rate: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """The estimated time left; None if total or rate is unknown."""
        return None if self.total is None or not self.rate else max(0, self.total - self.done) / self.rate


@dataclass(frozen=True)
class Live:
    """The live state of a task.

    Attributes:
        tag: a token that changes with every visible change of the task.
        progress: the progress of the task's run; None if it has not reported any.
        follows: the task that leads the run, if that is another task.
    """

    tag: str
    progress: Progress | None
    follows: str | None = None


def _key(task_id: str) -> str:
    return f"task_live:{task_id}"


def announce(task_id: str, revision: str) -> None:
    """Publishes the current revision of a task document to polls. Logs Redis errors instead of raising them."""
    try:
        with connections().hints.pipeline(transaction=False) as pipe:
            pipe.hset(_key(task_id), "revision", revision)
            pipe.expire(_key(task_id), LIVE_SECONDS)
            pipe.execute()
    except RedisError as error:
        logger.warning("revision of task %s not announced: %s", task_id, error)


def report(task_id: str, progress: Progress) -> None:
    """Publishes the progress of a task to polls. Logs Redis errors instead of raising them."""
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
    """Caches text that can be recomputed. Logs Redis errors instead of raising them."""
    try:
        connections().hints.set(key, text, ex=seconds)
    except RedisError as error:
        logger.warning("%s not remembered: %s", key.partition(":")[0], error)


def read_live(task_id: str) -> Live | None:
    """The live state of a task; None if it has expired and the caller must read the document.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    own = _fields(task_id)
    if "revision" not in own:
        return None
    follows = own.get("follows")
    # A follower shows the progress of its leader.
    leader = own if follows is None else _fields(follows)
    progress = None
    if "done" in leader:
        progress = Progress(
            done=int(leader["done"]),
            total=int(leader["total"]) if leader["total"] else None,
            unit=leader["unit"],
            size=int(leader["size"]) if leader.get("size") else None,
            rate=float(leader["rate"]) if leader.get("rate") else None,
        )
    return Live(f"{own['revision']}.{leader.get('reports', '0')}", progress, follows)


def _fields(task_id: str) -> dict[str, str]:
    fields = connections().results.hgetall(_key(task_id))
    return {bytes_to_str(name): bytes_to_str(value) for name, value in fields.items()}


def announce_if_unknown(task_id: str, revision: str, follows: str | None = None) -> None:
    """Publishes a revision again after it has expired, unless a newer one is already there.

    Logs Redis errors instead of raising them.

    Args:
        follows: the leader of the run that this task shares.
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

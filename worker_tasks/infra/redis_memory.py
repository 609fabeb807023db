"""Checks that Redis has room for task messages and for results.

Results use most of the memory. They leave a reserve for the messages, progress and outcomes of tasks.
"""

import logging
import time
from functools import cache
from typing import Any

from redis.exceptions import NoPermissionError, OutOfMemoryError

from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import StorageFull

#: Results leave a reserve of this many bytes or this share of the memory limit, whichever is more. The reserve never
#: exceeds the share ``MAX_SHARE``.
RESERVE, RESERVE_SHARE, MAX_SHARE = 16 * 1024 * 1024, 0.05, 0.25
#: The queue's Redis must have this many bytes free before a task is recorded.
QUEUE_ROOM = 1024 * 1024
QUEUE_FULL = "Redis has no room for another task. Try again when results have expired."
#: Seconds for which a reading of the memory may be reused.
FRESH_SECONDS = 0.25

#: A key that never exists.
_NOTHING = "nothing"

logger = logging.getLogger(__name__)
#: The time of the last reading, and the number of bytes that were left.
_last_reading: tuple[float, int | None] | None = None


def require_queue() -> None:
    """Checks that the queue's Redis has room for a message, using a write that changes nothing.

    Raises:
        StorageFull: Redis is at its limit.
        redis.exceptions.RedisError: Redis does not answer, or refuses.
    """
    try:
        with connections().queue.pipeline(transaction=False) as pipe:
            pipe.info("memory")
            pipe.setrange(_NOTHING, 0, b"")
            memory, _ = pipe.execute()
    except OutOfMemoryError as error:
        raise StorageFull(QUEUE_FULL) from error
    free = _free(memory)
    if free is not None and free < QUEUE_ROOM:
        raise StorageFull(QUEUE_FULL)


def describe_shortage() -> str | None:
    """The message to show if Redis has no room for tasks or for results; None if it has room for both.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or refuses.
    """
    try:
        require_queue()
        require_room()
    except StorageFull as error:
        return str(error)
    return None


def require_room(needed_bytes: int = 0) -> None:
    """Checks that Redis has room for another ``needed_bytes`` of results.

    Raises:
        StorageFull: the results would use part of the reserve.
        redis.exceptions.RedisError: Redis does not answer.
    """
    # Read again before refusing, because the first reading may be cached.
    if _is_short(room_left(), needed_bytes) and _is_short(room_left(fresh=True), needed_bytes):
        raise StorageFull


def _is_short(left: int | None, needed_bytes: int) -> bool:
    return left is not None and left < needed_bytes


def room_left(*, fresh: bool = False) -> int | None:
    """The number of bytes left for results: negative if the reserve is in use, None if Redis has no limit.

    Args:
        fresh: whether to read the memory now. By default, a reading may be up to ``FRESH_SECONDS`` old.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    global _last_reading  # noqa: PLW0603 - a cache of one value
    now = time.monotonic()
    if fresh or _last_reading is None or now - _last_reading[0] > FRESH_SECONDS:
        _last_reading = now, _read_room_left()
    return _last_reading[1]


def _read_room_left() -> int | None:
    try:
        memory = connections().results.info("memory")
    except NoPermissionError as error:
        _warn_once(f"Redis does not report its memory use, so results leave no reserve for the queue: {error}")
        return None
    free = _free(memory)
    return None if free is None else free - reserve(int(memory["maxmemory"]))


@cache
def _warn_once(warning: str) -> None:
    logger.warning(warning)


def reserve(limit: int) -> int:
    """The number of bytes that results leave free, for a Redis with this memory limit in bytes."""
    return int(min(max(RESERVE, limit * RESERVE_SHARE), limit * MAX_SHARE))


def _free(memory: dict[str, Any]) -> int | None:
    limit = int(memory.get("maxmemory", 0))
    # Redis does not count its disk and replica buffers towards the limit.
    used = int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))
    return limit - used if limit else None

"""Whether Redis has room: for a message, asked before its task is recorded; for results, which leave some to the queue.

Results take most of the memory. They stop short of the limit, so that what keeps tasks going always fits: their
messages, their progress, their ends.
"""

import logging
import time
from functools import cache
from typing import Any

from redis.exceptions import NoPermissionError, OutOfMemoryError

from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import StorageFull

#: Bytes of Redis that results leave free, and the same as a share of the limit: whichever is more. Of a very small
#: Redis they leave a part of its own.
RESERVE, RESERVE_SHARE, SMALL_SHARE = 16 * 1024 * 1024, 0.05, 0.25
#: Bytes that the queue must have free before a task is recorded.
QUEUE_ROOM = 1024 * 1024
QUEUE_FULL = "Redis has no room for another task. Try again when results have expired."
#: Seconds that an answer of Redis is taken as still true.
FRESH_SECONDS = 0.25

#: Never there.
_NOTHING = "nothing"

logger = logging.getLogger(__name__)
_known: tuple[float, int | None] | None = None


def require_queue() -> None:
    """Asks the queue's Redis whether it takes a message just now, by a write that changes nothing.

    Raises:
        StorageFull: it is at its limit.
        redis.exceptions.RedisError: it does not answer, or refuses; nothing was sent that it could carry out later.
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
    """What there is no room for just now, as a sentence.

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
    """Asks whether results may take so many bytes more.

    Raises:
        StorageFull: they may not.
        redis.exceptions.RedisError: Redis does not answer.
    """
    # No is never said from memory.
    if _is_short(room_left(), needed_bytes) and _is_short(room_left(fresh=True), needed_bytes):
        raise StorageFull


def _is_short(left: int | None, needed_bytes: int) -> bool:
    return left is not None and left < needed_bytes


def room_left(*, fresh: bool = False) -> int | None:
    """Bytes that results may still take; below 0 in the reserve; None where Redis has no limit.

    Args:
        fresh: asks Redis now; otherwise this may be as it was a moment ago.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    global _known  # noqa: PLW0603 - the one thing that is remembered
    now = time.monotonic()
    if fresh or _known is None or now - _known[0] > FRESH_SECONDS:
        _known = now, _room_left()
    return _known[1]


def _room_left() -> int | None:
    try:
        memory = connections().results.info("memory")
    except NoPermissionError as error:
        _say_once(f"Redis does not tell how full it is, so results leave nothing to the queue: {error}")
        return None
    free = _free(memory)
    return None if free is None else free - reserve(int(memory["maxmemory"]))


@cache
def _say_once(warning: str) -> None:
    logger.warning(warning)


def reserve(limit: int) -> int:
    """The bytes that results leave free of a Redis with this limit."""
    return int(min(max(RESERVE, limit * RESERVE_SHARE), limit * SMALL_SHARE))


def _free(memory: dict[str, Any]) -> int | None:
    limit = int(memory.get("maxmemory", 0))
    # What waits to be written to the disk or sent to replicas does not count for Redis.
    used = int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))
    return limit - used if limit else None

"""Parts of a result put together and shown to readers in one step, after a check of every byte."""

import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from kombu.utils.encoding import ensure_bytes
from redis.exceptions import ResponseError

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.infra.redis_memory import require_room
from worker_tasks.results import result_store
from worker_tasks.results.result_store import OFFSET, SEPARATOR, UNMATCHED_ROWS, Summary, Unmatched
from worker_tasks.results.result_writer import CHUNK_BYTES, STAGING_SECONDS, Part, StagingLost, new_writer, part_key

_COPY = lua_scripts.load("publishing/copy")
_PUBLISH = lua_scripts.load("publishing/publish")
#: What the names of the keys begin with that are beside a result.
_PREFIXES = {
    "index": result_store.index_key(""),
    "summary": result_store.summary_key(""),
    "derived": result_store.artifacts_key(""),
    "older": result_store.older_key(""),
}


def publish(  # noqa: PLR0913 - what is where, and what becomes of it
    run: str,
    parts: Sequence[Part],
    key: str,
    task_id: str,
    ttl_seconds: int,
    *,
    complete: bool = True,
    writer: str | None = None,
) -> Summary:
    """Checks the parts, puts them together, and shows them under the public key with everything beside it.

    Readers see nothing of it before the last step, which is one script. The copying before it is done in small calls,
    between which Redis answers others.

    Args:
        writer: the name under which the parts are put together, where there are several.

    Raises:
        StagingLost: a part is gone, or is not what its writer wrote.
        StorageFull: there is no room for putting them together.
        redis.exceptions.RedisError: not known to be published.
    """
    try:
        return _published(run, parts, key, task_id, ttl_seconds, complete=complete, writer=writer or new_writer())
    except StagingLost:
        # It may be under the public key by now: the answer was lost, or its publisher died before the rest.
        there = result_store.find_result(key)
        if there is not None and there.run == run:
            return there
        raise


def _published(  # noqa: PLR0913 - as its caller
    run: str, parts: Sequence[Part], key: str, task_id: str, ttl_seconds: int, *, complete: bool, writer: str
) -> Summary:
    store = connections().results
    size, index, places = _laid_out(parts)
    keys = [part_key(run, number, part.writer) for number, part in enumerate(parts)]
    if len(parts) == 1:
        whole = keys[0]
        seconds, microseconds = _check(whole, parts[0])
    else:
        whole = part_key(run, "whole", writer)
        _put_together(whole, keys, parts, places, size)
        seconds, microseconds = store.time()
    published_at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds // 1000 * 1000)
    summary = Summary(
        key=key,
        task_id=task_id,
        run=run,
        count=sum(part.rows for part in parts),
        bytes=size + len(b"]"),
        columns=list(dict.fromkeys(column for part in parts for column in part.columns)),
        segments=[part.rows for part in parts],
        complete=complete,
        published_at=published_at,
        expires_at=published_at + timedelta(seconds=ttl_seconds),
        unmatched=_unmatched(parts),
    )
    # Lets a task whose outcome could not be stored in MongoDB find it again.
    outcome = json.dumps(summary.outcome) if complete else ""
    names = [key, result_store.index_key(key), result_store.summary_key(key), result_store.outcome_key(task_id), whole]
    given = {
        "seconds": ttl_seconds,
        "summary": summary.to_json(),
        "outcome": outcome,
        "run": summary.mark_of_run,
        "key": json.dumps(key),
        "size": size,
        "staged": keys,
        "prefixes": _PREFIXES,
    }
    try:
        published: Any = store.eval(_PUBLISH, len(names), *names, index, json.dumps(given))
    except ResponseError as error:
        if "STAGING" in str(error):
            raise StagingLost(whole) from error
        raise
    return result_store.summary_from_json(published)


def _check(key: str, part: Part) -> tuple[int, int]:
    """Reads a part again.

    Returns:
        The time by Redis's clock, in seconds and microseconds. Most results are read in one call, together with it.

    Raises:
        StagingLost: it is not what its writer wrote.
    """
    reading = _Reading(key, part)
    time = (0, 0)
    for first in range(0, max(part.size, 1), CHUNK_BYTES):
        with connections().results.pipeline(transaction=False) as pipe:
            pipe.getrange(key, first, first + CHUNK_BYTES - 1)
            pipe.time()
            piece, time = pipe.execute()
        reading.add(ensure_bytes(piece))
    reading.require_whole()
    return time


def _put_together(
    whole: str, keys: Sequence[str], parts: Sequence[Part], places: Sequence["_Place"], size: int
) -> None:
    """Copies the parts behind each other into a key of its own, each piece checked as it is copied.

    Raises:
        StagingLost: a part is not what its writer wrote.
        StorageFull: there is no room for it.
    """
    require_room(size)
    store = connections().results
    store.set(whole, b"[", ex=STAGING_SECONDS)
    for key, part, place in zip(keys, parts, places, strict=True):
        reading = _Reading(key, part)
        for first in range(0, part.size, CHUNK_BYTES):
            last = min(first + CHUNK_BYTES, part.size) - 1
            start = max(first, place.skip)
            with store.pipeline(transaction=False) as pipe:
                pipe.getrange(key, first, last)
                pipe.eval(_COPY, 2, key, whole, start, last, place.offset + start - place.skip, STAGING_SECONDS)
                piece, copied = pipe.execute()
            reading.add(piece)
            if not copied:
                raise StagingLost(whole)
        reading.require_whole()


class _Reading:
    """A part that is read again, piece by piece, and compared with what its writer says of it."""

    def __init__(self, key: str, part: Part):
        self._key, self._part = key, part
        self._size = self._checksum = self._line_breaks = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._checksum = zlib.crc32(piece, self._checksum)
        self._line_breaks += piece.count(b"\n")

    def require_whole(self) -> None:
        # Every row but the first of all stands behind a separator, which has the only line breaks.
        rows = self._line_breaks + (1 if self._part.starts_the_array and self._part.rows else 0)
        if (self._size, self._checksum, rows) != (self._part.size, self._part.checksum, self._part.rows):
            raise StagingLost(self._key)


def _unmatched(parts: Sequence[Part]) -> dict[str, Unmatched]:
    """What each part noted, its rows counted on from those of the parts before it."""
    noted: dict[str, Unmatched] = {}
    before = 0
    for part in parts:
        for name, unmatched in part.unmatched.items():
            whole = noted.setdefault(name, Unmatched())
            whole.count += unmatched.count
            # An older version also noted rows that a limit kept from being written.
            there = [before + row for row in unmatched.rows if row < part.rows]
            whole.rows += there[: UNMATCHED_ROWS - len(whole.rows)]
        before += part.rows
    return noted


class _Place(NamedTuple):
    """Where a part goes: its offset in the whole, and how many of its bytes are left out before."""

    offset: int
    skip: int


def _laid_out(parts: Sequence[Part]) -> tuple[int, bytes, list[_Place]]:
    """The size of all but the closing bracket, the row index, and where each part goes."""
    size, index, places = len(b"["), bytearray(), []
    rows = 0
    for part in parts:
        skip = 0
        if part.starts_the_array:
            skip = len(b"[")
        elif part.rows and not rows:
            skip = len(SEPARATOR)
        for offset in part.offsets:
            index += OFFSET.pack(size + offset - skip)
        places.append(_Place(size, skip))
        size += max(part.size - skip, 0)
        rows += part.rows
    return size, bytes(index), places

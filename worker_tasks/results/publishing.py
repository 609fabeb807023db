"""Verifies the parts of a result, joins them, and publishes the result in one atomic step."""

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
from worker_tasks.results import result_store, summaries
from worker_tasks.results.result_store import OFFSET, SEPARATOR
from worker_tasks.results.result_writer import CHUNK_BYTES, STAGING_SECONDS, Part, StagingLost, new_writer, part_key
from worker_tasks.results.summaries import UNMATCHED_ROWS, Summary, Unmatched

_COPY = lua_scripts.load("publishing/copy")
_PUBLISH = lua_scripts.load("publishing/publish")
#: The prefixes of the other keys that belong to a result.
_PREFIXES = {
    "index": summaries.index_key(""),
    "summary": summaries.summary_key(""),
    "derived": summaries.artifacts_key(""),
    "older": summaries.older_key(""),
}


def publish(  # noqa: PLR0913 - the run, its parts, the result
    run: str,
    parts: Sequence[Part],
    key: str,
    task_id: str,
    ttl_seconds: int,
    *,
    complete: bool = True,
    writer: str | None = None,
) -> Summary:
    """Verifies and joins the parts, and publishes the result with its index and summary.

    The last step is a single script, and readers do not see the result before it. Copies the parts in small calls, so
    that Redis can serve other clients in between.

    Args:
        key: the public key of the result.
        complete: False for a partial result.
        writer: the name of the writer that joins the parts, if there are several.

    Raises:
        StagingLost: a part is gone or damaged.
        StorageFull: Redis has no room for joining the parts.
        redis.exceptions.RedisError: the outcome is unknown.
    """
    try:
        return _publish(run, parts, key, task_id, ttl_seconds, complete=complete, writer=writer or new_writer())
    except StagingLost:
        # An earlier call may have published the result before its reply was lost or its worker died.
        published = result_store.find_result(key)
        if published is not None and published.run == run:
            return published
        raise


def _publish(  # noqa: PLR0913 - as its caller
    run: str, parts: Sequence[Part], key: str, task_id: str, ttl_seconds: int, *, complete: bool, writer: str
) -> Summary:
    store = connections().results
    size, index, placements = _lay_out(parts)
    keys = [part_key(run, number, part.writer) for number, part in enumerate(parts)]
    if len(parts) == 1:
        whole = keys[0]
        seconds, microseconds = _verify(whole, parts[0])
    else:
        whole = part_key(run, "whole", writer)
        _join(whole, keys, parts, placements, size)
        seconds, microseconds = store.time()
    published_at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds // 1000 * 1000)
    summary = Summary(
        key=key,
        task_id=task_id,
        run=run,
        count=sum(part.rows for part in parts),
        bytes=size + len(b"]"),
        columns=_merge_columns(parts),
        segments=[part.rows for part in parts],
        complete=complete,
        published_at=published_at,
        expires_at=published_at + timedelta(seconds=ttl_seconds),
        unmatched=_merge_unmatched(parts),
    )
    # Redis stores the outcome of the task too, in case MongoDB cannot store it.
    outcome = json.dumps(summary.outcome) if complete else ""
    names = [key, summaries.index_key(key), summaries.summary_key(key), summaries.outcome_key(task_id), whole]
    parameters = {
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
        published: Any = store.eval(_PUBLISH, len(names), *names, index, json.dumps(parameters))
    except ResponseError as error:
        if "STAGING" in str(error):
            raise StagingLost(whole) from error
        raise
    return summaries.summary_from_json(published)


def _verify(key: str, part: Part) -> tuple[int, int]:
    """Reads a part back and verifies it.

    Returns:
        The time on Redis's clock, in seconds and microseconds. Fetched with the last chunk, which saves a call.

    Raises:
        StagingLost: the part is damaged.
    """
    verifier = _PartVerifier(key, part)
    time = (0, 0)
    for first in range(0, max(part.size, 1), CHUNK_BYTES):
        with connections().results.pipeline(transaction=False) as pipe:
            pipe.getrange(key, first, first + CHUNK_BYTES - 1)
            pipe.time()
            piece, time = pipe.execute()
        verifier.add(ensure_bytes(piece))
    verifier.require_intact()
    return time


def _join(
    whole: str, keys: Sequence[str], parts: Sequence[Part], placements: Sequence["_Placement"], size: int
) -> None:
    """Copies the parts one after another into the key ``whole``, and verifies each piece on the way.

    Raises:
        StagingLost: a part is damaged.
        StorageFull: Redis has no room for the copy.
    """
    require_room(size)
    store = connections().results
    store.set(whole, b"[", ex=STAGING_SECONDS)
    for key, part, placement in zip(keys, parts, placements, strict=True):
        verifier = _PartVerifier(key, part)
        for first in range(0, part.size, CHUNK_BYTES):
            last = min(first + CHUNK_BYTES, part.size) - 1
            start = max(first, placement.skip)
            offset = placement.offset + start - placement.skip
            with store.pipeline(transaction=False) as pipe:
                pipe.getrange(key, first, last)
                pipe.eval(_COPY, 2, key, whole, start, last, offset, STAGING_SECONDS)
                piece, copied = pipe.execute()
            verifier.add(piece)
            if not copied:
                raise StagingLost(whole)
        verifier.require_intact()


class _PartVerifier:
    """Checks that a part read back from Redis has the size, checksum and number of rows that its writer recorded."""

    def __init__(self, key: str, part: Part):
        self._key, self._part = key, part
        self._size = self._checksum = self._line_breaks = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        self._checksum = zlib.crc32(piece, self._checksum)
        self._line_breaks += piece.count(b"\n")

    def require_intact(self) -> None:
        # Every row of the result except the first follows a separator, and line breaks occur only in separators.
        rows = self._line_breaks + (1 if self._part.starts_the_array and self._part.rows else 0)
        if (self._size, self._checksum, rows) != (self._part.size, self._part.checksum, self._part.rows):
            raise StagingLost(self._key)


def _merge_columns(parts: Sequence[Part]) -> list[str]:
    """The columns of all rows. Those of parts without rows count only if there are no rows at all."""
    filled = [part for part in parts if part.rows] or parts
    return list(dict.fromkeys(column for part in filled for column in part.columns))


def _merge_unmatched(parts: Sequence[Part]) -> dict[str, Unmatched]:
    """Combines the unmatched rows of all parts, and renumbers them for the whole result."""
    merged: dict[str, Unmatched] = {}
    rows_before = 0
    for part in parts:
        for name, unmatched in part.unmatched.items():
            total = merged.setdefault(name, Unmatched())
            total.count += unmatched.count
            # Older versions also recorded rows beyond the limit, which were never written.
            numbers = [rows_before + row for row in unmatched.rows if row < part.rows]
            total.rows += numbers[: UNMATCHED_ROWS - len(total.rows)]
        rows_before += part.rows
    return merged


class _Placement(NamedTuple):
    """The offset of a part in the result, and the number of bytes to skip at its start."""

    offset: int
    skip: int


def _lay_out(parts: Sequence[Part]) -> tuple[int, bytes, list[_Placement]]:
    """Calculates where each part goes in the result.

    Returns:
        The size of the result without its closing bracket, then the row index, then the placement of each part.
    """
    size, index, placements = len(b"["), bytearray(), []
    rows = 0
    for part in parts:
        skip = 0
        if part.starts_the_array:
            skip = len(b"[")
        elif part.rows and not rows:
            skip = len(SEPARATOR)
        for offset in part.offsets:
            index += OFFSET.pack(size + offset - skip)
        placements.append(_Placement(size, skip))
        size += max(part.size - skip, 0)
        rows += part.rows
    return size, bytes(index), placements

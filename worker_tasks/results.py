"""Joined documents in Redis: written, published, paged, expired.

Under a result's key stands one plain JSON array, the documents as relaxed MongoDB Extended JSON v2, one a
line, so that ``json.loads(redis.get(key))`` always works. Beside it, with the same time to live: its summary,
and a row index, so that any page of it is one byte range.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from bson import json_util
from kombu.utils.encoding import ensure_bytes

from worker_tasks import ledger
from worker_tasks.connections import connections

#: Rows between two entries of the row index, and rows of a page.
PAGE_ROWS = 50
#: Bytes held back before they are sent to Redis.
CHUNK_BYTES = 1024 * 1024
#: Seconds that the parts of a result that was never published may stay.
STAGING_SECONDS = 3600

_OFFSET = struct.Struct(">Q")


@dataclass(frozen=True)
class Summary:
    """What a published result is: its key, rows, bytes, columns (over all rows, as first seen) and times."""

    key: str
    task_id: str
    count: int
    bytes: int
    columns: list[str]
    published_at: datetime
    expires_at: datetime

    @property
    def outcome(self) -> dict[str, Any]:
        """The return value of a join task."""
        return {"redis_key": self.key, "count": self.count}

    @property
    def pages(self) -> int:
        return max(1, -(-self.count // PAGE_ROWS))


# By prefix, so that no user id can make one key name out of another.
def _summary_key(key: str) -> str:
    return f"result_summary:{key}"


def _index_key(key: str) -> str:
    return f"result_index:{key}"


def _outcome_key(task_id: str) -> str:
    return f"task_outcome:{task_id}"


class Writer:
    """Writes a result beside its public key and puts it there in one step; readers never see half of one.

    Used as a context manager, it leaves nothing behind if it is left before :meth:`publish`.
    """

    def __init__(self, key: str, task_id: str, ttl_seconds: int):
        self._key = key
        self._staging_key = f"staging:{task_id}"
        self._task_id = task_id
        self._ttl_seconds = ttl_seconds
        self._columns: dict[str, None] = {}
        self._index = bytearray()
        self._count = 0
        self._sent = 0
        self._held = bytearray(b"[")
        self._redis = connections().results

    def __enter__(self) -> Self:
        self._redis.delete(self._staging_key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._redis.unlink(self._staging_key)

    def append(self, document: Mapping[str, Any]) -> None:
        """Adds one document.

        Raises:
            redis.exceptions.RedisError: Redis does not take it.
        """
        if self._count:
            self._held += b",\n"
        if self._count % PAGE_ROWS == 0:
            self._index += _OFFSET.pack(self._sent + len(self._held))
        self._held += encode(document)
        self._columns.update(dict.fromkeys(document))
        self._count += 1
        if len(self._held) >= CHUNK_BYTES:
            self._send()

    def _send(self) -> None:
        with self._redis.pipeline() as pipe:
            # At its offset, not appended: sending it twice after a lost reply changes nothing.
            pipe.setrange(self._staging_key, self._sent, bytes(self._held))
            pipe.expire(self._staging_key, STAGING_SECONDS)
            pipe.execute()
        self._sent += len(self._held)
        self._held.clear()

    def publish(self) -> Summary:
        """Puts the result under its public key, with everything beside it and the time to live.

        Raises:
            redis.exceptions.RedisError: not known to be published.
        """
        self._held += b"]"
        self._send()
        published_at = ledger.now()
        summary = Summary(
            key=self._key,
            task_id=self._task_id,
            count=self._count,
            bytes=self._sent,
            columns=list(self._columns),
            published_at=published_at,
            expires_at=published_at + timedelta(seconds=self._ttl_seconds),
        )
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.rename(self._staging_key, self._key)
            pipe.expire(self._key, self._ttl_seconds)
            pipe.set(_index_key(self._key), bytes(self._index), ex=self._ttl_seconds)
            pipe.set(_summary_key(self._key), _summary_text(summary), ex=self._ttl_seconds)
            # Lets the reconciler finish a task whose outcome could not be stored in MongoDB.
            pipe.set(_outcome_key(self._task_id), json.dumps(summary.outcome), ex=self._ttl_seconds)
            pipe.execute()
        return summary


def encode(document: Mapping[str, Any]) -> bytes:
    """One document as a line of relaxed Extended JSON v2."""
    text = json_util.dumps(
        document, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False, separators=(",", ":")
    )
    return text.encode()


def _summary_text(summary: Summary) -> str:
    return json.dumps(asdict(summary), default=datetime.isoformat)


def find(key: str) -> Summary | None:
    """What is under this key now; None where nothing is, or no longer.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(_summary_key(key))
    if text is None:
        return None
    fields = json.loads(text)
    for instant in ("published_at", "expires_at"):
        fields[instant] = datetime.fromisoformat(fields[instant])
    return Summary(**fields)


def page(summary: Summary, number: int) -> list[dict[str, Any]] | None:
    """The rows of one page, of 1 to ``summary.pages``, as one byte range; None where the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    first = (number - 1) * _OFFSET.size
    bounds = _range(_index_key(summary.key), first, first + 2 * _OFFSET.size)
    offsets = [offset for (offset,) in _OFFSET.iter_unpack(bounds)] or [len(b"[")]
    end = offsets[1] - len(b",\n") if len(offsets) > 1 else summary.bytes - len(b"]")
    rows = _range(summary.key, offsets[0], end)
    # Asked last, so that what was read above belongs to this run and not to one that came in between. A full Redis
    # may have deleted a part of it.
    if find(summary.key) != summary or (summary.count and not bounds) or len(rows) != end - offsets[0]:
        return None
    return json.loads(b"[" + rows + b"]")


def _range(key: str, start: int, end: int) -> bytes:
    return ensure_bytes(connections().results.getrange(key, start, end - 1))


def outcome_of(task_id: str) -> dict[str, Any] | None:
    """What a task that published a result returns, while the result lives.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(_outcome_key(task_id))
    return None if text is None else json.loads(text)

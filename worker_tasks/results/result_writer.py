"""Writes the rows of a run to Redis in parts. Several workers can write parts of a run at once.

Each attempt at a part writes to its own staging key, so that writers never share a key. publishing.py joins the parts
into the result.
"""

import json
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, Self

from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import LimitExceeded
from worker_tasks.infra.redis_memory import require_room
from worker_tasks.results.result_store import PAGE_ROWS, SEPARATOR
from worker_tasks.results.summaries import Unmatched

#: The number of bytes to buffer before sending them to Redis, and to read or copy in one call.
CHUNK_BYTES = 1024 * 1024
#: Seconds until the parts of an unpublished result expire.
STAGING_SECONDS = 6 * 3600
NARROW_HINT = "Filter either side, keep fewer fields, or set a limit."
#: Bytes to read for a glimpse of the first rows of an unfinished part.
GLIMPSE_BYTES = 64 * 1024

_APPEND = lua_scripts.load("result_writer/append")


class StagingLost(Exception):
    """Redis has lost or damaged rows of an unpublished result, so the join has to run again."""


@dataclass(frozen=True)
class Part:
    """A finished part of a run.

    Attributes:
        rows, size: the number of rows and of bytes.
        columns: the names of the columns, in the order of their first appearance.
        offsets: the byte offset of every 50th row.
        unmatched: the rows in which a join found no match, keyed by the field that the join embeds.
        writer: the name of the attempt that wrote the part.
        checksum: the CRC-32 of the bytes.
        starts_the_array: whether the first byte is the opening bracket of the result.
    """

    rows: int
    size: int
    columns: list[str]
    offsets: list[int]
    unmatched: dict[str, Unmatched] = field(default_factory=dict)
    writer: str = ""
    checksum: int = 0
    starts_the_array: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        fields = json.loads(text)
        fields["unmatched"] = {name: Unmatched(**values) for name, values in fields.get("unmatched", {}).items()}
        return cls(**fields)


def new_writer() -> str:
    """A random name for one attempt at a part.

    A counter in Redis would not be safe: a Redis that has lost its last second of writes would assign a number twice.
    """
    return secrets.token_hex(8)


class PartWriter:
    """Writes one part of a run to its own staging key. Enforces the limits on rows and bytes of the whole run.

    Attributes:
        columns: the names of the columns, in the order of their first appearance. The encoder fills them in.
        columns_without_rows: the names of the columns if no row is written.
        unmatched: the rows in which a join found no match, keyed by the field that the join embeds. The encoder fills
            them in.

    Args:
        run_key: the key of the run's hash. The hash's field ``writer:<number>`` names the current writer of the part,
            and Redis rejects writes by any other writer.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the part, its limits, its writer
        self,
        run: str,
        number: int,
        max_rows: int,
        max_size: int,
        writer: str | None = None,
        run_key: str | None = None,
    ):
        self.columns: dict[str, None] = {}
        self.columns_without_rows: Sequence[str] = ()
        self.unmatched: dict[str, Unmatched] = {}
        self._max_rows, self._max_size = max_rows, max_size
        self._other_rows = self._other_size = 0
        self._writer = writer or new_writer()
        self._key = part_key(run, number, self._writer)
        self._keys = [self._key, *([run_key] if run_key else [])]
        self._field = f"writer:{number}"
        self._prefix = b"[" if number == 0 else b""
        self._buffer = bytearray(self._prefix)
        self._offsets: list[int] = []
        self._rows = 0
        self._sent = 0
        self._checksum = 0
        self._redis = connections().results

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def size(self) -> int:
        return self._sent + len(self._buffer)

    def count_other_parts(self, rows: int, size: int) -> None:
        """Sets the rows and bytes of the other parts of the run, which count towards the limits."""
        self._other_rows, self._other_size = rows, size

    def append(self, lines: Sequence[bytes]) -> None:
        """Adds rows, each a JSON document without line breaks.

        Raises:
            LimitExceeded: a row exceeds a limit; the rows before it are added.
            StorageFull, StagingLost, redis.exceptions.RedisError: as for :meth:`flush`.
        """
        allowed = self._count_fitting(lines)
        start = 0
        while start < allowed:
            end = min(allowed, start + PAGE_ROWS - self._rows % PAGE_ROWS)
            # Every part except the first starts with a separator; publishing drops it if all earlier parts are empty.
            if self._rows or not self._prefix:
                self._buffer += SEPARATOR
            if self._rows % PAGE_ROWS == 0:
                self._offsets.append(self._sent + len(self._buffer))
            self._buffer += SEPARATOR.join(lines[start:end])
            self._rows += end - start
            start = end
        if len(self._buffer) >= CHUNK_BYTES:
            self.flush()
        if allowed < len(lines):
            raise self._limit_error()

    def _count_fitting(self, lines: Sequence[bytes]) -> int:
        """The number of these rows, counted from the first, that fit within the limits."""
        rows = min(len(lines), max(0, self._max_rows - self._rows - self._other_rows))
        free = self._max_size - self.size - self._other_size
        if sum(map(len, lines)) + len(SEPARATOR) * len(lines) <= free:
            return rows
        sizes = accumulate(len(line) + len(SEPARATOR) for line in lines[:rows])
        return sum(1 for size in sizes if size <= free)

    def _limit_error(self) -> LimitExceeded:
        if self._rows + self._other_rows >= self._max_rows:
            return LimitExceeded(f"It has more than {self._max_rows:,} rows, which is the limit. {NARROW_HINT}")
        mib = self._max_size / 2**20
        return LimitExceeded(f"Its rows take more than {mib:,.0f} MiB, which is the limit. {NARROW_HINT}")

    def flush(self) -> None:
        """Sends the buffered rows, so that glimpses can show them.

        Raises:
            StorageFull: Redis has only its reserve left.
            StagingLost: Redis has lost rows sent before, or another writer has taken over the part.
            redis.exceptions.RedisError: Redis does not answer, or refuses.
        """
        if not self._buffer:
            return
        require_room(len(self._buffer))
        # Writes at an offset, so that repeating the call after a lost reply changes nothing.
        arguments: list[Any] = [self._sent, bytes(self._buffer), STAGING_SECONDS, self._field, self._writer]
        if not self._redis.eval(_APPEND, len(self._keys), *self._keys, *arguments):
            raise StagingLost(self._key)
        self._sent += len(self._buffer)
        self._checksum = zlib.crc32(self._buffer, self._checksum)
        self._buffer.clear()

    def discard(self) -> None:
        """Deletes the written rows.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        self._redis.unlink(self._key)

    def close(self) -> Part:
        """Sends the remaining rows.

        Returns:
            The finished part.

        Raises:
            StorageFull, StagingLost, redis.exceptions.RedisError: as for :meth:`flush`.
        """
        self.flush()
        return Part(
            self._rows,
            self._sent,
            list(self.columns if self._rows else self.columns_without_rows or self.columns),
            self._offsets,
            self.unmatched,
            self._writer,
            self._checksum,
            starts_the_array=bool(self._prefix),
        )


def part_key(run: str, number: int | str, writer: str) -> str:
    return f"staging:{run}:{number}:{writer}"


def glimpse(key: str | None, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` of the first rows of an unfinished run, read from the key of its first part.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    if key is None:
        return []
    text = ensure_bytes(connections().results.getrange(key, 0, GLIMPSE_BYTES - 1)).removeprefix(b"[")
    lines = text.split(SEPARATOR)
    if len(text) >= GLIMPSE_BYTES - 1:
        lines.pop()  # the last line may be cut
    return [json.loads(line) for line in lines[:limit] if line]

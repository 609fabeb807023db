"""Results in the making, in Redis: the rows of a run, written part by part, perhaps by several workers at once.

Each beginning of a part writes into a key of its own, so that no two writers ever share a byte. publishing.py puts the
parts together.
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
from worker_tasks.results.result_store import PAGE_ROWS, SEPARATOR, Unmatched

#: Bytes held back before they are sent to Redis, and bytes that are read or copied there in one call.
CHUNK_BYTES = 1024 * 1024
#: Seconds that the parts of a result that was never published may stay.
STAGING_SECONDS = 6 * 3600
NARROW_HINT = "Filter either side, keep fewer fields, or set a limit."
#: Bytes of a part that is being written that are looked at for its first rows.
GLIMPSE_BYTES = 64 * 1024

_APPEND = lua_scripts.load("result_writer/append")


class StagingLost(Exception):
    """Redis no longer has what was written, or not as it was written: the rows have to be joined again."""


@dataclass(frozen=True)
class Part:
    """What one part of a run wrote: its rows, its bytes, columns (as first seen), and the offset of every 50th row.

    ``unmatched`` notes the rows in which a join found nothing, by the field that it brings in. ``writer`` names the
    beginning of the part that wrote it, and ``checksum`` is the CRC-32 of its bytes.
    """

    rows: int
    size: int
    columns: list[str]
    offsets: list[int]
    unmatched: dict[str, Unmatched] = field(default_factory=dict)
    writer: str = ""
    checksum: int = 0
    #: Whether its first byte is the opening bracket of the whole.
    starts_the_array: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        read = json.loads(text)
        read["unmatched"] = {name: Unmatched(**noted) for name, noted in read.get("unmatched", {}).items()}
        return cls(**read)


def new_writer() -> str:
    """A name for one beginning of one part. Not a number: a Redis that lost its last second would give it twice."""
    return secrets.token_hex(8)


class PartWriter:
    """Writes one part of a run, up to so many rows and bytes, into a key that no other writer has.

    ``noted_in`` is the hash whose field ``writer:<number>`` says who writes the part: a writer whose place another has
    taken writes no more.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what is written, how much of it, and by which writer
        self,
        run: str,
        number: int,
        max_rows: int,
        max_size: int,
        writer: str | None = None,
        noted_in: str | None = None,
    ):
        #: The names of the columns, as first seen; whoever encodes the rows adds to them.
        self.columns: dict[str, None] = {}
        #: The rows in which a join found nothing, by the field that it brings in; noted by the same.
        self.unmatched: dict[str, Unmatched] = {}
        self._max_rows, self._max_size = max_rows, max_size
        self._rows_elsewhere = self._size_elsewhere = 0
        self._writer = writer or new_writer()
        self._key = part_key(run, number, self._writer)
        self._keys = [self._key, *([noted_in] if noted_in else [])]
        self._field = f"writer:{number}"
        self._prefix = b"[" if number == 0 else b""
        self._held = bytearray(self._prefix)
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
        return self._sent + len(self._held)

    def count_other_parts(self, rows: int, size: int) -> None:
        """Says how much the other parts of the run hold, which counts as well."""
        self._rows_elsewhere, self._size_elsewhere = rows, size

    def append(self, lines: Sequence[bytes]) -> None:
        """Adds rows, each a JSON document without line breaks.

        Raises:
            LimitExceeded: at a row that there is no room for; those before it are added.
            redis.exceptions.RedisError: Redis does not take them.
        """
        allowed = self._fitting(lines)
        start = 0
        while start < allowed:
            end = min(allowed, start + PAGE_ROWS - self._rows % PAGE_ROWS)
            # A part but the first begins with a separator: what is left of it where nothing stands before.
            if self._rows or not self._prefix:
                self._held += SEPARATOR
            if self._rows % PAGE_ROWS == 0:
                self._offsets.append(self._sent + len(self._held))
            self._held += SEPARATOR.join(lines[start:end])
            self._rows += end - start
            start = end
        if len(self._held) >= CHUNK_BYTES:
            self.flush()
        if allowed < len(lines):
            raise self._no_room()

    def _fitting(self, lines: Sequence[bytes]) -> int:
        """How many of these rows there is room for."""
        rows = min(len(lines), max(0, self._max_rows - self._rows - self._rows_elsewhere))
        room = self._max_size - self.size - self._size_elsewhere
        if sum(map(len, lines)) + len(SEPARATOR) * len(lines) <= room:
            return rows
        sizes = accumulate(len(line) + len(SEPARATOR) for line in lines[:rows])
        return sum(1 for size in sizes if size <= room)

    def _no_room(self) -> LimitExceeded:
        if self._rows + self._rows_elsewhere >= self._max_rows:
            return LimitExceeded(f"It has more than {self._max_rows:,} rows, which is the limit. {NARROW_HINT}")
        mib = self._max_size / 2**20
        return LimitExceeded(f"Its rows take more than {mib:,.0f} MiB, which is the limit. {NARROW_HINT}")

    def flush(self) -> None:
        """Sends what is held back: from then on it can be glimpsed.

        Raises:
            StorageFull: Redis has no room but its reserve.
            StagingLost: what was sent before is no longer there.
            redis.exceptions.RedisError: Redis does not take it.
        """
        if not self._held:
            return
        require_room(len(self._held))
        # At its offset, so sending it twice after a lost reply changes nothing.
        arguments: list[Any] = [self._sent, bytes(self._held), STAGING_SECONDS, self._field, self._writer]
        if not self._redis.eval(_APPEND, len(self._keys), *self._keys, *arguments):
            raise StagingLost(self._key)
        self._sent += len(self._held)
        self._checksum = zlib.crc32(self._held, self._checksum)
        self._held.clear()

    def discard(self) -> None:
        """Deletes what was written.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        self._redis.unlink(self._key)

    def close(self) -> Part:
        """Sends the rest.

        Raises:
            StorageFull, StagingLost, redis.exceptions.RedisError: as for :meth:`flush`.
        """
        self.flush()
        return Part(
            self._rows,
            self._sent,
            list(self.columns),
            self._offsets,
            self.unmatched,
            self._writer,
            self._checksum,
            starts_the_array=bool(self._prefix),
        )


def part_key(run: str, number: int | str, writer: str) -> str:
    return f"staging:{run}:{number}:{writer}"


def glimpse(key: str | None, limit: int) -> list[dict[str, Any]]:
    """At most ``limit`` of the first rows of a run that is still being written, from the key of its first part.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    if key is None:
        return []
    text = ensure_bytes(connections().results.getrange(key, 0, GLIMPSE_BYTES - 1)).removeprefix(b"[")
    lines = text.split(SEPARATOR)
    if len(text) >= GLIMPSE_BYTES - 1:
        lines.pop()  # most likely cut in the middle
    return [json.loads(line) for line in lines[:limit] if line]

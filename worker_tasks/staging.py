"""Results in the making, in Redis: written part by part, then published in one step.

A run of a task writes its rows into one or more parts, perhaps in several workers at once. The last step puts them
together inside Redis, in the order of the parts, and under the public key: readers never see half a result.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Any, Self

from kombu.utils.encoding import ensure_bytes

from worker_tasks import ledger, results
from worker_tasks.connections import connections
from worker_tasks.errors import LimitExceeded
from worker_tasks.results import OFFSET, PAGE_ROWS, SEPARATOR, UNMATCHED_ROWS, Summary, Unmatched

#: Bytes held back before they are sent to Redis.
CHUNK_BYTES = 1024 * 1024
#: Seconds that the parts of a result that was never published may stay.
STAGING_SECONDS = 6 * 3600
NARROW = "Filter either side, keep fewer fields, or set a limit."
#: Bytes of a part that is being written that are looked at for its first rows.
GLIMPSE_BYTES = 64 * 1024

_PUBLISH = f"""
local target, index, summary, outcome = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local seconds = ARGV[1]
local there = redis.call('GET', summary)
if there and string.find(there, ARGV[5], 1, true) then return there end  -- done before; the answer was lost
local function of(part, which) return tonumber(ARGV[6 + (part - 5) * 3 + which]) end
for part = 5, #KEYS do
  if redis.call('STRLEN', KEYS[part]) ~= of(part, 1) then return redis.error_reply('STAGING a part is gone') end
end
local function also_under(key) return {{key, '{results.index_key("")}' .. key, '{results.summary_key("")}' .. key}} end
-- The result that was here stays as long as it was to, or as long as it is the last but one.
if there and redis.call('EXISTS', target, index) == 2 then
  local pointer = 'before:' .. target
  local before = redis.call('GET', pointer)
  local text = before and redis.call('GET', '{results.summary_key("")}' .. before)
  if text and not cjson.decode(text).kept then
    local derived = '{results.derived_key("")}' .. cjson.decode(text).run
    for _, key in ipairs(redis.call('SMEMBERS', derived)) do redis.call('UNLINK', key) end
    redis.call('UNLINK', derived, unpack(also_under(before)))
  end
  local summary_there = cjson.decode(there)
  local older = '{results.older_key("")}' .. summary_there.task_id
  local from, to = also_under(target), also_under(older)
  for place = 1, 3 do redis.call('RENAME', from[place], to[place]) end
  -- Only the key is another one now; a decoder would lose what an empty list is.
  local left = math.max(redis.call('PTTL', older), 1)
  local first, last = string.find(there, ARGV[6], 1, true)
  local said = string.sub(there, 1, first - 1) .. cjson.encode(older) .. string.sub(there, last + 1)
  redis.call('SET', to[3], said, 'PX', left)
  redis.call('SET', pointer, older, 'PX', left)
end
local whole, step = KEYS[5], 4194304
-- Grown once: each growth may copy all that is there.
redis.call('SETRANGE', whole, of(#KEYS, 1) + of(#KEYS, 2) - of(#KEYS, 3), ']')
for part = 6, #KEYS do
  local size, offset, skip = of(part, 1), of(part, 2), of(part, 3)
  for at = skip, size - 1, step do
    redis.call('SETRANGE', whole, offset + at - skip, redis.call('GETRANGE', KEYS[part], at, at + step - 1))
  end
  redis.call('UNLINK', KEYS[part])
end
redis.call('RENAME', whole, target)
redis.call('EXPIRE', target, seconds)
redis.call('SET', index, ARGV[2], 'EX', seconds)
redis.call('SET', summary, ARGV[3], 'EX', seconds)
if ARGV[4] ~= '' then redis.call('SET', outcome, ARGV[4], 'EX', seconds) end
return ARGV[3]
"""


@dataclass(frozen=True)
class Part:
    """What one part of a run wrote: its rows, its bytes, columns (as first seen), and the offset of every 50th row.

    ``unmatched`` notes the rows in which a join found nothing, by the field that it brings in.
    """

    rows: int
    size: int
    columns: list[str]
    offsets: list[int]
    unmatched: dict[str, Unmatched] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        read = json.loads(text)
        read["unmatched"] = {name: Unmatched(**noted) for name, noted in read.get("unmatched", {}).items()}
        return cls(**read)


class PartWriter:
    """Writes one part of a run, up to so many rows and bytes. Whoever begins a part again begins it anew."""

    def __init__(self, run: str, number: int, max_rows: int, max_size: int):
        #: The names of the columns, as first seen; whoever encodes the rows adds to them.
        self.columns: dict[str, None] = {}
        #: The rows in which a join found nothing, by the field that it brings in; noted by the same.
        self.unmatched: dict[str, Unmatched] = {}
        self._max_rows, self._max_size = max_rows, max_size
        self._rows_elsewhere = self._size_elsewhere = 0
        self._key = part_key(run, number)
        self._prefix = b"[" if number == 0 else b""
        self._held = bytearray(self._prefix)
        self._offsets: list[int] = []
        self._rows = 0
        self._sent = 0
        self._redis = connections().results
        self._redis.unlink(self._key)

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def size(self) -> int:
        return self._sent + len(self._held)

    def others(self, rows: int, size: int) -> None:
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
            return LimitExceeded(f"It has more than {self._max_rows:,} rows, which is the limit. {NARROW}")
        mib = self._max_size / 2**20
        return LimitExceeded(f"Its rows take more than {mib:,.0f} MiB, which is the limit. {NARROW}")

    def flush(self) -> None:
        """Sends what is held back: from then on it can be glimpsed.

        Raises:
            redis.exceptions.RedisError: Redis does not take it.
        """
        if not self._held:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            # At its offset, not appended: sending it twice after a lost reply changes nothing.
            pipe.setrange(self._key, self._sent, bytes(self._held))
            pipe.expire(self._key, STAGING_SECONDS)
            pipe.execute()
        self._sent += len(self._held)
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
            redis.exceptions.RedisError: Redis does not take it.
        """
        self.flush()
        return Part(self._rows, self._sent, list(self.columns), self._offsets, self.unmatched)


def part_key(run: str, number: int) -> str:
    return f"staging:{run}:{number}"


def publish(  # noqa: PLR0913 - what is where, and what becomes of it
    run: str, parts: Sequence[Part], key: str, task_id: str, ttl_seconds: int, *, complete: bool = True
) -> Summary:
    """Puts the parts together under the public key, with everything beside it and the time to live.

    Raises:
        redis.exceptions.ResponseError: a part is gone, because it was never published for hours.
        redis.exceptions.RedisError: not known to be published.
    """
    published_at = ledger.now()
    size, index, places = _laid_out(parts)
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
    # Lets the reconciler finish a task whose outcome could not be stored in MongoDB.
    outcome = json.dumps(summary.outcome) if complete else ""
    keys = [key, results.index_key(key), results.summary_key(key), results.outcome_key(task_id)]
    keys += [part_key(run, number) for number in range(len(parts))]
    arguments: list[Any] = [ttl_seconds, index, summary.to_json(), outcome, summary.mark_of_run, json.dumps(key)]
    arguments += places
    published: Any = connections().publishing.eval(_PUBLISH, len(keys), *keys, *arguments)
    return results.summary_from_json(published)


def _unmatched(parts: Sequence[Part]) -> dict[str, Unmatched]:
    """What each part noted, its rows counted on from those of the parts before it."""
    noted: dict[str, Unmatched] = {}
    before = 0
    for part in parts:
        for name, unmatched in part.unmatched.items():
            whole = noted.setdefault(name, Unmatched())
            whole.count += unmatched.count
            # Of a part that met a limit the last rows were not written.
            there = [before + row for row in unmatched.rows if row < part.rows]
            whole.rows += there[: UNMATCHED_ROWS - len(whole.rows)]
        before += part.rows
    return noted


def _laid_out(parts: Sequence[Part]) -> tuple[int, bytes, list[int]]:
    """Where each part goes: the size of all, the row index, and size, offset and bytes to skip of each part."""
    size, index, places = 0, bytearray(), []
    for number, part in enumerate(parts):
        skip = len(SEPARATOR) if number and part.rows and not any(earlier.rows for earlier in parts[:number]) else 0
        for offset in part.offsets:
            index += OFFSET.pack(size + offset - skip)
        places += [part.size, size, skip]
        size += part.size - skip
    return size, bytes(index), places


def discard(run: str, parts: int) -> None:
    """Deletes what a run has written and not published.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.unlink(*(part_key(run, number) for number in range(parts)))


def glimpse(run: str, limit: int) -> list[dict[str, Any]]:
    """At most ``limit`` of the first rows of a run that is still being written.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = ensure_bytes(connections().results.getrange(part_key(run, 0), 0, GLIMPSE_BYTES - 1)).removeprefix(b"[")
    lines = text.split(SEPARATOR)
    if len(text) >= GLIMPSE_BYTES - 1:
        lines.pop()  # most likely cut in the middle
    return [json.loads(line) for line in lines[:limit] if line]

"""Joined documents in Redis: found, read row by row, expired.

Under a result's key stands one plain JSON array, the documents as relaxed MongoDB Extended JSON v2, one a
line, so that ``json.loads(redis.get(key))`` always works. Beside it, with the same time to live: its summary,
and a row index, so that any rows of it are one byte range. How they come there: staging.py.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from celery import states
from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections

#: Rows between two entries of the row index, and rows of a page.
PAGE_ROWS = 50
#: What stands between two rows. No row holds a line break, so a byte range is cut into its rows here.
SEPARATOR = b",\n"
#: Rows without a match whose numbers are noted.
UNMATCHED_ROWS = 50
#: Bytes that are read at once by :func:`read_all`.
CHUNK_BYTES = 1024 * 1024

OFFSET = struct.Struct(">Q")

_KEEP = lua_scripts.load("result_store/if_still_there", "result_store/keep")
_DISCARD = lua_scripts.load("result_store/if_still_there", "result_store/discard")


class ResultGone(Exception):
    """A result expired, was evicted or replaced while it was read."""


@dataclass
class Unmatched:
    """The rows in which a join found nothing: how many, and the numbers of the first ones, counted from 0."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, rows: list[int]) -> None:
        self.count += len(rows)
        self.rows += rows[: UNMATCHED_ROWS - len(self.rows)]


@dataclass(frozen=True)
class Summary:
    """What a published result is: its key, rows, bytes, columns (over all rows, as first seen) and times.

    ``run`` names the beginning of the task that made it. ``segments`` holds the rows of each part that it was put
    together from: the row index begins anew in each. One that is not ``complete`` holds the rows that were joined when
    the run was stopped. ``unmatched`` notes the rows in which a join found nothing, by the field that it brings in.
    One that someone asked to be ``kept`` longer outlives the next runs of the same join.
    """

    key: str
    task_id: str
    run: str
    count: int
    bytes: int
    columns: list[str]
    segments: list[int]
    complete: bool
    published_at: datetime
    expires_at: datetime
    unmatched: dict[str, Unmatched] = field(default_factory=dict)
    kept: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """What the task document says of its result."""
        counts = {name: unmatched.count for name, unmatched in self.unmatched.items()}
        return {"result_expires_at": self.expires_at, "result_bytes": self.bytes, "unmatched": counts}

    @property
    def outcome(self) -> dict[str, Any]:
        """The return value of a join task."""
        return {"redis_key": self.key, "count": self.count}

    @property
    def pages(self) -> int:
        return max(1, -(-self.count // PAGE_ROWS))

    @property
    def mark_of_run(self) -> str:
        """What stands in the JSON of every summary of this run, and of no other."""
        return f'"run": {json.dumps(self.run)}'

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


def summary_from_json(text: str | bytes) -> Summary:
    """The summary that was written as this JSON."""
    fields = json.loads(text)
    for instant in ("published_at", "expires_at"):
        fields[instant] = datetime.fromisoformat(fields[instant])
    fields["unmatched"] = {name: Unmatched(**noted) for name, noted in fields.get("unmatched", {}).items()}
    return Summary(**fields)


# By prefix, so that no user id can make one key name out of another.
def summary_key(key: str) -> str:
    return f"result_summary:{key}"


def index_key(key: str) -> str:
    return f"result_index:{key}"


def outcome_key(task_id: str) -> str:
    return f"task_outcome:{task_id}"


def join_key(fingerprint: str) -> str:
    """Where the joined documents of a description land."""
    return f"join_result:{fingerprint}"


def partial_key(task_id: str) -> str:
    """Where the rows of a run that was stopped land."""
    return f"partial_result:{task_id}"


def older_key(task_id: str) -> str:
    """Where the result of a task is once a newer run of the same join has taken its place."""
    return f"older_result:{task_id}"


def artifacts_key(run: str) -> str:
    """The names of all keys that hold what was derived from the result of a run."""
    return f"derived_of:{run}"


def find_result(key: str) -> Summary | None:
    """What is under this key now; None where nothing is, or no longer.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(summary_key(key))
    return None if text is None else summary_from_json(ensure_bytes(text))


def find_task_result(task: Mapping[str, Any]) -> Summary | None:
    """The result, whole or partial, that belongs to this task; None where it has none, or it expired or was replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    key = key_of(task)
    if key is None:
        return None
    made_by = task.get("shares") or task["_id"]
    summary = find_result(key)
    return summary if summary is not None and summary.task_id == made_by else find_result(older_key(made_by))


def find_run_result(key: str, task_id: str, run: str) -> Summary | None:
    """The result of a run that was under this key, wherever it is now; None where it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    places = map(find_result, (key, older_key(task_id)))
    return next((found for found in places if found is not None and found.run == run), None)


def key_of(task: Mapping[str, Any]) -> str | None:
    """Where the result of a task is, or was; None where it has none."""
    if task.get("partial"):
        return task["partial"]["redis_key"]
    outcome = json.loads(task["result"]) if task["status"] == states.SUCCESS else None
    return outcome.get("redis_key") if isinstance(outcome, dict) else None


def page(summary: Summary, number: int) -> list[dict[str, Any]] | None:
    """The rows of one page, of 1 to ``summary.pages``; None where the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return read_rows(summary, (number - 1) * PAGE_ROWS, PAGE_ROWS)


def read_rows(summary: Summary, first: int, limit: int) -> list[dict[str, Any]] | None:
    """At most ``limit`` rows from the ``first`` on, counted from 0; None where the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    wanted = range(first, min(first + limit, summary.count))
    found: list[bytes] | None = []
    if wanted:
        found = _lines(summary, wanted)
    # Asked last, so that what was read above belongs to this run and not to one that came in between.
    still = find_result(summary.key)
    if found is None or still is None or still.run != summary.run:
        return None
    return [json.loads(line) for line in found]


def unmatched_rows(summary: Summary, name: str) -> list[tuple[int, dict[str, Any]]] | None:
    """The first rows in which the join that brings in this field found nothing, each with its number, counted from 0.

    None where the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = []
    for number in summary.unmatched[name].rows:
        row = read_rows(summary, number, 1)
        if row is None:
            return None
        found.append((number, row[0]))
    return found


def _lines(summary: Summary, wanted: range) -> list[bytes] | None:
    """These rows as they were written, in one byte range; None where a full Redis has deleted a part of the result."""
    entry, row_of_entry = _entry(summary, wanted[0])
    behind = _entry_behind(summary, wanted[-1])
    store = connections().results
    bounds = ensure_bytes(store.getrange(index_key(summary.key), entry * OFFSET.size, (behind + 1) * OFFSET.size - 1))
    offsets = [offset for (offset,) in OFFSET.iter_unpack(bounds)]
    if len(offsets) < behind - entry:
        return None
    end = offsets[behind - entry] - len(SEPARATOR) if len(offsets) > behind - entry else summary.bytes - len(b"]")
    text = ensure_bytes(store.getrange(summary.key, offsets[0], end - 1))
    if len(text) != end - offsets[0]:
        return None
    return text.split(SEPARATOR)[wanted[0] - row_of_entry :][: len(wanted)]


def _entry(summary: Summary, row: int) -> tuple[int, int]:
    """The entry of the row index that leads to this row, and the row that the entry is of."""
    entry = first_row = 0
    for segment in summary.segments:
        if row < first_row + segment:
            inside = (row - first_row) // PAGE_ROWS
            return entry + inside, first_row + inside * PAGE_ROWS
        entry += -(-segment // PAGE_ROWS)
        first_row += segment
    raise IndexError(row)


def _entry_behind(summary: Summary, row: int) -> int:
    """The first entry of the row index that is of a later row; it need not be there."""
    return _entry(summary, row)[0] + 1


def read_chunks(summary: Summary) -> Iterator[bytes]:
    """The whole value, a chunk at a time.

    Raises:
        ResultGone: it expired or was replaced meanwhile; what was read so far is not all.
        redis.exceptions.RedisError: Redis does not answer.
    """
    start = 0
    while start < summary.bytes:
        # A full Redis refuses transactions. Where the summary is still of this run, so was what was read before it.
        with connections().results.pipeline(transaction=False) as pipe:
            pipe.getrange(summary.key, start, start + CHUNK_BYTES - 1)
            pipe.get(summary_key(summary.key))
            chunk, text = pipe.execute()
        if text is None or summary.mark_of_run.encode() not in ensure_bytes(text) or not chunk:
            raise ResultGone(summary.key)
        yield chunk
        start += len(chunk)


def read_lines(summary: Summary) -> Iterator[bytes]:
    """The documents, each as the line that was written.

    Raises:
        ResultGone: the result expired or was replaced meanwhile.
        redis.exceptions.RedisError: Redis does not answer.
    """
    yield from split_lines(read_chunks(summary))


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The documents of a whole value that comes in chunks, each as the line that was written."""
    held = b""
    for number, chunk in enumerate(chunks):
        held += chunk if number else chunk.removeprefix(b"[")
        *whole, held = held.split(SEPARATOR)
        yield from whole
    if last := held.removesuffix(b"]"):
        yield last


def keep(summary: Summary, expires_at: datetime) -> Summary | None:
    """Lets a result live until another instant; None where it is gone or replaced.

    Raises:
        redis.exceptions.RedisError: not known to be done.
    """
    kept = replace(summary, expires_at=expires_at, kept=True)
    until = int(expires_at.timestamp() * 1000)
    return kept if _of_run(_KEEP, summary, kept.to_json(), until) else None


def discard(summary: Summary) -> bool:
    """Deletes a result at once; False where it is gone or replaced already.

    Raises:
        redis.exceptions.RedisError: not known to be done.
    """
    return bool(_of_run(_DISCARD, summary))


def _of_run(script: str, summary: Summary, *arguments: Any) -> Any:
    key = summary.key
    keys = [key, index_key(key), summary_key(key), outcome_key(summary.task_id), artifacts_key(summary.run)]
    return connections().results.eval(script, len(keys), *keys, summary.mark_of_run, *arguments)


def find_outcome(task_id: str) -> dict[str, Any] | None:
    """What a task that published a result returns, while the result lives.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(outcome_key(task_id))
    return None if text is None else json.loads(text)


class Published(NamedTuple):
    """The outcome of a task whose result is in Redis, and what its document says of that."""

    outcome: dict[str, Any]
    fields: dict[str, Any]


def find_published(task_id: str) -> Published | None:
    """What a task returned that published its result and may not have said so; None where there is none.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    outcome = find_outcome(task_id)
    if outcome is None:
        return None
    summary = find_result(outcome["redis_key"])
    return Published(outcome, summary.fields if summary is not None and summary.task_id == task_id else {})

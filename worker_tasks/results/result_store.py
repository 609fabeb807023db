"""Finds and reads published results in Redis.

A result is stored as one JSON array with one document per line, in relaxed MongoDB Extended JSON v2, so that
``json.loads(redis.get(key))`` always works. Two more keys with the same expiry hold the summary and the row index. With
the row index, any range of rows can be read as one range of bytes. result_writer.py and publishing.py write these keys.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from celery import states
from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.results.summaries import (
    Summary,
    artifacts_key,
    index_key,
    older_key,
    outcome_key,
    summary_from_json,
    summary_key,
)

#: Rows per entry of the row index, and rows per page.
PAGE_ROWS = 50
#: The separator of rows. Rows contain no line breaks, so splitting at it is safe.
SEPARATOR = b",\n"
#: Bytes per chunk of :func:`read_chunks`.
CHUNK_BYTES = 1024 * 1024

OFFSET = struct.Struct(">Q")

_KEEP = lua_scripts.load("result_store/if_still_there", "result_store/keep")
_DISCARD = lua_scripts.load("result_store/if_still_there", "result_store/discard")


class ResultGone(Exception):
    """A result expired, or was evicted or replaced, while it was being read."""


def find_result(key: str) -> Summary | None:
    """The summary of the result under this key; None if there is none.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(summary_key(key))
    return None if text is None else summary_from_json(ensure_bytes(text))


def find_task_result(task: Mapping[str, Any]) -> Summary | None:
    """The complete or partial result of a task; None if it has none, or the result is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    key = key_of(task)
    if key is None:
        return None
    leader_id = task.get("shares") or task["_id"]
    summary = find_result(key)
    return summary if summary is not None and summary.task_id == leader_id else find_result(older_key(leader_id))


def find_run_result(key: str, task_id: str, run: str) -> Summary | None:
    """The result that a run published under this key, even if a newer run has replaced it; None if it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    candidates = map(find_result, (key, older_key(task_id)))
    return next((summary for summary in candidates if summary is not None and summary.run == run), None)


def key_of(task: Mapping[str, Any]) -> str | None:
    """The key under which the result of a task was published; None if it has none."""
    if task.get("partial"):
        return task["partial"]["redis_key"]
    outcome = json.loads(task["result"]) if task["status"] == states.SUCCESS else None
    return outcome.get("redis_key") if isinstance(outcome, dict) else None


def read_rows(summary: Summary, first: int, limit: int) -> list[dict[str, Any]] | None:
    """Up to ``limit`` rows, starting with row ``first``, counted from 0; None if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    numbers = range(first, min(first + limit, summary.count))
    lines = _lines(summary, numbers) if numbers else []
    # Check this last, to notice a result that was published during the read.
    current = find_result(summary.key)
    if lines is None or current is None or current.run != summary.run:
        return None
    return [json.loads(line) for line in lines]


def unmatched_rows(summary: Summary, name: str) -> list[tuple[int, dict[str, Any]]] | None:
    """The first rows in which the join that embeds the field ``name`` found no match.

    Returns:
        Pairs of a row's number, counted from 0, and the row; None if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    numbered = []
    for number in summary.unmatched[name].rows:
        row = read_rows(summary, number, 1)
        if row is None:
            return None
        numbered.append((number, row[0]))
    return numbered


def _lines(summary: Summary, numbers: range) -> list[bytes] | None:
    """The stored lines of these rows, read as one byte range; None if a full Redis has evicted a part of the result."""
    first_entry, first_row = _index_entry(summary, numbers[0])
    end_entry = _index_entry(summary, numbers[-1])[0] + 1
    count = end_entry - first_entry
    store = connections().results
    # The index entry after the last row marks the end of the byte range, unless the range ends with the result.
    first_byte, last_byte = first_entry * OFFSET.size, (end_entry + 1) * OFFSET.size - 1
    entries = ensure_bytes(store.getrange(index_key(summary.key), first_byte, last_byte))
    offsets = [offset for (offset,) in OFFSET.iter_unpack(entries)]
    if len(offsets) < count:
        return None
    end = offsets[count] - len(SEPARATOR) if len(offsets) > count else summary.bytes - len(b"]")
    text = ensure_bytes(store.getrange(summary.key, offsets[0], end - 1))
    if len(text) != end - offsets[0]:
        return None
    return text.split(SEPARATOR)[numbers[0] - first_row :][: len(numbers)]


def _index_entry(summary: Summary, row: int) -> tuple[int, int]:
    """The number of the last index entry at or before this row, and the number of the row that it points to."""
    entry = first_row = 0
    for segment in summary.segments:
        if row < first_row + segment:
            entries_before = (row - first_row) // PAGE_ROWS
            return entry + entries_before, first_row + entries_before * PAGE_ROWS
        entry += -(-segment // PAGE_ROWS)
        first_row += segment
    raise IndexError(row)


def read_chunks(summary: Summary) -> Iterator[bytes]:
    """Yields the whole value in chunks.

    Raises:
        ResultGone: the result expired or was replaced during the read, so the chunks yielded so far are incomplete.
        redis.exceptions.RedisError: Redis does not answer.
    """
    start = 0
    while start < summary.bytes:
        # Not a transaction, because a full Redis refuses those. The summary is read after the chunk, so it shows
        # whether the chunk still belongs to the same run.
        with connections().results.pipeline(transaction=False) as pipe:
            pipe.getrange(summary.key, start, start + CHUNK_BYTES - 1)
            pipe.get(summary_key(summary.key))
            chunk, text = pipe.execute()
        if text is None or summary.mark_of_run.encode() not in ensure_bytes(text) or not chunk:
            raise ResultGone(summary.key)
        yield chunk
        start += len(chunk)


def read_lines(summary: Summary) -> Iterator[bytes]:
    """Yields the documents as stored lines.

    Raises:
        ResultGone: the result expired or was replaced in the meantime.
        redis.exceptions.RedisError: Redis does not answer.
    """
    yield from split_lines(read_chunks(summary))


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Splits a complete value, given in chunks, into the stored lines of its documents."""
    buffer = b""
    for number, chunk in enumerate(chunks):
        buffer += chunk if number else chunk.removeprefix(b"[")
        *lines, buffer = buffer.split(SEPARATOR)
        yield from lines
    if last := buffer.removesuffix(b"]"):
        yield last


def keep(summary: Summary, expires_at: datetime) -> Summary | None:
    """Sets a new expiry for a result and its artifacts.

    Returns:
        The changed summary; None if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: the outcome is unknown.
    """
    kept = replace(summary, expires_at=expires_at, kept=True)
    until = int(expires_at.timestamp() * 1000)
    return kept if _run_script(_KEEP, summary, kept.to_json(), until) else None


def discard(summary: Summary) -> bool:
    """Deletes a result and its artifacts at once.

    Returns:
        False if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError: the outcome is unknown.
    """
    return bool(_run_script(_DISCARD, summary))


def _run_script(script: str, summary: Summary, *arguments: Any) -> Any:
    key = summary.key
    keys = [key, index_key(key), summary_key(key), outcome_key(summary.task_id), artifacts_key(summary.run)]
    return connections().results.eval(script, len(keys), *keys, summary.mark_of_run, *arguments)


def find_outcome(task_id: str) -> dict[str, Any] | None:
    """The return value of a task that has published a result; None if the result is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(outcome_key(task_id))
    return None if text is None else json.loads(text)


class Published(NamedTuple):
    """The return value of a task whose result is in Redis, and the matching fields of its document."""

    outcome: dict[str, Any]
    fields: dict[str, Any]


def find_published(task_id: str) -> Published | None:
    """The outcome of a task that has published its result, even if MongoDB has not recorded the outcome.

    Returns None if the task has no result in Redis.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    outcome = find_outcome(task_id)
    if outcome is None:
        return None
    summary = find_result(outcome["redis_key"])
    return Published(outcome, summary.fields if summary is not None and summary.task_id == task_id else {})

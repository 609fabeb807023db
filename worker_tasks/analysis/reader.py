"""What was derived from a result, as it is looked at: its profile, and the rows of a view, a page at a time."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from worker_tasks.analysis import artifacts
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.connections import Document, connections
from worker_tasks.results import result_store
from worker_tasks.results.result_store import PAGE_ROWS, SEPARATOR, ResultGone, Summary

#: Row numbers and offsets as they are kept.
NUMBER = struct.Struct("<I")


@dataclass(frozen=True)
class Row:
    """A row, and its number in the result, counted from 0."""

    number: int
    document: Document


def row_order_spec(view: RowQuery) -> ArtifactSpec:
    """The numbers of the rows of a view, in its order."""
    return ArtifactSpec(ArtifactKind.ORDER, view.to_document())


def profile_of(summary: Summary) -> Profile:
    """The profile that was built of a result.

    Raises:
        ResultGone: it is not there, or not any more.
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = artifacts.read_range(summary, artifacts.TABLE, "profile")
    if not text:
        raise ResultGone(f"{summary.key}: no profile")
    return Profile.from_document(json.loads(text))


def read_rows(summary: Summary, view: RowQuery, first: int, limit: int = PAGE_ROWS) -> list[Row]:
    """At most ``limit`` rows of a view that was ordered, from the ``first`` on, counted from 0.

    Raises:
        ResultGone: it is not there any more.
        redis.exceptions.RedisError: Redis does not answer.
    """
    end = (first + limit) * NUMBER.size - 1
    return read_rows_at(
        summary,
        unpack_numbers(artifacts.read_range(summary, row_order_spec(view), "numbers", first * NUMBER.size, end)),
    )


def read_rows_from_start(summary: Summary, first: int, limit: int) -> list[Row]:
    """The same of all rows as they were joined, which needs no order to be made.

    Raises:
        ResultGone: the result is not there any more.
        redis.exceptions.RedisError: Redis does not answer.
    """
    documents = result_store.read_rows(summary, first, limit)
    if documents is None:
        raise ResultGone(summary.key)
    return [Row(number, document) for number, document in enumerate(documents, start=first)]


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Row numbers or offsets as they are kept."""
    return b"".join(map(NUMBER.pack, numbers))


def unpack_numbers(data: bytes) -> list[int]:
    return [number for (number,) in NUMBER.iter_unpack(data)]


def read_rows_at(summary: Summary, numbers: list[int]) -> list[Row]:
    """The rows of these numbers, each as one byte range.

    Raises:
        ResultGone: the result, or its offsets, are not there any more.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if not numbers:
        return []
    store = connections().results
    offsets = artifacts.key_of(summary, artifacts.TABLE, "offsets")
    with store.pipeline(transaction=False) as pipe:
        for number in numbers:
            pipe.getrange(offsets, number * NUMBER.size, (number + 2) * NUMBER.size - 1)
        bounds = [unpack_numbers(pair) for pair in pipe.execute()]
    if any(len(pair) != 2 for pair in bounds):  # noqa: PLR2004 - where a row begins, and the next one
        raise ResultGone(f"{summary.key}: no offsets")
    # As in results.read_all.
    with store.pipeline(transaction=False) as pipe:
        for start, following in bounds:
            pipe.getrange(summary.key, start, following - len(SEPARATOR) - 1)
        pipe.get(result_store.summary_key(summary.key))
        *lines, text = pipe.execute()
    if text is None or summary.mark_of_run.encode() not in text:
        raise ResultGone(summary.key)
    return [Row(number, json.loads(line)) for number, line in zip(numbers, lines, strict=True)]

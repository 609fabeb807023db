"""Reads a result through its artifacts: its profile, and pages of rows from a query."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from worker_tasks.analysis import artifacts
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.connections import Document, connections
from worker_tasks.results import result_store, summaries
from worker_tasks.results.result_store import PAGE_ROWS, SEPARATOR, ResultGone
from worker_tasks.results.summaries import Summary

#: The stored form of row numbers and offsets.
NUMBER = struct.Struct("<I")


@dataclass(frozen=True)
class Row:
    """A row and its number in the result, counted from 0."""

    number: int
    document: Document


def row_order_spec(query: RowQuery) -> ArtifactSpec:
    """The spec of the artifact with the sorted row numbers of a query."""
    return ArtifactSpec(ArtifactKind.ORDER, query.to_document())


def profile_of(summary: Summary) -> Profile:
    """The profile of a result.

    Raises:
        ResultGone: the profile was not built, or has expired.
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = artifacts.read_range(summary, artifacts.TABLE, "profile")
    if not text:
        raise ResultGone(f"{summary.key}: no profile")
    return Profile.from_document(json.loads(text))


def read_rows(summary: Summary, query: RowQuery, first: int, limit: int = PAGE_ROWS) -> list[Row]:
    """Up to ``limit`` rows of a query, starting with row ``first``, counted from 0. Needs the query's row order.

    Raises:
        ResultGone: the result or the row order has expired.
        redis.exceptions.RedisError: Redis does not answer.
    """
    end = (first + limit) * NUMBER.size - 1
    return read_rows_at(
        summary,
        unpack_numbers(artifacts.read_range(summary, row_order_spec(query), "numbers", first * NUMBER.size, end)),
    )


def read_rows_from_start(summary: Summary, first: int, limit: int) -> list[Row]:
    """Up to ``limit`` rows in their original order, starting with row ``first``. Needs no artifact.

    Raises:
        ResultGone: the result has expired.
        redis.exceptions.RedisError: Redis does not answer.
    """
    documents = result_store.read_rows(summary, first, limit)
    if documents is None:
        raise ResultGone(summary.key)
    return [Row(number, document) for number, document in enumerate(documents, start=first)]


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Row numbers or offsets in their stored form, 4 bytes each."""
    return b"".join(map(NUMBER.pack, numbers))


def unpack_numbers(data: bytes) -> list[int]:
    return [number for (number,) in NUMBER.iter_unpack(data)]


def read_rows_at(summary: Summary, numbers: list[int]) -> list[Row]:
    """The rows with these numbers. Reads only their bytes, with two round trips to Redis.

    Raises:
        ResultGone: the result or its offsets have expired.
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
    if any(len(pair) != 2 for pair in bounds):  # noqa: PLR2004 - the starts of a row and of the next one
        raise ResultGone(f"{summary.key}: no offsets")
    # Read the summary in the same pipeline, to notice if a newer run has replaced the result.
    with store.pipeline(transaction=False) as pipe:
        for start, following in bounds:
            pipe.getrange(summary.key, start, following - len(SEPARATOR) - 1)
        pipe.get(summaries.summary_key(summary.key))
        *lines, text = pipe.execute()
    if text is None or summary.mark_of_run.encode() not in text:
        raise ResultGone(summary.key)
    return [Row(number, json.loads(line)) for number, line in zip(numbers, lines, strict=True)]

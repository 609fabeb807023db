"""Reads raw batches of documents from MongoDB, the next one while the caller handles the last."""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
from bson import Timestamp
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from worker_tasks.infra import sources
from worker_tasks.infra.errors import LimitExceeded
from worker_tasks.infra.settings import settings
from worker_tasks.joins.spec.sides import Side
from worker_tasks.results.result_writer import NARROW_HINT

#: Documents in the first batch.
FIRST_BATCH = 200
#: The largest possible batch size: the driver sends it as a signed 32-bit number.
MAX_BATCH_DOCUMENTS = 2**31 - 1
#: The target duration of a batch in seconds, and its maximum size in bytes.
BATCH_SECONDS, BATCH_BYTES = 0.25, 4 * 1024 * 1024
#: A timeout in the last seconds before the deadline counts as reaching it, because the driver stops waiting one round
#: trip early.
DEADLINE_SLACK = 1.0


class ReadFailed(Exception):
    """MongoDB did not return the next ``requested`` documents. The driver's error is the cause."""

    def __init__(self, requested: int):
        self.requested = requested
        super().__init__(requested)


@dataclass(frozen=True)
class ReadQuery:
    """An aggregation: ``pipeline`` on the collection ``side`` at ``snapshot``, marked with ``comment``.

    ``deadline`` is a time of ``time.monotonic()``. The documents in ``suspect``, counted from 0, are read one by one,
    because an earlier attempt failed to read them together.
    """

    side: Side
    pipeline: list[dict[str, Any]]
    comment: str
    deadline: float
    snapshot: Timestamp | None = None
    suspect: range = range(0)


def read_batches(query: ReadQuery) -> Generator[tuple[bytes, bool]]:
    """Yields each raw batch and whether more may follow. Fetches the next one while the caller handles the last."""
    deadline = query.deadline
    source = sources.find_source(query.side.source)
    suspect = query.suspect
    size = min(FIRST_BATCH, suspect.start or 1) if suspect else FIRST_BATCH
    fetched = 0

    def fetch() -> Any:
        nonlocal size, fetched
        started = time.monotonic()
        requested = min(size, _max_batch_size(suspect, fetched))
        # The time limit is set for each batch, because the driver keeps it per thread.
        with _read(requested, deadline):
            batch: Any = next(cursor.batch_size(requested), None)
        if suspect:
            fetched += _count_documents(batch or b"")
        size = next_batch_size(size, time.monotonic() - started, len(batch or b""))
        return batch

    with source.session(snapshot=query.snapshot is not None) as session:
        _set_snapshot(session, query.snapshot)
        with _read(size, deadline):
            cursor = source.database(query.side.database)[query.side.collection].aggregate_raw_batches(
                query.pipeline,
                session=session,
                comment=query.comment,
                allowDiskUse=True,
                batchSize=size,
            )
        with closing(cursor):
            batch = fetch()
            if batch is None or not cursor.alive:
                yield batch or b"", False
                return
            with ThreadPoolExecutor(1, "fetch") as fetcher:
                while batch is not None:
                    ahead = fetcher.submit(fetch)
                    try:
                        yield batch, True
                    except GeneratorExit:
                        # The caller stopped early. This ends the operation for which the fetching thread waits.
                        source.kill(query.comment)
                        raise
                    batch = ahead.result()


def too_long() -> LimitExceeded:
    """The failure of a join that reached its time limit."""
    return LimitExceeded(f"It took longer than {settings().join_seconds:,g} s, which is the limit. {NARROW_HINT}")


@contextmanager
def _read(requested: int, deadline: float) -> Iterator[None]:
    """Limits a read from MongoDB to the deadline and translates the driver's errors.

    Raises:
        LimitExceeded: the deadline passed.
        ReadFailed: the driver raised another error.
    """
    try:
        with pymongo.timeout(max(0.001, deadline - time.monotonic())):
            yield
    except PyMongoError as error:
        if error.timeout and time.monotonic() > deadline - DEADLINE_SLACK:
            raise too_long() from error
        raise ReadFailed(requested) from error


def _max_batch_size(suspect: range, fetched: int) -> int:
    """The size of the largest batch after ``fetched`` documents with which each suspect document arrives alone."""
    if not suspect or fetched >= suspect.stop:
        return MAX_BATCH_DOCUMENTS
    return max(suspect.start - fetched, 1)


def _count_documents(batch: bytes) -> int:
    """Counts concatenated BSON documents. Each starts with its length: https://bsonspec.org/spec.html."""
    count = offset = 0
    while offset < len(batch):
        offset += int.from_bytes(batch[offset : offset + 4], "little")
        count += 1
    return count


def next_batch_size(documents: int, seconds: float, size: int) -> int:
    """The number of documents for the next batch, after one of ``documents`` took ``seconds`` and ``size`` bytes.

    The first rows arrive soon, later batches are large enough to be fast, and each stays small in memory.
    """
    if size > BATCH_BYTES or seconds > BATCH_SECONDS * 2:
        return max(documents // 2, 1)
    if seconds < BATCH_SECONDS / 2 and size * 4 <= BATCH_BYTES:
        return documents * 4
    return documents


def _set_snapshot(session: ClientSession, snapshot: Timestamp | None) -> None:
    """Makes a snapshot session read at the time of another session's snapshot."""
    if snapshot is not None:
        session._snapshot_time = snapshot  # type: ignore[assignment]  # noqa: SLF001 - the driver has no public way

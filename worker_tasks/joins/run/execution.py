"""Runs one part of a join: MongoDB's raw batches to JSON lines in Redis, in bounded memory, until done or stopped."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
from bson import Timestamp
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from worker_tasks.infra.errors import LimitExceeded
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.run.encoding import LineEncoder
from worker_tasks.results.result_store import Unmatched
from worker_tasks.results.result_writer import NARROW_HINT, Part, PartWriter

#: Seconds between two reports of how far a part is.
REPORT_SECONDS = 0.25
#: Documents that are asked for at first.
FIRST_BATCH = 200
#: Documents that are asked for at most: what MongoDB's 32 bits hold.
MOST_DOCUMENTS = 2**31 - 1
#: Seconds that one batch should take about, and bytes that it should have at most.
BATCH_SECONDS, BATCH_BYTES = 0.25, 4 * 1024 * 1024
#: Seconds before its deadline from which on an operation that timed out is taken to have met it: the driver stops
#: waiting a round trip earlier.
DEADLINE_SLACK = 1.0


class Stopped(Exception):
    """The run was told to stop."""


class ReadFailed(Exception):
    """MongoDB did not give the next documents, of which so many were ``asked`` for. Its cause is the driver's error."""

    def __init__(self, asked: int):
        self.asked = asked
        super().__init__(asked)


@dataclass(frozen=True)
class PartQuery:
    """What is run: ``pipeline`` on ``database.collection`` at ``snapshot``, marked with ``comment``.

    ``watched`` are the fields that joins bring in where a row may match nothing. The documents in ``suspect``, counted
    from 0, are read one by one, because reading them together failed before.
    """

    database: str
    collection: str
    pipeline: list[dict[str, Any]]
    comment: str
    snapshot: Timestamp | None = None
    unmatched_fields: Sequence[str] = ()
    suspect: range = range(0)


#: Told the rows and bytes so far; whether to stop.
Report = Callable[[int, int], bool]


def write_part(aggregate: PartQuery, writer: PartWriter, report: Report) -> Part:
    """Joins, and writes every row. What was written when this raises stays: ``writer.close()`` tells how much.

    Raises:
        Stopped: ``report`` said so, and nothing of it runs any more.
        ReadFailed: MongoDB is away, or refuses, or broke it off.
        LimitExceeded: the rows, bytes or seconds of the settings are used up.
        StagingLost, redis.exceptions.RedisError: Redis is away, refuses, or has lost what was written.
    """
    writer.unmatched = {name: Unmatched() for name in aggregate.unmatched_fields}
    lines = LineEncoder(writer.columns, writer.unmatched)
    next_report = 0.0
    try:
        with closing(_batches(aggregate)) as batches:
            for batch, more in batches:
                for piece in lines.encode(batch):
                    try:
                        writer.append(piece)
                    finally:
                        lines.note_unmatched(writer.rows)
                    if not more or time.monotonic() < next_report:
                        continue
                    # What was reported can be read as well.
                    writer.flush()
                    if report(writer.rows, writer.size):
                        raise Stopped
                    next_report = time.monotonic() + REPORT_SECONDS
    except ReadFailed as failed:
        # Killed, most likely, because the run is to stop, or its part was begun by another writer.
        if report(writer.rows, writer.size):
            raise Stopped from failed
        raise
    return writer.close()


def _batches(aggregate: PartQuery) -> Generator[tuple[bytes, bool]]:
    """The raw batches, and whether more may come; the next one is fetched while the last one is worked on."""
    deadline = time.monotonic() + settings().join_seconds
    source = default_source()
    suspect = aggregate.suspect
    size = min(FIRST_BATCH, suspect.start or 1) if suspect else FIRST_BATCH
    fetched = 0

    def fetch() -> Any:
        nonlocal size, fetched
        began = time.monotonic()
        asked = min(size, _documents_until(suspect, fetched))
        # Said anew each time, because the driver's time limit belongs to a thread.
        with _read(asked, deadline):
            batch: Any = next(cursor.batch_size(asked), None)
        if suspect:
            fetched += _documents_in(batch or b"")
        size = next_batch_size(size, time.monotonic() - began, len(batch or b""))
        return batch

    with source.session(snapshot=aggregate.snapshot is not None) as session:
        _read_at(session, aggregate.snapshot)
        with _read(size, deadline):
            cursor = source.database(aggregate.database)[aggregate.collection].aggregate_raw_batches(
                aggregate.pipeline,
                session=session,
                comment=aggregate.comment,
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
                        # Left before the end: the server must not go on for nobody, and the thread waits for it.
                        source.kill(aggregate.comment)
                        raise
                    batch = ahead.result()


@contextmanager
def _read(asked: int, deadline: float) -> Iterator[None]:
    """Asks MongoDB for documents until the deadline.

    Raises:
        LimitExceeded: that has come.
        ReadFailed: MongoDB raised something else.
    """
    try:
        with pymongo.timeout(max(0.001, deadline - time.monotonic())):
            yield
    except PyMongoError as error:
        if error.timeout and time.monotonic() > deadline - DEADLINE_SLACK:
            seconds = settings().join_seconds
            raise LimitExceeded(f"It took longer than {seconds:,g} s, which is the limit. {NARROW_HINT}") from error
        raise ReadFailed(asked) from error


def _documents_until(suspect: range, fetched: int) -> int:
    """How many documents can be asked for at once after so many, so that the suspect ones come one by one."""
    if not suspect or fetched >= suspect.stop:
        return MOST_DOCUMENTS
    return max(suspect.start - fetched, 1)


def _documents_in(batch: bytes) -> int:
    """How many BSON documents these are: each begins with its length, https://bsonspec.org/spec.html."""
    count = at = 0
    while at < len(batch):
        at += int.from_bytes(batch[at : at + 4], "little")
        count += 1
    return count


def next_batch_size(documents: int, seconds: float, size: int) -> int:
    """How many documents to ask for next, after so many took so long and were so many bytes.

    The first rows come soon, all of them fast, and no batch takes much memory.
    """
    if size > BATCH_BYTES or seconds > BATCH_SECONDS * 2:
        return max(documents // 2, 1)
    if seconds < BATCH_SECONDS / 2 and size * 4 <= BATCH_BYTES:
        return documents * 4
    return documents


def _read_at(session: ClientSession, snapshot: Timestamp | None) -> None:
    """Makes a snapshot session read at an instant that another one has read at."""
    if snapshot is not None:
        session._snapshot_time = snapshot  # type: ignore[assignment]  # noqa: SLF001 - the driver has no public way

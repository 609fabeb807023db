"""Runs one part of a join: MongoDB's raw batches to JSON lines in Redis, in bounded memory, until done or stopped."""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pymongo
from bson import Timestamp
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from worker_tasks.connections import connections
from worker_tasks.joins import stopping
from worker_tasks.joins.encoding import Lines
from worker_tasks.results import Unmatched
from worker_tasks.settings import settings
from worker_tasks.staging import Part, PartWriter

#: Seconds between two reports of how far a part is.
REPORT_SECONDS = 0.25
#: Documents that are asked for at first.
FIRST_BATCH = 200
#: Seconds that one batch should take about, and bytes that it should have at most.
BATCH_SECONDS, BATCH_BYTES = 0.25, 4 * 1024 * 1024
#: MongoDB's codes for an operation that was killed: Interrupted, CursorKilled, CursorNotFound, NoSuchSession,
#: TransactionTooOld (what a killed session answers), and QueryPlanKilled.
KILLED = frozenset({11601, 237, 43, 206, 225, 175})


class Stopped(Exception):
    """The run was told to stop."""


@dataclass(frozen=True)
class Aggregate:
    """What is run: ``pipeline`` on ``database.collection`` at ``snapshot``, marked with ``comment``.

    ``watched`` are the fields that joins bring in where a row may match nothing.
    """

    database: str
    collection: str
    pipeline: list[dict[str, Any]]
    comment: str
    snapshot: Timestamp | None = None
    watched: Sequence[str] = ()


#: Told the rows and bytes so far; whether to stop.
Report = Callable[[int, int], bool]


def write(aggregate: Aggregate, writer: PartWriter, report: Report) -> Part:
    """Joins, and writes every row. What was written when this raises stays: ``writer.close()`` tells how much.

    Raises:
        Stopped: ``report`` said so, and nothing of it runs any more.
        LimitExceeded: the rows, bytes or seconds of the settings are used up.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away, or refuses.
    """
    writer.unmatched = {name: Unmatched() for name in aggregate.watched}
    lines = Lines(writer.columns, writer.unmatched)
    next_report = 0.0
    try:
        with closing(_batches(aggregate)) as batches:
            for batch, more in batches:
                for piece in lines.encode(batch):
                    writer.append(piece)
                    if not more or time.monotonic() < next_report:
                        continue
                    # What was reported can be read as well.
                    writer.flush()
                    if report(writer.rows, writer.size):
                        raise Stopped
                    next_report = time.monotonic() + REPORT_SECONDS
    except OperationFailure as error:
        if error.code in KILLED and report(writer.rows, writer.size):
            raise Stopped from error
        raise
    return writer.close()


def _batches(aggregate: Aggregate) -> Generator[tuple[bytes, bool]]:
    """The raw batches, and whether more may come; the next one is fetched while the last one is worked on."""
    deadline = time.monotonic() + settings().join_seconds
    client = connections().joins

    size = FIRST_BATCH

    def fetch() -> Any:
        nonlocal size
        began = time.monotonic()
        # Said anew each time, because the driver's time limit belongs to a thread.
        with pymongo.timeout(max(0.001, deadline - began)):
            batch = next(cursor.batch_size(size), None)
        size = next_batch_size(size, time.monotonic() - began, len(batch or b""))
        return batch

    with client.start_session(snapshot=aggregate.snapshot is not None) as session:
        _read_at(session, aggregate.snapshot)
        with pymongo.timeout(settings().join_seconds):
            cursor = client[aggregate.database][aggregate.collection].aggregate_raw_batches(
                aggregate.pipeline,
                session=session,
                comment=aggregate.comment,
                allowDiskUse=True,
                batchSize=FIRST_BATCH,
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
                        stopping.kill(aggregate.comment)
                        raise
                    batch = ahead.result()


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

"""Runs an aggregation as one part of a join: its documents become rows in Redis, in bounded memory."""

from collections.abc import Sequence
from contextlib import closing

from worker_tasks.joins.reading.batches import ReadFailed, ReadQuery, read_batches
from worker_tasks.joins.reading.encoding import LineEncoder
from worker_tasks.joins.reading.progress import Progress
from worker_tasks.results.result_writer import Part, PartWriter
from worker_tasks.results.summaries import Unmatched


def write_aggregation(
    query: ReadQuery, unmatched_fields: Sequence[str], writer: PartWriter, progress: Progress
) -> Part:
    """Runs an aggregation and writes every document as a row.

    Rows written before an error stay; ``writer.close()`` returns their number.

    Raises:
        Stopped: ``report`` asked to stop, and MongoDB no longer works on the part.
        ReadFailed: MongoDB is away, refused, or ended the aggregation early.
        LimitExceeded: the settings' limit of rows, bytes or seconds is reached.
        StagingLost, redis.exceptions.RedisError: Redis is away, refuses, or has lost written rows.
    """
    writer.unmatched = {name: Unmatched() for name in unmatched_fields}
    encoder = LineEncoder(writer.columns, writer.unmatched)
    try:
        with closing(read_batches(query)) as batches:
            for batch, more in batches:
                for lines in encoder.encode(batch):
                    try:
                        writer.append(lines)
                    finally:
                        encoder.note_unmatched(writer.rows)
                    if more:
                        progress.tick()
    except ReadFailed:
        # The operation was most likely killed, because the run was told to stop or another writer took over the part.
        progress.now()
        raise
    return writer.close()

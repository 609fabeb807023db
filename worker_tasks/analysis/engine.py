"""DuckDB as artifacts use it: a scratch database within the limits of the settings."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from worker_tasks.analysis import reader
from worker_tasks.infra import scratch_database
from worker_tasks.infra.settings import settings

#: The longest JSON of a row in bytes: MongoDB's limit for a document, and room for its growth as JSON.
MAX_ROW_BYTES = 64 * 1024 * 1024
#: Row numbers fetched at once.
FETCHED = 50_000


def open_database() -> AbstractContextManager[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Opens a scratch database for one artifact; see :func:`worker_tasks.infra.scratch_database.open_database`."""
    return scratch_database.open_database(settings().reading_memory_mib, settings().reading_seconds)


def fetch_numbers(executed: duckdb.DuckDBPyConnection) -> Iterator[bytes]:
    """Yields the row numbers that an executed query returns, packed."""
    while rows := executed.fetchmany(FETCHED):
        yield reader.pack_numbers(number for (number,) in rows)

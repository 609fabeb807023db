"""DuckDB as the worker uses it: one temporary database per job, limited in memory and time."""

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from worker_tasks.analysis import reader
from worker_tasks.infra.settings import settings

#: The longest JSON of a row in bytes: MongoDB's limit for a document, and room for its growth as JSON.
MAX_ROW_BYTES = 64 * 1024 * 1024
#: Seconds between two interruptions once the time limit has passed.
INTERRUPT_SECONDS = 0.05
#: The operating system's messages for a full disk. DuckDB and other libraries pass on only the text.
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
#: DuckDB's message when its temporary files reach its own limit, which it sets to the space that was free.
_NO_ROOM_TO_SPILL = "max_temp_directory_size"
#: Row numbers fetched at once.
FETCHED = 50_000


@contextmanager
def open_database() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Yields a new database and its folder. Deletes both afterwards.

    Raises:
        duckdb.InterruptException: a query passed the settings' time limit.
        duckdb.OutOfMemoryException: a query needs more memory than the settings allow.
    """
    with tempfile.TemporaryDirectory(prefix="dovetail-") as name:
        folder = Path(name)
        database = duckdb.connect(
            folder / "work.duckdb",
            config={
                "memory_limit": f"{settings().reading_memory_mib}MiB",
                # One thread, like the worker's other child processes.
                "threads": 1,
                "temp_directory": str(folder / "spilled"),
                # The package contains all extensions in use. DuckDB downloads nothing.
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        over = threading.Event()
        limit = threading.Thread(target=_interrupt, args=(database, over), name="limit", daemon=True)
        limit.start()
        try:
            yield database, folder
        finally:
            over.set()
            limit.join()
            database.close()


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that the disk had no room for a file."""
    # Messages of other DuckDB errors may quote values of the result.
    if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return False
    return any(text in str(error) for text in (*_NO_ROOM, _NO_ROOM_TO_SPILL))


def _interrupt(database: duckdb.DuckDBPyConnection, over: threading.Event) -> None:
    """Interrupts every query after the time limit. Repeats, because an interrupt between two queries has no effect."""
    seconds = settings().reading_seconds
    while not over.wait(seconds):
        database.interrupt()
        seconds = INTERRUPT_SECONDS


def fetch_numbers(executed: duckdb.DuckDBPyConnection) -> Iterator[bytes]:
    """Yields the row numbers that an executed query returns, packed."""
    while rows := executed.fetchmany(FETCHED):
        yield reader.pack_numbers(number for (number,) in rows)


def literal(text: str) -> str:
    """Quotes a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quotes a name for SQL."""
    return '"' + name.replace('"', '""') + '"'

"""DuckDB, as it is used here: a database in a folder of its own for each piece of work, bounded in memory and time."""

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

#: Bytes of one row's JSON: what MongoDB allows a document, and what writing it as JSON may add.
MAX_ROW_BYTES = 64 * 1024 * 1024
#: Seconds between two interruptions of what takes too long.
INTERRUPT_SECONDS = 0.05
#: What the operating system says of a file that it has no room for. DuckDB and others keep only the text.
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
#: DuckDB limits what it puts on the disk to what was free there.
_NO_ROOM_TO_SPILL = "max_temp_directory_size"
#: Row numbers that are fetched at once.
FETCHED = 50_000


@contextmanager
def open_database() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A database and the folder that it is in, both gone afterwards.

    Raises:
        duckdb.InterruptException: it took longer than the settings allow.
        duckdb.OutOfMemoryException: it needs more memory than the settings allow.
    """
    with tempfile.TemporaryDirectory(prefix="dovetail-") as name:
        folder = Path(name)
        database = duckdb.connect(
            folder / "work.duckdb",
            config={
                "memory_limit": f"{settings().reading_memory_mib}MiB",
                # As many as the worker's other children have: one.
                "threads": 1,
                "temp_directory": str(folder / "spilled"),
                # All that is used is part of the package; nothing is fetched from anywhere.
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
    """Whether there is no room for a file that was to be written."""
    # The texts of others may hold values of the result.
    if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return False
    return any(text in str(error) for text in (*_NO_ROOM, _NO_ROOM_TO_SPILL))


def _interrupt(database: duckdb.DuckDBPyConnection, over: threading.Event) -> None:
    """Ends what takes too long: each query from then on, because between two of them there is nothing to end."""
    seconds = settings().reading_seconds
    while not over.wait(seconds):
        database.interrupt()
        seconds = INTERRUPT_SECONDS


def fetch_numbers(found: duckdb.DuckDBPyConnection) -> Iterator[bytes]:
    """The row numbers that a query finds, packed."""
    while rows := found.fetchmany(FETCHED):
        yield reader.pack_numbers(number for (number,) in rows)


def literal(text: str) -> str:
    """A text as it is written in SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as it is written in SQL."""
    return '"' + name.replace('"', '""') + '"'

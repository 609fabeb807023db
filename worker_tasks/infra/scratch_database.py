"""A temporary DuckDB database, limited in memory, disk and time. Workers only: the web process never loads DuckDB."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from worker_tasks.infra.scratch_folders import open_folder

#: Seconds between two interruptions once the time limit has passed.
INTERRUPT_SECONDS = 0.05
#: The operating system's messages for a full disk. DuckDB and other libraries pass on only the text.
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
#: DuckDB's message when its temporary files reach the limit that it got.
_NO_ROOM_TO_SPILL = "max_temp_directory_size"
#: The share of the free disk space that temporary files may take.
SPILLED_SHARE = 0.8
#: The share of that limit from which on there is no room for one more block.
NEARLY_ALL = 0.8
#: The folder of the temporary files.
SPILLED = "spilled"


@contextmanager
def open_database(memory_mib: int, seconds: float) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Yields a new database and its folder. Deletes both afterwards.

    Args:
        memory_mib: the memory limit in MiB. Larger data goes to temporary files in the folder.
        seconds: the time limit of all queries together.

    Raises:
        duckdb.InterruptException: a query passed the time limit.
        duckdb.OutOfMemoryException: a query needs more memory, or more disk space, than it may take.
    """
    with open_folder() as folder:
        database = duckdb.connect(
            folder / "work.duckdb",
            config={
                "memory_limit": f"{memory_mib}MiB",
                # One thread, like the worker's other child processes.
                "threads": 1,
                "temp_directory": str(folder / SPILLED),
                "max_temp_directory_size": f"{int(shutil.disk_usage(folder).free * SPILLED_SHARE)}B",
                # The package contains all extensions in use. DuckDB downloads nothing.
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        over = threading.Event()
        limit = threading.Thread(target=_interrupt, args=(database, over, seconds), name="limit", daemon=True)
        limit.start()
        try:
            yield database, folder
        finally:
            over.set()
            limit.join()
            database.close()


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that the disk had no room for a file."""
    # Messages of other DuckDB errors may quote values of the data.
    if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return False
    return any(text in str(error) for text in (*_NO_ROOM, _NO_ROOM_TO_SPILL))


def has_spilled_all(folder: Path) -> bool:
    """Whether the temporary files in a database's folder have reached their limit.

    DuckDB then runs out of memory, and its message does not always name the limit.
    """
    spilled = sum(file.stat().st_size for file in (folder / SPILLED).glob("*"))
    return spilled > NEARLY_ALL * SPILLED_SHARE * (shutil.disk_usage(folder).free + spilled)


def literal(text: str) -> str:
    """Quotes a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quotes a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _interrupt(database: duckdb.DuckDBPyConnection, over: threading.Event, seconds: float) -> None:
    """Interrupts every query after the time limit. Repeats, because an interrupt between two queries has no effect."""
    while not over.wait(seconds):
        database.interrupt()
        seconds = INTERRUPT_SECONDS

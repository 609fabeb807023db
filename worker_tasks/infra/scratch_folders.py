"""Temporary folders for data of workers, deleted even if the process that uses one is killed.

The process holds a lock on its folder. The kernel releases the lock when the process ends, however it ends, so a folder
without a lock is abandoned. A process id in the name would not do: another container gives the same ids again.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "dovetail-scratch-"


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yields a new temporary folder and deletes it afterwards. Deletes abandoned ones first, to make room."""
    remove_abandoned()
    folder, lock = _create()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> int:
    """Deletes the folders that killed processes of this user left behind. Returns their number."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            removed += 1
    return removed


def _create() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Another process may take the folder for an abandoned one and delete it before it is locked.
        if (lock := _lock(folder, fcntl.LOCK_EX)) is not None:
            return folder, lock


def _lock(folder: Path, operation: int) -> int | None:
    """Locks a folder. Returns the lock's file descriptor; None if the folder is gone, in use, or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, operation)
        if os.fstat(descriptor).st_uid == os.geteuid() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None

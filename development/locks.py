"""A file lock that the system releases when its holder ends, even if the holder is killed."""

import fcntl


def take_lock(file: int) -> bool:
    """Locks this open file for us and every process that inherits it; False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

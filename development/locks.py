"""A lock that the system drops when its holder ends, however it ends."""

import fcntl


def take_lock(file: int) -> bool:
    """Take the lock on this open file for ourselves and whoever inherits it; false if another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

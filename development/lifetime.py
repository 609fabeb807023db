"""No process outlives the one that started it, even if that one is killed."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """For `preexec_fn` of a child process: Linux then sends it this signal when we end. Elsewhere nothing does.

    Linux means the thread that starts the child, not the process: start it from a thread that stays.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child must not take locks
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # we ended before the call
            os.kill(os.getpid(), number)

    return in_child

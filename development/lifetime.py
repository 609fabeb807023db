"""Ends child processes when their parent ends, even if the parent is killed."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Returns a `preexec_fn` with which Linux sends the child this signal when we end; None on other systems.

    Linux watches the thread that starts the child, not the process. Start the child from a long-lived thread.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork, because the child must not take locks
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # we ended before the call
            os.kill(os.getpid(), number)

    return in_child

"""bin/test: the whole suite, or what the arguments say, on servers and a browser of its own.

The tests run in several pytest workers at once, each with servers of its own. Arguments go to pytest, except for a
leading `quick`, which leaves out what is slow.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from development.browser import BrowserError, find_browser

# The tests start servers of their own; a developer's or a platform's must never be written to.
SERVERS = ["REDIS_URL", "CELERY_BROKER_URL", "RESULTS_REDIS_URL", "REDIS_SENTINELS", "MONGODB_URI", "MONGODB_HOST"]
#: What `bin/test quick` leaves out, besides the tests that are marked as slow.
SLOW_FOLDERS = ["tests/soak", "tests/faults", "tests/browser", "tests/development"]
QUICK = [*(f"--ignore={folder}" for folder in SLOW_FOLDERS), "-m", "not slow"]
#: A file's tests share its fixtures, so they stay together; files start in the order of tests/conftest.py.
IN_PARALLEL = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
#: Twice what the servers, processes and browser of one pytest worker were seen to take.
WORKER_MEMORY = 3 * 1024**3 // 2


def main() -> None:
    for name in SERVERS:
        os.environ.pop(name, None)
    try:
        browser = find_browser()
    except BrowserError as error:
        sys.exit(str(error))
    if browser:
        os.environ["CHROMIUM"] = browser
    # The Procfile's commands name their programs as they do on a platform: by PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ.setdefault("PYTEST_XDIST_AUTO_NUM_WORKERS", str(worker_count()))
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments(sys.argv[1:])])


def pytest_arguments(given: Sequence[str]) -> list[str]:
    """The arguments of pytest for those of bin/test."""
    if given[:1] == ["quick"]:
        return [*IN_PARALLEL, *QUICK, *given[1:]]
    names_files = any(Path(argument.partition("::")[0]).is_file() for argument in given)
    return list(given) if names_files else [*IN_PARALLEL, *given]


def worker_count() -> int:
    """One more than there are CPUs, since many tests mostly wait; fewer where the memory does not suffice."""
    return max(1, min(len(os.sched_getaffinity(0)) + 1, available_memory() // WORKER_MEMORY))


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


if __name__ == "__main__":
    main()

"""bin/test runs the whole suite, or the tests that the arguments select.

Several pytest workers run at once, each with its own servers. Arguments go to pytest, except for a leading `quick`,
which leaves out slow tests, and `--mongodb-uri URI`, which runs the tests one at a time on your own empty MongoDB.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from development.browser import BrowserError, find_browser

# The tests start their own servers and must never write to a developer's or a platform's.
SERVERS = ["REDIS_URL", "CELERY_BROKER_URL", "RESULTS_REDIS_URL", "REDIS_SENTINELS", "MONGODB_URI", "MONGODB_HOST"]
#: Folders that `bin/test quick` leaves out, in addition to tests marked as slow.
SLOW_FOLDERS = ["tests/soak", "tests/faults", "tests/browser", "tests/development"]
QUICK = [*(f"--ignore={folder}" for folder in SLOW_FOLDERS), "-m", "not slow"]
#: A file's tests share fixtures, so they run in one worker; files start in the order that tests/conftest.py sets.
IN_PARALLEL = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
#: Memory for one pytest worker: twice the bytes measured for its servers, processes and browser.
WORKER_MEMORY = 3 * 1024**3 // 2


def main() -> None:
    for name in SERVERS:
        os.environ.pop(name, None)
    if sys.argv[1:2] == ["--mongodb-uri"]:
        if len(sys.argv) == 2:  # noqa: PLR2004 - the option alone
            sys.exit("--mongodb-uri needs the URI of an empty MongoDB server.")
        os.environ["TEST_MONGODB_URI"] = sys.argv[2]
    try:
        browser = find_browser()
    except BrowserError as error:
        sys.exit(str(error))
    if browser:
        os.environ["CHROMIUM"] = browser
    # As on a platform, the Procfile's commands find their programs on PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ.setdefault("PYTEST_XDIST_AUTO_NUM_WORKERS", str(worker_count()))
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments(sys.argv[1:])])


def pytest_arguments(arguments: Sequence[str]) -> list[str]:
    """Translates the arguments of bin/test into arguments of pytest."""
    if arguments[:1] == ["--mongodb-uri"]:
        # The workers would share its databases.
        return ["--numprocesses=0", *arguments[2:]]
    if arguments[:1] == ["quick"]:
        return [*IN_PARALLEL, *QUICK, *arguments[1:]]
    names_files = any(Path(argument.partition("::")[0]).is_file() for argument in arguments)
    return list(arguments) if names_files else [*IN_PARALLEL, *arguments]


def worker_count() -> int:
    """Returns one worker more than there are CPUs, because tests wait half of the time; limited by memory."""
    return max(1, min(len(os.sched_getaffinity(0)) + 1, available_memory() // WORKER_MEMORY))


def available_memory() -> int:
    """Returns the bytes that can be allocated without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


if __name__ == "__main__":
    main()

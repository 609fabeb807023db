"""Runs Celery's own integration tests on stock Celery and on our application: ``python -m tests.celery_suite``.

Downloads Celery's source distribution with pip, starts Redis and MongoDB, runs the same tests twice and prints the
tests that pass on stock Celery but not on ours. docs/celery.md lists the tests that fail by design.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path

from development.servers import Server, start_mongodb, start_redis
from tests.support import ROOT

MODULES = ("test_tasks", "test_inspect", "test_group_chains", "test_canvas")
STOCK, OURS = "stock", "ours"
MARKERS = ("flaky", "timeout", "amqp", "masked_modules", "patched_environ", "patched_module", "sleepdeprived")
#: The time limit for one test in seconds. It exceeds the 60 s that the suite itself waits for a result.
TEST_SECONDS = 75
#: Tests that pass on stock Celery and fail on ours by design, with the reason.
BY_DESIGN = {
    "test_inspect.py::test_Inspect::test_active": "acknowledged late: a running task is not acknowledged yet",
    "test_inspect.py::test_Inspect::test_query_task": "acknowledged late: a running task is not acknowledged yet",
    "test_tasks.py::test_tasks::test_send_task_without_ignore_result_uses_task_ignore_result": (
        "the document has the final state although the result is ignored"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.celery_suite", description=__doc__)
    parser.add_argument(
        "modules", nargs="*", default=MODULES, metavar="module", help=f"one or more of {', '.join(MODULES)}"
    )
    parser.add_argument("--only", choices=(STOCK, OURS), help="do only one of the two runs")
    parser.add_argument("-k", dest="expression", default="", help="pytest's -k")
    parser.add_argument("--minutes", type=float, default=25, help="time limit of each run (default: 25)")
    parser.add_argument("--folder", help="an empty folder in which to keep the logs")
    options = parser.parse_args()
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = download(folder)
        sides = [options.only] if options.only else [STOCK, OURS]
        outcomes = {side: run(side, tests, folder, options) for side in sides}
    sys.exit(report(outcomes))


def download(folder: Path) -> Path:
    """Downloads the test suite of the installed Celery version; returns its folder."""
    package = f"celery=={version('celery')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", package]
    subprocess.run([*command, "--dest", str(folder)], check=True, timeout=300)
    (archive,) = folder.glob("celery-*.tar.gz")
    with tarfile.open(archive) as source:
        for entry in source:
            # Extract only the tests, because they must run against the installed Celery.
            if entry.isfile() and Path(entry.name).parts[1] == "t" and ".." not in entry.name:
                source.extract(entry, folder)
    suite = folder / archive.name.removesuffix(".tar.gz")
    markers = "".join(f"\n  {marker}" for marker in MARKERS)
    (suite / "pytest.ini").write_text(f"[pytest]\npython_classes = test_*\nmarkers ={markers}\n")
    return suite


def run(side: str, suite: Path, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Runs the tests, then the failed ones once more by themselves; returns the outcome of each test by name."""
    started = time.monotonic()
    with start_redis(folder / f"{side}-redis") as redis, start_mongodb(folder / f"{side}-mongodb") as mongodb:
        (suite / "integration-tests-config.json").write_text(json.dumps(config(side)))
        log = folder / f"{side}.jsonl"
        names = [f"t/integration/{module}.py" for module in options.modules]
        first = _pytest(side, suite, log, (redis, mongodb), [*names, "-k", options.expression], options.minutes * 60)
        left = options.minutes * 60 - (time.monotonic() - started)
        failed = [name for name, outcome in first.items() if outcome == "failed"]
        again = _pytest(side, suite, log, (redis, mongodb), failed, left) if failed and left > 0 else {}
    print(f"{side}: {_counts(first)}; {len(failed)} failed, run again: {_counts(again)}; ", end="")
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    return first | again


def config(side: str) -> dict[str, object]:
    """Returns the settings to add to the suite's own."""
    # We store no raw arguments with results. Polling chords more often saves time.
    both = {"result_extended": False, "result_chord_retry_interval": 0.1}
    # The suite expects a single queue.
    return both | ({"task_queues": None} if side == OURS else {})


def _pytest(
    side: str, suite: Path, log: Path, servers: tuple[Server, Server], arguments: list[str], seconds: float
) -> dict[str, str]:
    redis, mongodb = servers
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{suite}",
        "CELERY_SUITE_SIDE": side,
        "CELERY_SUITE_LOG": str(log),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_URL": redis.url,
        "MONGODB_URI": mongodb.url,
        "TEST_BROKER": f"{redis.url}/0",
        "TEST_BACKEND": f"mongodb://127.0.0.1:{mongodb.port}/stock",
    }
    if side == OURS:
        environment |= {"TEST_BACKEND": "worker_tasks.queue.backend:MetadataBackend", "REMAP_SIGTERM": "SIGQUIT"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "celery.contrib.pytest",
        "-p",
        "tests.celery_suite.plugin",
        "-c",
        "pytest.ini",
        "--rootdir",
        ".",
    ]
    command += ["-q", "--no-header", "--tb", "line", "-p", "no:cacheprovider", "-p", "no:playwright"]
    command += ["--timeout", str(TEST_SECONDS)]
    log.unlink(missing_ok=True)
    output = log.with_suffix(".log")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=suite,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"{side}: not finished after {seconds / 60:.0f} minutes; the remaining tests are not compared")
        finally:
            # The process group includes the children of the worker.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not log.exists():
        sys.exit(f"{side}: no test ran\n{output.read_text()[-4000:]}")
    return dict(json.loads(line) for line in log.read_text().splitlines())


def _counts(outcomes: dict[str, str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(Counter(outcomes.values()).items())) or "none"


def report(outcomes: dict[str, dict[str, str]]) -> int:
    """Prints the differences between the two runs; returns 1 if there is an unexpected one."""
    if len(outcomes) == 1:
        ((_, alone),) = outcomes.items()
        _list("failed", (name for name, outcome in alone.items() if outcome == "failed"))
        return int("failed" in alone.values())
    stock, ours = outcomes[STOCK], outcomes[OURS]
    passed = [name for name, outcome in stock.items() if outcome == "passed"]
    comparable = [name for name in passed if ours.get(name, "skipped") != "skipped"]
    differ = [name for name in comparable if ours[name] != "passed"]
    unexpected = [name for name in differ if _reason(name) is None]
    print(f"{len(comparable)} tests pass on stock and ran on ours; {len(differ)} of them do not pass on ours.")
    _list("by design", (f"{name}: {_reason(name)}" for name in differ if name not in unexpected))
    _list("unexpected", unexpected)
    if late := sum(name not in ours for name in passed):
        print(f"{late} tests that pass on stock did not run on ours: the time was up.")
    _list("only ours passes", (name for name in ours if ours[name] == "passed" and stock.get(name) == "failed"))
    _list(
        "listed as by design, but passes", (name for name in BY_DESIGN if ours.get(f"t/integration/{name}") == "passed")
    )
    return int(bool(unexpected or late))


def _reason(name: str) -> str | None:
    return BY_DESIGN.get(name.removeprefix("t/integration/"))


def _list(title: str, names: Iterable[str]) -> None:
    if listed := sorted(names):
        print(f"{title}:", *listed, sep="\n  ")


if __name__ == "__main__":
    main()

"""A stopped or failed scan ends at once and leaves nothing behind."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from worker_tasks.infra import scratch_database
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import JoinFailed, LimitExceeded
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.reading.progress import Progress, Stopped
from worker_tasks.joins.scan import scan
from worker_tasks.joins.scan.scan import DISK_FULL, ScanQuery, write_scan
from worker_tasks.joins.spec.spec import JoinSpec, parse
from worker_tasks.results.result_writer import PartWriter

COMMENT = "dovetail:stopped.0.1.00"
#: Documents on each side, and different keys.
DOCUMENTS, KEYS = 60_000, 400
STOP_SECONDS = 2.0
LITTLE_MIB, SPILLED_BYTES = 64, 4 * 2**20


@pytest.fixture(scope="module")
def large(servers: None) -> Iterator[Database[Document]]:
    """Two collections that together give nine million rows, and one that is larger than the memory."""
    database = connections().joins["stops"]
    for name in ("left", "other"):
        filled = [{"_id": number, "k": number % KEYS, "text": f"{number:0100d}"} for number in range(DOCUMENTS)]
        database[name].insert_many(filled)
    for start in range(0, 40_000, 5_000):
        numbers = range(start, start + 5_000)
        database.long.insert_many([{"_id": number, "k": 1, "text": "x" * 3_000} for number in numbers])
    yield database
    connections().joins.drop_database("stops")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def spooling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STREAMED_ROWS", -1)


def spec(shape: str = "rows", other: str = "other", **fields: Any) -> JoinSpec:
    join = {"from": other, "as": "found", "on": [{"local": "k", "foreign": "k"}], "shape": shape}
    return parse({"database": "stops", "from": "left", "joins": [join], **fields})


@contextmanager
def little_memory() -> Iterator[None]:
    """The least memory that DuckDB may have."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("READING_MEMORY_MIB", str(LITTLE_MIB))
        settings.cache_clear()
        yield
    settings.cache_clear()


class Phases:
    """Notes the phase that a scan is in, and asks to stop in one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str | None = None):
        self.phase, self._wanted = "start", phase
        self.asked: float | None = None
        for name, at in (("_read_other", "other"), ("_read_left", "left"), ("_join_inserted", "join")):
            monkeypatch.setattr(scan.Scan, name, self._noting(getattr(scan.Scan, name), at))

    def _noting(self, method: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def noted(this: Any, *arguments: Any, **named: Any) -> Any:
            self.phase = phase
            return method(this, *arguments, **named)

        return noted

    def report(self, rows: int, _: int) -> bool:
        reached = self._wanted == "write" if rows else self._wanted == self.phase
        if reached and self.asked is None:
            self.asked = time.monotonic()
        return reached


def run(query: JoinSpec, report: Callable[[int, int], bool] = lambda *_: False) -> PartWriter:
    writer = PartWriter("stopped", 0, 10**9, 2**33)
    try:
        write_scan(ScanQuery(query, COMMENT), writer, Progress(writer, report))
    finally:
        writer.discard()
    return writer


def nothing_left(folder: Path, threads: set[threading.Thread]) -> bool:
    return (
        not any(folder.iterdir())
        and COMMENT not in default_source().comments()
        and not [thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("pymongo")]
    )


@pytest.mark.usefixtures("large", "spooling")
@pytest.mark.parametrize("phase", ["other", "left", "join", "write"])
def test_a_stop_ends_the_scan_in_every_phase(phase: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set(threading.enumerate())
    phases = Phases(monkeypatch, phase)
    # Sorting needs all rows first, so that DuckDB works for long before the first one is written.
    query = spec(sort=[["found.text", 1], ["_id", 1]]) if phase == "join" else spec()
    with pytest.raises(Stopped):
        run(query, phases.report)
    assert phases.asked is not None
    assert time.monotonic() - phases.asked < STOP_SECONDS
    assert nothing_left(folder, threads)


@pytest.mark.usefixtures("large", "spooling")
def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_database, "SPILLED_SHARE", SPILLED_BYTES / shutil.disk_usage(folder).free)
    threads = set(threading.enumerate())
    with little_memory(), pytest.raises(JoinFailed) as failed:
        run(spec(other="long"))
    assert str(failed.value) == DISK_FULL
    assert nothing_left(folder, threads)


@pytest.mark.usefixtures("large", "spooling")
def test_a_list_that_needs_more_than_the_memory_is_named(folder: Path) -> None:
    threads = set(threading.enumerate())
    with little_memory(), pytest.raises(LimitExceeded, match=f"more than {LITTLE_MIB} MiB of memory"):
        run(spec("array", other="long"))
    assert nothing_left(folder, threads)

"""A join that a worker scans survives a kill in each of its phases, and leaves nothing behind when it is cancelled."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import states
from pymongo.database import Database

from development.servers import Server
from tests.faults.conftest import StartWorker
from tests.faults.support import METADATA, child_that_runs, killed, mongodb_operations, submit_to
from tests.support import eventually, wait_for_state
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.run import run_state
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.submission import cancel

pytestmark = pytest.mark.timeout(180)

END_SECONDS = 90.0
#: More events than a scan keeps in memory, so that it reads the devices as well before it joins them. No index helps.
DEVICES, EVENTS = 40_000, 240_000
#: The devices that match every event.
FEW = 20
PADDING = "x" * 10


@pytest.fixture(scope="session")
def events(servers: None) -> Database[Document]:
    """Devices, each with six events, one after the other."""
    database = connections().joins.big
    database.devices.insert_many([{"_id": number, "name": PADDING} for number in range(DEVICES)])
    for start in range(0, EVENTS, 40_000):
        batch = [
            {"_id": number, "device": number % DEVICES, "text": PADDING} for number in range(start, start + 40_000)
        ]
        database.events.insert_many(batch)
    return database


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for the temporary files of the test's workers."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def rows_of_events() -> Document:
    """A join with a row for each event."""
    on = [{"local": "_id", "foreign": "device"}]
    join = {"from": "events", "as": "event", "kind": "inner", "shape": "rows", "on": on}
    return {"database": "big", "from": "devices", "joins": [join]}


def last_pairs() -> Document:
    """The last of many pairs. DuckDB joins and sorts for seconds before it returns the first row."""
    # The fold keeps MongoDB from finding the matches.
    on = [{"local": "name", "foreign": "text", "fold": "case"}]
    return {
        "database": "big",
        "from": "devices",
        "match": {"_id": {"$lt": FEW}},
        "joins": [{"from": "events", "as": "event", "kind": "inner", "shape": "rows", "on": on}],
        "sort": [["event._id", -1], ["_id", -1]],
        "limit": 100,
    }


def expected_pairs(join: Document) -> list[tuple[int, int]]:
    """The ids of the device and the event in each row."""
    if "sort" not in join:
        return sorted((number % DEVICES, number) for number in range(EVENTS))
    return [(device, number) for number in reversed(range(EVENTS)) for device in reversed(range(FEW))][:100]


def assert_right(task: Document, join: Document) -> None:
    assert task["status"] == states.SUCCESS, task["result"]
    assert task["metadata"] == METADATA
    assert task["plan"]["method"] == "scan"
    summary = result_store.find_task_result(task)
    assert summary is not None
    rows = map(json.loads, result_store.read_lines(summary))
    pairs = [(row["_id"], row["event"]["_id"]) for row in rows]
    assert (pairs if "sort" in join else sorted(pairs)) == expected_pairs(join)


def folders_in(temporary: Path) -> list[Path]:
    """The folders of scans."""
    return list(temporary.glob("dovetail-*"))


def assert_nothing_is_left(task_id: str, temporary: Path) -> None:
    store = connections().results
    eventually(lambda: store.keys(f"staging:{task_id}*") == [] and not store.exists(f"join_run:{task_id}"))
    assert mongodb_operations(task_id) == []
    eventually(lambda: folders_in(temporary) == [])


# The phases of a scan. Each function returns whether the task is in the phase.


def reads_a_side(task_id: str) -> bool:
    return bool(mongodb_operations(task_id)) and rows_of(task_id) == 0


def joins(task_id: str) -> bool:
    """Whether nothing is read, and no row written, for longer than the pause between the reads of the two sides."""
    return rows_of(task_id) == 0 and not any(_reads_now(task_id) for _ in range(6))


def _reads_now(task_id: str) -> bool:
    time.sleep(0.05)
    return bool(mongodb_operations(task_id))


def writes_rows(task_id: str) -> bool:
    return bool(rows_of(task_id))


def rows_of(task_id: str) -> int | None:
    """The number of written rows; None if the run has not begun."""
    state = run_state.find_run(task_id)
    return state.rows if state is not None and state.writers else None


PHASES = pytest.mark.parametrize(
    ("join", "is_reached"),
    [(rows_of_events(), reads_a_side), (last_pairs(), joins), (rows_of_events(), writes_rows)],
    ids=["reading", "joining", "writing"],
)


@PHASES
def test_a_scan_whose_child_is_killed_runs_again(
    events: Database[Document],
    start_worker: StartWorker,
    queue: str,
    temporary: Path,
    join: Document,
    is_reached: Callable[[str], bool],
) -> None:
    start_worker("first", TMPDIR=str(temporary), PART_DOCUMENTS="1000000", RECONCILE_SECONDS="2")
    task_id = submit_to(join, queue)
    child = child_that_runs(task_id, "first@test")
    eventually(lambda: is_reached(task_id))
    (folder,) = eventually(lambda: folders_in(temporary))
    os.kill(child, signal.SIGKILL)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert_right(task, join)
    assert task["attempt"] == 2
    assert not folder.exists()
    assert_nothing_is_left(task_id, temporary)


@PHASES
def test_a_cancelled_scan_ends_at_once(
    events: Database[Document],
    start_worker: StartWorker,
    queue: str,
    temporary: Path,
    join: Document,
    is_reached: Callable[[str], bool],
) -> None:
    start_worker("first", TMPDIR=str(temporary), PART_DOCUMENTS="1000000")
    task_id = submit_to(join, queue)
    eventually(lambda: is_reached(task_id))
    assert cancel(task_id)
    assert mongodb_operations(task_id) == []
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=5)
    assert (task["status"], task["metadata"]) == (states.REVOKED, METADATA)
    assert task["timeline"][-1]["note"] == "stopped; MongoDB has nothing of it left"
    assert (task["partial"] is not None) == (is_reached is writes_rows)
    assert_nothing_is_left(task_id, temporary)


def test_the_temporary_files_of_a_killed_worker_are_deleted_by_the_next_one(
    events: Database[Document], start_worker: StartWorker, queue: str, temporary: Path
) -> None:
    first = start_worker("first", TMPDIR=str(temporary), PART_DOCUMENTS="1000000")
    task_id = submit_to(last_pairs(), queue)
    eventually(lambda: joins(task_id))
    first.kill()
    assert folders_in(temporary)
    assert cancel(task_id)
    start_worker("second", TMPDIR=str(temporary), RECONCILE_SECONDS="1")
    eventually(lambda: folders_in(temporary) == [])


@pytest.mark.parametrize("parts", [{"PART_DOCUMENTS": "1000000"}, {"PART_DOCUMENTS": "10000"}], ids=["one", "four"])
def test_a_scan_whose_mongodb_dies_succeeds_after_the_outage(
    events: Database[Document],
    start_worker: StartWorker,
    queue: str,
    temporary: Path,
    mongodb_server: Server,
    parts: dict[str, str],
) -> None:
    start_worker("first", TMPDIR=str(temporary), **parts)
    task_id = submit_to(rows_of_events(), queue)
    eventually(lambda: mongodb_operations(task_id))
    with killed(mongodb_server):
        time.sleep(2)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert_right(task, rows_of_events())
    assert_nothing_is_left(task_id, temporary)


def test_another_worker_scans_the_parts_of_a_killed_worker(
    events: Database[Document], start_worker: StartWorker, queue: str, temporary: Path
) -> None:
    environment = {"TMPDIR": str(temporary), "PART_DOCUMENTS": "10000"}
    first = start_worker("first", **environment)
    task_id = submit_to(rows_of_events(), queue)
    eventually(lambda: mongodb_operations(task_id))
    first.kill()
    start_worker("second", **environment)
    task = wait_for_state(task_id, *ledger.FINAL_STATES, within=END_SECONDS)
    assert_right(task, rows_of_events())
    assert task["plan"]["parts"] == 4
    assert_nothing_is_left(task_id, temporary)

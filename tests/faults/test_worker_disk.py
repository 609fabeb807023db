"""The disk of a worker is full: what it works out ends in words, and the worker goes on."""

import resource
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.conftest import StartWorker
from tests.support import Process, eventually, publish
from worker_tasks.connections import connections
from worker_tasks.reading import derived
from worker_tasks.reading.derived import TABLE, Derived, State
from worker_tasks.reading.tasks import DISK_FULL
from worker_tasks.results import Summary

pytestmark = pytest.mark.timeout(60)


def children(worker: Process) -> list[int]:
    """The processes that run its tasks."""
    processes = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return [int(process) for process in processes]


def ended(summary: Summary) -> Derived | None:
    found = derived.ask(summary, TABLE)
    return None if found.is_under_way else found


def test_a_worker_whose_disk_is_full_says_so_and_stays(servers: None, start_worker: StartWorker) -> None:
    worker = start_worker("first", "--queues reading")
    pool = children(worker)
    for process in pool:
        # No file may become bigger than that: to who writes it the same as a full disk.
        resource.prlimit(process, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    summary = publish([{"_id": number} for number in range(500)], f"result:{uuid4()}", str(uuid4()))
    found = eventually(lambda: ended(summary))
    assert (found.state, found.message) == (State.FAILED, DISK_FULL)
    assert children(worker) == pool
    for process in pool:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # As if the moment for which it is remembered were over.
    connections().results.delete(derived.key_of(summary, TABLE))
    assert eventually(lambda: ended(summary)).is_done
    assert worker.is_running

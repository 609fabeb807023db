"""No room for what is worked out, on the worker's disk or in Redis: said in words, and forgotten in a moment."""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pytest

from tests.worker_tasks.analysis.support import keys, record, result
from worker_tasks.analysis import artifacts, engine, reader
from worker_tasks.analysis.artifact_job import NO_ROOM_SECONDS
from worker_tasks.analysis.artifacts import TABLE, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.analysis.tasks import DISK_FULL, derive
from worker_tasks.infra import redis_memory
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import REDIS_FULL
from worker_tasks.results.result_store import Summary

pytestmark = pytest.mark.usefixtures("servers")

VIEW = RowQuery(sort=(("text", True),))
#: More than fits into the memory that the test allows.
BIG = "CREATE TABLE big AS SELECT repeat(hash(range)::VARCHAR, 9) AS text FROM range(2000000) ORDER BY text"


def run(summary: Summary, derivation: ArtifactSpec) -> None:
    derive(summary.key, summary.task_id, summary.run, str(derivation.kind), derivation.options)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may become bigger: to who writes it that is the same as a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["table", "order", "csv", "xlsx", "parquet", "json"])
@pytest.mark.parametrize("size", [4096, 400_000])
def test_a_full_disk_is_said_in_words_for_a_moment_and_then_it_works(kind: str, size: int) -> None:
    summary = result([{"_id": number, "text": random.Random(number).randbytes(5_000).hex()} for number in range(200)])
    record(summary)
    derivation = TABLE
    if kind != "table":
        run(summary, TABLE)
        derivation = (
            reader.row_order_spec(VIEW)
            if kind == "order"
            else export_spec(summary.task_id, kind, Selection(VIEW), embed_provenance=False)
        )
    with files_up_to(size):
        run(summary, derivation)
    found = artifacts.find_artifact(summary, derivation)
    assert found is not None
    assert (found.state, found.message) == (ArtifactState.FAILED, DISK_FULL)
    said = artifacts.key_of(summary, derivation)
    assert connections().results.ttl(said) <= NO_ROOM_SECONDS
    # Nothing of what was written is left.
    left = keys(f"derived:{summary.run}:{derivation.name}:*")
    assert {key.rpartition(":")[2] for key in left} <= {"state", "mark", "times"}
    connections().results.delete(said)
    run(summary, derivation)
    found = artifacts.find_artifact(summary, derivation)
    assert found is not None
    assert found.is_done


def test_what_is_spilled_to_a_full_disk_is_said_to_be_so() -> None:
    with engine.open_database() as (database, _):
        database.execute("SET max_temp_directory_size = '1MiB'; SET memory_limit = '20MiB'")
        with pytest.raises(duckdb.OutOfMemoryException) as full:
            database.execute(BIG)
    assert engine.is_disk_full(full.value)


def test_a_value_that_reads_like_a_full_disk_is_none() -> None:
    with engine.open_database() as (database, _), pytest.raises(duckdb.ConversionException) as wrong:
        database.execute("SELECT 'No space left on device'::INTEGER")
    assert not engine.is_disk_full(wrong.value)


def test_what_is_worked_out_leaves_the_queue_its_room() -> None:
    summary = result([{"_id": 1}])
    used = int(connections().results.info("memory")["used_memory"])
    try:
        connections().results.config_set("maxmemory", used + redis_memory.QUEUE_ROOM * 2)
        redis_memory.room_left(fresh=True)
        run(summary, TABLE)
        found = artifacts.find_artifact(summary, TABLE)
    finally:
        connections().results.config_set("maxmemory", 0)
    assert found is not None
    assert (found.state, found.message) == (ArtifactState.FAILED, REDIS_FULL)

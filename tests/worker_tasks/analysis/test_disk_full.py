"""If an artifact does not fit on the worker's disk or into Redis, it fails with a clear message and can be retried."""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pytest

from tests.worker_tasks.analysis.support import build, keys, record, result
from worker_tasks.analysis import artifacts, engine, reader
from worker_tasks.analysis.artifact_job import NO_ROOM_SECONDS
from worker_tasks.analysis.artifacts import TABLE, ArtifactState
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.analysis.tasks import DISK_FULL
from worker_tasks.infra import redis_memory
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import REDIS_FULL
from worker_tasks.infra.scratch_database import is_disk_full

pytestmark = pytest.mark.usefixtures("servers")

QUERY = RowQuery(sort=(("text", True),))
#: Needs more memory than the test allows.
BIG = "CREATE TABLE big AS SELECT repeat(hash(range)::VARCHAR, 9) AS text FROM range(2000000) ORDER BY text"


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Limits the size of files. Writing more fails as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["table", "order", "csv", "xlsx", "parquet", "json"])
@pytest.mark.parametrize("size", [4096, 400_000])
def test_a_full_disk_fails_with_a_message_and_the_next_try_succeeds(kind: str, size: int) -> None:
    summary = result([{"_id": number, "text": random.Random(number).randbytes(5_000).hex()} for number in range(200)])
    record(summary)
    spec = TABLE
    if kind != "table":
        build(summary, TABLE)
        spec = (
            reader.row_order_spec(QUERY)
            if kind == "order"
            else export_spec(summary.task_id, kind, Selection(QUERY), embed_provenance=False)
        )
    with limit_file_size(size):
        build(summary, spec)
    artifact = artifacts.find_artifact(summary, spec)
    assert artifact is not None
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, DISK_FULL)
    state_key = artifacts.key_of(summary, spec)
    assert connections().results.ttl(state_key) <= NO_ROOM_SECONDS
    # The written parts are deleted.
    remaining = keys(f"derived:{summary.run}:{spec.name}:*")
    assert {key.rpartition(":")[2] for key in remaining} <= {"state", "mark", "times"}
    connections().results.delete(state_key)
    build(summary, spec)
    artifact = artifacts.find_artifact(summary, spec)
    assert artifact is not None
    assert artifact.is_done


def test_spilling_to_a_full_disk_is_recognised() -> None:
    with engine.open_database() as (database, _):
        database.execute("SET max_temp_directory_size = '1MiB'; SET memory_limit = '20MiB'")
        with pytest.raises(duckdb.OutOfMemoryException) as full:
            database.execute(BIG)
    assert is_disk_full(full.value)


def test_a_value_that_reads_like_a_full_disk_is_not_one() -> None:
    with engine.open_database() as (database, _), pytest.raises(duckdb.ConversionException) as wrong:
        database.execute("SELECT 'No space left on device'::INTEGER")
    assert not is_disk_full(wrong.value)


def test_artifacts_leave_room_in_redis_for_the_queue() -> None:
    summary = result([{"_id": 1}])
    used = int(connections().results.info("memory")["used_memory"])
    try:
        connections().results.config_set("maxmemory", used + redis_memory.QUEUE_ROOM * 2)
        redis_memory.room_left(fresh=True)
        build(summary, TABLE)
        artifact = artifacts.find_artifact(summary, TABLE)
    finally:
        connections().results.config_set("maxmemory", 0)
    assert artifact is not None
    assert (artifact.state, artifact.message) == (ArtifactState.FAILED, REDIS_FULL)

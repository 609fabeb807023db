"""The Celery task that computes artifacts of a result."""

import json
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from celery import Task
from celery.exceptions import Reject
from celery.utils.log import get_task_logger
from redis.exceptions import RedisError

from worker_tasks.analysis import diff_job, engine, export_writers, reader, result_table, row_order
from worker_tasks.analysis.artifact_job import GIVEN_UP, MAX_ATTEMPTS, NO_ROOM_SECONDS, ArtifactJob
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.export_files import ExportContext
from worker_tasks.analysis.export_selection import GZIP, Selection
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import (
    DovetailError,
    ServiceUnavailable,
    StorageFull,
    TookTooLong,
    is_full,
    named_driver_errors,
    named_storage_full,
)
from worker_tasks.infra.scratch_database import is_disk_full
from worker_tasks.infra.settings import settings
from worker_tasks.queue.celery_app import DERIVE_TASK, app
from worker_tasks.queue.retrying import retry_while_away
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import ResultGone

#: The lifetime of a row order in seconds. If someone still needs it afterwards, a worker computes it again.
ORDER_SECONDS = 900
#: The lifetime of an exported file in seconds.
FILE_SECONDS = 900
DISK_FULL = "The disk of the worker is full. Try again in a moment, or ask for fewer rows."
#: zlib's compression level: fast, and its output is hardly larger than that of the slow levels.
COMPRESSION_LEVEL = 3

logger = get_task_logger(__name__)

#: The data of a built artifact and its expiry; None if it expires together with the result.
Built = tuple[Document, datetime | None]


@app.task(bind=True, base=Task, ignore_result=True, name=DERIVE_TASK)
def derive(  # noqa: PLR0913, PLR0917 - identifies a result and one of its artifacts
    self: Task, key: str, task_id: str, run: str, kind: str, options: dict[str, Any]
) -> None:
    """Computes an artifact of the result that a run published under ``key``.

    If a server is unavailable, retries for a while, and then leaves the job to the next request.
    """
    spec = ArtifactSpec(ArtifactKind(kind), options)
    try:
        job = retry_while_away(self, lambda: _begin(key, task_id, run, spec))
        if job is not None:
            _build_with_retries(self, job)
    except Reject as away:
        logger.warning("%s of %s is left to the next request: %s", spec.name, run, away.reason)


def _begin(key: str, task_id: str, run: str, spec: ArtifactSpec) -> ArtifactJob | None:
    """Claims the job. Returns None if the result is gone, another worker has the job, or the job failed too often."""
    summary = result_store.find_run_result(key, task_id, run)
    if summary is None:
        return None
    job = ArtifactJob(summary, spec)
    attempt = job.begin()
    if attempt > MAX_ATTEMPTS:
        job.fail(GIVEN_UP)
    return job if 0 < attempt <= MAX_ATTEMPTS else None


def _build_with_retries(task: Task, job: ArtifactJob) -> None:
    """Builds the artifact, retrying while a server is unavailable.

    Raises:
        celery.exceptions.Reject: a server was unavailable for too long.
    """
    with job.alive():
        try:
            retry_while_away(task, lambda: _build(job))
        except Reject:
            try:
                job.leave()
            except RedisError as error:
                # The claim expires by itself.
                logger.warning("%s: could not tell Redis that the job is left: %s", job.spec.name, error)
            raise


def _build(job: ArtifactJob) -> None:
    """Builds and publishes the artifact. If that is impossible, publishes the reason.

    Raises:
        ServiceUnavailable: a server is unavailable.
        Exception: an unexpected error, which is also published as a failure.
    """
    if not job.hold():
        return
    try:
        with named_driver_errors(), named_storage_full():
            data, until = BUILDERS[job.spec.kind](job)
            job.end(data, until)
    except ResultGone:
        job.release()
    except StorageFull as error:
        _fail_for_now(job, error.message, error)
    except ServiceUnavailable:
        raise
    except Exception as error:
        if (reason := _reason(error)) is not None:
            job.fail(reason)
        elif is_disk_full(error):
            _fail_for_now(job, DISK_FULL, error)
        else:
            job.fail(f"It could not be worked out: {type(error).__name__}.")
            raise


def _reason(error: Exception) -> str | None:
    """The message for an expected error; None for others."""
    if isinstance(error, duckdb.InterruptException | TookTooLong):
        return f"It took longer than {settings().reading_seconds:g} seconds, which is the limit."
    if isinstance(error, duckdb.OutOfMemoryException) and not is_disk_full(error):
        return f"It needs more than {settings().reading_memory_mib} MiB of memory, which is the limit."
    return error.message if isinstance(error, DovetailError) else None


def _fail_for_now(job: ArtifactJob, message: str, error: Exception) -> None:
    """Publishes a failure due to lack of room. The artifact may soon be requested again."""
    logger.warning("%s: no room for the artifact: %s", job.spec.name, error)
    try:
        job.fail(message, NO_ROOM_SECONDS)
    except RedisError as refused:
        if not is_full(refused):
            raise
        # The claim expires by itself, and the next request starts a new job.
        logger.warning("%s: no room to record the failure: %s", job.spec.name, refused)


def _build_table(job: ArtifactJob) -> Built:
    with engine.open_database() as (database, folder):
        table = result_table.build_table(job.summary, database, folder)
        size = job.write("table", _read(table.file))
        job.write("offsets", [table.offsets])
        job.write("profile", [json.dumps(table.profile.to_document()).encode()])
        return {"size": size, "sha256": table.profile.sha256}, None


def _build_order(job: ArtifactJob) -> Built:
    with engine.open_database() as (database, folder):
        profile = result_table.open_table(job.summary, database, folder)
        query = RowQuery.from_document(job.spec.options)
        size = job.write("numbers", row_order.row_numbers(database, profile, query))
        return {"rows": size // reader.NUMBER.size}, ledger.now() + timedelta(seconds=ORDER_SECONDS)


def _build_file(job: ArtifactJob) -> Built:
    options = job.spec.options
    summary, format_ = job.summary, FORMATS[options["format"]]
    selection = Selection.from_document(options["excerpt"])
    with engine.open_database() as (database, folder):
        profile = result_table.open_table(summary, database, folder)
        selection.check(profile)
        context = ExportContext(
            summary=summary,
            database=database,
            profile=profile,
            selection=selection,
            task=ledger.find_task(options["task_id"]),
            run_task=ledger.find_task(summary.task_id),
            embed_provenance=options["inside"],
            report=job.report,
        )
        file = export_writers.write(format_, context, folder)
        size = file.stat().st_size
        stored = job.write("file", _compressed(file) if format_.is_text else _read(file))
        data = {"size": size, "stored": stored, "rows": context.row_count}
        return data, ledger.now() + timedelta(seconds=FILE_SECONDS)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield from iter(lambda: opened.read(result_store.CHUNK_BYTES), b"")


def _compressed(file: Path) -> Iterator[bytes]:
    """Yields the file compressed with gzip, which makes it about ten times smaller."""
    compressor = zlib.compressobj(level=COMPRESSION_LEVEL, wbits=GZIP)
    for chunk in _read(file):
        yield compressor.compress(chunk)
    yield compressor.flush()


def _build_comparison(job: ArtifactJob) -> Built:
    options = job.spec.options
    older = result_store.find_task_result(ledger.find_task(options["task_id"]))
    if older is None or older.run != options["run"]:
        raise ResultGone(options["run"])
    with engine.open_database() as (database, folder):
        before = result_table.open_table(older, database, folder, "older")
        after = result_table.open_table(job.summary, database, folder, "newer")
        diff = diff_job.compare_results(
            database,
            before,
            after,
            options["key"],
            (partial(result_store.read_lines, older), partial(result_store.read_lines, job.summary)),
            folder,
        )
        for name in diff_job.LISTS:
            job.write(name, diff_job.diff_row_numbers(database, name))
        return diff.to_document(), older.expires_at


BUILDERS: dict[ArtifactKind, Callable[[ArtifactJob], Built]] = {
    ArtifactKind.TABLE: _build_table,
    ArtifactKind.ORDER: _build_order,
    ArtifactKind.FILE: _build_file,
    ArtifactKind.COMPARISON: _build_comparison,
}

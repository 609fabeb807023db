"""The task that works things out from a result."""

import json
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from celery import Task
from celery.exceptions import Reject
from celery.utils.log import get_task_logger
from redis.exceptions import RedisError

from worker_tasks.analysis import diff_job, engine, export_writers, reader, result_table, row_order
from worker_tasks.analysis.artifact_job import GIVEN_UP, MAX_TIMES, NO_ROOM_SECONDS, ArtifactJob
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
from worker_tasks.infra.settings import settings
from worker_tasks.queue.celery_app import DERIVE_TASK, app
from worker_tasks.queue.retrying import retry_while_away
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import ResultGone

#: Seconds that an order stays; whoever still looks at it then has it made anew.
ORDER_SECONDS = 900
#: The same for a file.
FILE_SECONDS = 900
DISK_FULL = "The disk of the worker is full. Try again in a moment, or ask for fewer rows."
#: zlib's level: fast, and about as small as the slow ones.
PACKING = 3

logger = get_task_logger(__name__)

#: What is derived: data about it, and how long it stays, None for as long as the result.
Built = tuple[Document, datetime | None]


@app.task(bind=True, base=Task, ignore_result=True, name=DERIVE_TASK)
def derive(  # noqa: PLR0913, PLR0917 - which result, and what of it
    self: Task, key: str, task_id: str, run: str, kind: str, options: dict[str, Any]
) -> None:
    """Works out something from the result that is under a key, or was.

    A server that is away is no outcome: it is tried again in place, and after that by whoever still asks for it.
    """
    derivation = ArtifactSpec(ArtifactKind(kind), options)
    try:
        work = retry_while_away(self, lambda: _begun(key, task_id, run, derivation))
        if work is not None:
            _persevere(self, work)
    except Reject as away:
        logger.warning("%s of %s is left to whoever asks next: %s", derivation.name, run, away.reason)


def _begun(key: str, task_id: str, run: str, derivation: ArtifactSpec) -> ArtifactJob | None:
    """The work, begun; None where there is nothing to do."""
    summary = result_store.find_run_result(key, task_id, run)
    if summary is None:
        return None
    work = ArtifactJob(summary, derivation)
    times = work.begin()
    if times > MAX_TIMES:
        work.fail(GIVEN_UP)
    return work if 0 < times <= MAX_TIMES else None


def _persevere(task: Task, work: ArtifactJob) -> None:
    """Works it out, in as many tries as it takes.

    Raises:
        celery.exceptions.Reject: a server was away for too long.
    """
    with work.alive():
        try:
            retry_while_away(task, lambda: _work_out(work))
        except Reject:
            try:
                work.leave()
            except RedisError as error:
                # Its signs of life end by themselves.
                logger.warning("%s is left, and Redis does not know: %s", work.derivation.name, error)
            raise


def _work_out(work: ArtifactJob) -> None:
    """One try.

    Raises:
        ServiceUnavailable: a server is away.
        Exception: nobody thought of it; whoever waits is told.
    """
    if not work.hold():
        return
    try:
        with named_driver_errors(), named_storage_full():
            data, until = BUILDERS[work.derivation.kind](work)
            work.end(data, until)
    except ResultGone:
        work.release()
    except StorageFull as error:
        _fail_for_now(work, error.message, error)
    except ServiceUnavailable:
        raise
    except Exception as error:
        if (reason := _reason(error)) is not None:
            work.fail(reason)
        elif engine.is_disk_full(error):
            _fail_for_now(work, DISK_FULL, error)
        else:
            work.fail(f"It could not be worked out: {type(error).__name__}.")
            raise


def _reason(error: Exception) -> str | None:
    """Why this cannot be worked out, if the error says so."""
    if isinstance(error, duckdb.InterruptException | TookTooLong):
        return f"It took longer than {settings().reading_seconds:g} seconds, which is the limit."
    if isinstance(error, duckdb.OutOfMemoryException) and not engine.is_disk_full(error):
        return f"It needs more than {settings().reading_memory_mib} MiB of memory, which is the limit."
    return error.message if isinstance(error, DovetailError) else None


def _fail_for_now(work: ArtifactJob, message: str, error: Exception) -> None:
    logger.warning("%s: no room for it: %s", work.derivation.name, error)
    try:
        work.fail(message, NO_ROOM_SECONDS)
    except RedisError as refused:
        if not is_full(refused):
            raise
        # Nor is there room for saying so; who waits asks again when its signs of life have ended.
        logger.warning("%s: and no room for that: %s", work.derivation.name, refused)


def _table(work: ArtifactJob) -> Built:
    with engine.open_database() as (database, folder):
        table = result_table.build_table(work.summary, database, folder)
        size = work.write("table", _read(table.file))
        work.write("offsets", [table.offsets])
        work.write("profile", [json.dumps(table.profile.to_document()).encode()])
        return {"size": size, "sha256": table.profile.sha256}, None


def _order(work: ArtifactJob) -> Built:
    with engine.open_database() as (database, folder):
        profile = result_table.open_table(work.summary, database, folder)
        view = RowQuery.from_document(work.derivation.options)
        size = work.write("numbers", row_order.row_numbers(database, profile, view))
        return {"rows": size // reader.NUMBER.size}, ledger.now() + timedelta(seconds=ORDER_SECONDS)


def _file(work: ArtifactJob) -> Built:
    options = work.derivation.options
    summary, form = work.summary, FORMATS[options["format"]]
    excerpt = Selection.from_document(options["excerpt"])
    with engine.open_database() as (database, folder):
        profile = result_table.open_table(summary, database, folder)
        excerpt.check(profile)
        context = ExportContext(
            summary=summary,
            database=database,
            profile=profile,
            selection=excerpt,
            task=ledger.find_task(options["task_id"]),
            run_task=ledger.find_task(summary.task_id),
            embed_provenance=options["inside"],
            report=work.report,
        )
        file = export_writers.write(form, context, folder)
        size = file.stat().st_size
        stored = work.write("file", _packed(file) if form.is_text else _read(file))
        data = {"size": size, "stored": stored, "rows": context.row_count}
        return data, ledger.now() + timedelta(seconds=FILE_SECONDS)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield from iter(lambda: opened.read(result_store.CHUNK_BYTES), b"")


def _packed(file: Path) -> Iterator[bytes]:
    """As gzip, which takes a tenth of the room."""
    packer = zlib.compressobj(level=PACKING, wbits=GZIP)
    for chunk in _read(file):
        yield packer.compress(chunk)
    yield packer.flush()


def _comparison(work: ArtifactJob) -> Built:
    options = work.derivation.options
    older = result_store.find_task_result(ledger.find_task(options["task_id"]))
    if older is None or older.run != options["run"]:
        raise ResultGone(options["run"])
    with engine.open_database() as (database, folder):
        before = result_table.open_table(older, database, folder, "older")
        after = result_table.open_table(work.summary, database, folder, "newer")
        found = diff_job.compare_results(database, before, after, options["key"])
        for what in diff_job.LISTS:
            work.write(what, diff_job.diff_row_numbers(database, what))
        return found.to_document(), older.expires_at


BUILDERS: dict[ArtifactKind, Callable[[ArtifactJob], Built]] = {
    ArtifactKind.TABLE: _table,
    ArtifactKind.ORDER: _order,
    ArtifactKind.FILE: _file,
    ArtifactKind.COMPARISON: _comparison,
}

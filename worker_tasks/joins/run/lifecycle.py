"""The life of a run: start it, work on its parts on any number of workers, publish the result after the last part."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from kombu.utils.encoding import ensure_bytes
from pymongo.errors import PyMongoError
from redis.exceptions import LockError, RedisError

from worker_tasks.infra import sources
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import (
    DovetailError,
    SnapshotGone,
    StorageFull,
    TaskTakesWorkerDown,
    is_full,
    named_storage_full,
)
from worker_tasks.infra.redis_memory import require_room
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.planning import Plan
from worker_tasks.joins.reading.batches import ReadFailed, ReadQuery
from worker_tasks.joins.reading.progress import Progress, Stopped
from worker_tasks.joins.run import execution, first_rows, mongodb_errors, run_state
from worker_tasks.joins.run.run_state import Answer, PartStart
from worker_tasks.joins.spec.spec import parse
from worker_tasks.queue.retrying import RunInterrupted
from worker_tasks.records import leads, live
from worker_tasks.results import publishing, retention, summaries
from worker_tasks.results.result_writer import STAGING_SECONDS, Part, PartWriter, StagingLost, new_writer
from worker_tasks.results.summaries import Summary

#: Seconds one worker may take to publish the result. After that another worker may try.
FINISH_SECONDS = 60
#: The reason for stopping a run whose rows Redis has lost.
LOST = "lost"

EMPTY_PART = Part(0, 0, [], [])

logger = logging.getLogger(__name__)


@dataclass
class PartJob:
    """One worker's job on a part of a run, over all its tries. ``writer`` is the writer's name in the latest try."""

    task_id: str
    run: str
    number: int
    writer: str = ""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    ``stop`` is the reason if the run was stopped early. ``summary`` describes the published result: complete if there
    is no ``stop``, otherwise the rows joined until then; None if there are none.
    """

    summary: Summary | None
    stop: str | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.stop == run_state.CANCELLED

    @property
    def must_restart(self) -> bool:
        """Whether the run lost its rows or its snapshot and has to start again."""
        return self.stop == LOST or isinstance(self.failure, SnapshotGone)

    @property
    def failure(self) -> DovetailError | None:
        return None if self.stop in {None, run_state.CANCELLED, LOST} else run_state.failure_from_text(str(self.stop))

    @property
    def fields(self) -> Document:
        """The outcome's fields in the task document, apart from the task's state."""
        if self.summary is None:
            return {}
        partial = self.summary.outcome if self.stop is not None else None
        return {**self.summary.fields, "partial": partial}


def start_run(task_id: str, attempt: int, plan: Plan, publish: Callable[[str, int], None]) -> RunOutcome | None:
    """Starts a run. Works on a single part immediately; sends several parts to the workers.

    Args:
        publish: sends a part to the workers, given the run's name and the part's number.

    Returns:
        The outcome of a run with one part. None if the parts were sent: the last one to end finishes the run.

    Raises:
        RunInterrupted, pymongo.errors.PyMongoError, redis.exceptions.RedisError: the caller should retry.
        StorageFull: Redis has no room left.
    """
    run = run_state.name_of(task_id, attempt)
    with named_storage_full():
        require_room()
        if not run_state.open_run(task_id, run, len(plan.parts), plan.total):
            raise RunInterrupted(f"{run} has a newer run")
    if len(plan.parts) == 1:
        return _work_on(PartJob(task_id, run, 0), plan)
    connections().results.set(_plan_key(task_id), plan.to_bson(), ex=STAGING_SECONDS)
    for number in range(len(plan.parts)):
        publish(run, number)
    return None


def _plan_key(task_id: str) -> str:
    return f"join_plan:{task_id}"


def _find_plan(task_id: str) -> Plan | None:
    data = connections().results.get(_plan_key(task_id))
    return None if data is None else Plan.from_bson(ensure_bytes(data))


def work_on_part(job: PartJob) -> RunOutcome | None:
    """Works on one part of a run.

    Returns:
        The run's outcome if no other part is active, otherwise None.

    Raises:
        RunInterrupted, pymongo.errors.PyMongoError, redis.exceptions.RedisError: the caller should retry.
    """
    plan = _find_plan(job.task_id)
    return None if plan is None else _work_on(job, plan)


def _work_on(job: PartJob, plan: Plan) -> RunOutcome | None:
    with named_storage_full():
        return _try_part(job, plan)


def _try_part(job: PartJob, plan: Plan) -> RunOutcome | None:
    task_id, run, number = job.task_id, job.run, job.number
    start = run_state.begin_part(task_id, run, number, job.writer)
    if start.answer is Answer.STALE:
        _require_other_parts(run, plan)
        return None
    if start.answer is Answer.ENDED:
        # The worker of the last part may have died before it finished the run.
        state = run_state.find_run(task_id)
        return finish_run(task_id, run, plan.key) if state and None not in state.parts else None
    job.writer = start.writer.name
    rows = PartWriter(
        run,
        number,
        settings().result_max_rows,
        settings().result_max_mib * 2**20,
        start.writer.name,
        run_state.key_of(task_id),
    )
    rows.columns_without_rows = plan.columns
    try:
        part = _write_or_stop(plan, start, rows)
    except (ReadFailed, StagingLost, PyMongoError, RedisError) as error:
        if is_full(error):
            raise
        if _leave(start, rows, error):
            raise RunInterrupted(f"part {number} of {run}") from error
        _require_other_parts(run, plan)
        return None
    answer = run_state.end_part(start.writer, part)
    if answer is Answer.LAST:
        # No other worker can finish a run of a single part, so it needs no lock.
        return _finish(task_id, run, plan.key) if len(plan.parts) == 1 else finish_run(task_id, run, plan.key)
    if answer is Answer.STALE:
        rows.discard()
        _require_other_parts(run, plan)
    return None


def _require_other_parts(run: str, plan: Plan) -> None:
    """Checks that other parts can continue a run after the caller has lost its part.

    Raises:
        RunInterrupted: the run has no other part. Redis lost it, or another worker has started its task.
    """
    if len(plan.parts) == 1:
        raise RunInterrupted(run) from StagingLost(run)


def _write_or_stop(plan: Plan, start: PartStart, rows: PartWriter) -> Part:
    """Writes a part; on a failure that retrying cannot cure, stops the run. Returns the written rows."""
    writer = start.writer
    try:
        _kill_previous_writer(start, plan)
        if start.tries > settings().max_attempts:
            limit = settings().max_attempts
            raise TaskTakesWorkerDown(f"Part {writer.number + 1} was begun {limit} times without an end.")
        return rows.close() if start.stop is not None else _write(plan, start, rows)
    except Stopped:
        return rows.close()
    except StorageFull as full:
        # Frees memory: the rows written so far are of no use to anybody.
        rows.discard()
        _stop_full(writer, full)
        return EMPTY_PART
    except ReadFailed as failed:
        failure = _failure(failed, rows.rows, start)
        if failure is None:
            raise
        _stop_all(writer, failure)
        return rows.close()
    except DovetailError as failure:
        _stop_all(writer, failure)
        return rows.close()


def _write(plan: Plan, start: PartStart, rows: PartWriter) -> Part:
    """Writes all rows of a part. Raises the errors of :func:`execution.write_aggregation` or of a scan."""
    writer = start.writer

    def report(written: int, size: int) -> bool:
        state = run_state.advance(writer, written, size)
        if state is None:
            return True
        rows.count_other_parts(state.rows - written, state.size - size)
        live.report(writer.task_id, live.Progress(state.rows, state.total, "rows", state.size, state.rate))
        return state.stop is not None

    progress = Progress(rows, report)
    comment = f"{_comment_prefix(writer)}{writer.name}"
    if plan.spec is not None:
        # The web process imports this module, but never loads DuckDB.
        from worker_tasks.joins.scan import scan  # noqa: PLC0415

        spec = parse(plan.spec)
        if plan.starts_late and writer.number == 0:
            first_rows.join_first_rows(writer.run, spec, comment)
        bounds, snapshots = plan.parts[writer.number], dict(plan.snapshots)
        query = scan.ScanQuery(spec, comment, bounds, snapshots, tuple(plan.watched))
        return scan.write_scan(query, rows, progress)
    read = ReadQuery(
        side=plan.left,
        pipeline=plan.pipeline_of(writer.number),
        comment=comment,
        deadline=time.monotonic() + settings().join_seconds,
        snapshot=dict(plan.snapshots).get(plan.left.source),
        suspect=mongodb_errors.suspect_range(start.breakage),
    )
    return execution.write_aggregation(read, plan.watched, rows, progress)


def _comment_prefix(writer: run_state.Writer) -> str:
    """The start of the comment on every MongoDB operation of this part, whichever writer runs it."""
    return f"{sources.operation_prefix(writer.run)}{writer.number}."


def _kill_previous_writer(start: PartStart, plan: Plan) -> None:
    """Kills the MongoDB operations of the part's previous writer, which died or lost the part."""
    if start.previous is not None:
        for name in plan.sources:
            sources.find_source(name).kill(_comment_prefix(start.previous))


def _failure(failed: ReadFailed, rows: int, start: PartStart) -> DovetailError | None:
    """The failure to end the part with; None if it should be retried."""
    error = failed.__cause__
    if isinstance(error, PyMongoError) and not mongodb_errors.is_transient(error):
        return mongodb_errors.failure_of_refusal(error)
    breakage = mongodb_errors.breakage_of(failed, rows, start.breakage)
    return None if breakage is None else mongodb_errors.failure_of_breakage(failed, breakage, start.breakage)


def _leave(start: PartStart, rows: PartWriter, error: Exception) -> bool:
    """Leaves a part to the next try. Returns False if another writer has taken it over.

    If Redis is away, the next try cleans up when it begins the part.
    """
    breakage = mongodb_errors.breakage_of(error, rows.rows, start.breakage) if isinstance(error, ReadFailed) else None
    try:
        answer = run_state.leave_part(start.writer, breakage)
        rows.discard()
    except RedisError as refused:
        logger.warning("%s: could not tell Redis that the part is left: %s", start.writer.key, refused)
        return True
    return answer is not Answer.STALE


def _stop_all(writer: run_state.Writer, failure: DovetailError) -> None:
    run_state.request_stop(writer.task_id, run_state.failure_to_text(failure), writer.run)
    sources.kill_operations(writer.run)


def _stop_full(writer: run_state.Writer, full: StorageFull) -> None:
    """Stops a run that Redis has no room for.

    Raises:
        StorageFull: Redis could not record the stop either.
    """
    try:
        _stop_all(writer, full)
    except RedisError as error:
        raise full from error


def finish_run(task_id: str, run: str, key: str) -> RunOutcome | None:
    """Publishes the result of a run. Returns None if another process is doing so.

    Raises:
        redis.exceptions.RedisError: Redis is away. The reconciler finishes the run later.
    """
    lock = connections().results.lock(f"join_finish:{run}", timeout=FINISH_SECONDS, blocking=False)
    if not lock.acquire():
        return None
    try:
        return _finish(task_id, run, key)
    finally:
        # The lock may have expired. The next holder then finds the run finished.
        with suppress(LockError):
            lock.release()


def _finish(task_id: str, run: str, key: str) -> RunOutcome | None:
    state = run_state.find_run(task_id)
    if state is None or state.run != run:
        return None
    try:
        outcome = _assemble(task_id, state, key)
    except StagingLost:
        outcome = RunOutcome(None, LOST)
    run_state.forget_run(task_id, run, _plan_key(task_id))
    first_rows.forget_first_rows(run)
    return outcome


def _assemble(task_id: str, state: run_state.RunState, key: str) -> RunOutcome:
    parts = [part or EMPTY_PART for part in state.parts]
    stop = state.stop
    if stop is None:
        try:
            return RunOutcome(_publish(task_id, state, parts, key))
        except StorageFull as full:
            stop = run_state.failure_to_text(full)
    if not any(part.rows for part in parts) or isinstance(RunOutcome(None, stop).failure, SnapshotGone | StorageFull):
        return RunOutcome(None, stop)
    return RunOutcome(_publish(task_id, state, parts, summaries.partial_key(task_id)), stop)


def _publish(task_id: str, state: run_state.RunState, parts: list[Part], key: str) -> Summary:
    writer = new_writer()
    if len(parts) > 1:
        run_state.note_whole(task_id, state.run, writer)
    seconds, complete = int(retention.time_to_live().total_seconds()), state.stop is None
    return publishing.publish(state.run, parts, key, task_id, seconds, complete=complete, writer=writer)


def clear_run(task_id: str) -> None:
    """Ends a task's operations in MongoDB and deletes its run from Redis.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: some of it may be left.
    """
    sources.kill_operations(task_id)
    state = run_state.find_run(task_id)
    run_state.forget_run(task_id, state.run if state else "", _plan_key(task_id))
    if state is not None:
        first_rows.forget_first_rows(state.run)


def clear_ended_runs() -> None:
    """Deletes the leftovers of runs whose tasks have ended: the worker died, or a server refused, before the cleanup.

    MongoDB may have more of them than Redis knows: a command that a stalled connection delivers late opens a cursor
    after the operations of its run were killed.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away. The next call continues.
    """
    # A run that is not found has expired, and its task has ended long ago.
    known = run_state.all_tasks()
    expired = {task_id for task_id in known if run_state.find_run(task_id) is None}
    for task_id in {*known, *sources.tasks_with_operations()}:
        if task_id in expired or leads.is_over(task_id):
            logger.warning("task %s has ended; deleting the leftovers of its run", task_id)
            clear_run(task_id)

"""The life of a run: started, its parts worked on by whatever workers take them, put together by the last of them."""

import logging
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
from worker_tasks.joins.run import execution, mongodb_errors, run_state
from worker_tasks.joins.run.execution import ReadFailed
from worker_tasks.joins.run.run_state import Answer, PartStart
from worker_tasks.queue.retrying import RunInterrupted
from worker_tasks.records import leads, live
from worker_tasks.results import publishing, result_store, retention
from worker_tasks.results.result_store import Summary
from worker_tasks.results.result_writer import STAGING_SECONDS, Part, PartWriter, StagingLost, new_writer

#: Seconds that putting the parts together may take; then another worker may try.
FINISH_SECONDS = 60
#: Why a run stops whose rows Redis has lost.
LOST = "lost"

NOTHING = Part(0, 0, [], [])

logger = logging.getLogger(__name__)


@dataclass
class PartJob:
    """One worker's turn at a part of a run, from its first try to its last. ``writer`` is its name in the last one."""

    task_id: str
    run: str
    number: int
    writer: str = ""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: with a whole result; or, where ``stop`` says why, with what was joined until then, if any."""

    summary: Summary | None
    stop: str | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.stop == run_state.CANCELLED

    @property
    def must_restart(self) -> bool:
        """Whether its rows, or the instant that its parts read at, are gone through nobody's fault."""
        return self.stop == LOST or isinstance(self.failure, SnapshotGone)

    @property
    def failure(self) -> DovetailError | None:
        return None if self.stop in {None, run_state.CANCELLED, LOST} else run_state.failure_from_text(str(self.stop))

    @property
    def fields(self) -> Document:
        """What the task document says of it, beside its state."""
        if self.summary is None:
            return {}
        partial = self.summary.outcome if self.stop is not None else None
        return {**self.summary.fields, "partial": partial}


def start_run(task_id: str, attempt: int, plan: Plan, publish: Callable[[str, int], None]) -> RunOutcome | None:
    """Starts a run; one of a single part is worked on at once.

    Args:
        publish: sends a part, by the name of the run and its number, to the workers.

    Returns:
        None where the parts were sent: the last of them ends the run.

    Raises:
        Interrupted, pymongo.errors.PyMongoError, redis.exceptions.RedisError: to be tried again.
        StorageFull: Redis has no room for anything.
    """
    run = run_state.name_of(task_id, attempt)
    with named_storage_full():
        require_room()
        if not run_state.open_run(task_id, run, len(plan.parts), plan.total):
            raise RunInterrupted(f"{run} has a newer run")
    if len(plan.parts) == 1:
        return _work(PartJob(task_id, run, 0), plan)
    connections().results.set(_plan_key(task_id), plan.to_bson(), ex=STAGING_SECONDS)
    for number in range(len(plan.parts)):
        publish(run, number)
    return None


def _plan_key(task_id: str) -> str:
    return f"join_plan:{task_id}"


def _plan(task_id: str) -> Plan | None:
    data = connections().results.get(_plan_key(task_id))
    return None if data is None else Plan.from_bson(ensure_bytes(data))


def work_on_part(turn: PartJob) -> RunOutcome | None:
    """Works on one part of a run.

    Returns:
        How the run ended, if nothing else of it is under way.

    Raises:
        Interrupted, pymongo.errors.PyMongoError, redis.exceptions.RedisError: to be tried again.
    """
    plan = _plan(turn.task_id)
    return None if plan is None else _work(turn, plan)


def _work(turn: PartJob, plan: Plan) -> RunOutcome | None:
    with named_storage_full():
        return _worked(turn, plan)


def _worked(turn: PartJob, plan: Plan) -> RunOutcome | None:
    task_id, run, number = turn.task_id, turn.run, turn.number
    begun = run_state.begin_part(task_id, run, number, turn.writer)
    if begun.answer is Answer.STALE:
        _require_parts(run, plan)
        return None
    if begun.answer is Answer.ENDED:
        # Its worker may have died before the rest.
        state = run_state.find_run(task_id)
        return finish_run(task_id, run, plan.key) if state and None not in state.parts else None
    turn.writer = begun.writer.name
    rows = PartWriter(
        run,
        number,
        settings().result_max_rows,
        settings().result_max_mib * 2**20,
        begun.writer.name,
        run_state.key_of(task_id),
    )
    try:
        part = _written(plan, begun, rows)
    except (ReadFailed, StagingLost, PyMongoError, RedisError) as error:
        if is_full(error):
            raise
        if _leave(begun, rows, error):
            raise RunInterrupted(f"part {number} of {run}") from error
        _require_parts(run, plan)
        return None
    answer = run_state.end_part(begun.writer, part)
    if answer is Answer.LAST:
        # Of a single part nobody else can hear that it is the last.
        return _finish(task_id, run, plan.key) if len(plan.parts) == 1 else finish_run(task_id, run, plan.key)
    if answer is Answer.STALE:
        rows.discard()
        _require_parts(run, plan)
    return None


def _require_parts(run: str, plan: Plan) -> None:
    """Asks whether others go on with a run in which the caller has lost its place.

    Raises:
        Interrupted: it has one part alone: Redis has lost it, or another worker has begun its task.
    """
    if len(plan.parts) == 1:
        raise RunInterrupted(run) from StagingLost(run)


def _written(plan: Plan, begun: PartStart, rows: PartWriter) -> Part:
    """What the part wrote; where that is not all, the run was told to stop, and why."""
    writer = begun.writer
    try:
        _end_the_writer_before(begun)
        if begun.tries > settings().max_attempts:
            most = settings().max_attempts
            raise TaskTakesWorkerDown(f"Part {writer.number + 1} was begun {most} times without an end.")
        return rows.close() if begun.stop is not None else _joined(plan, begun, rows)
    except execution.Stopped:
        return rows.close()
    except StorageFull as full:
        # What was written of it only fills what is full.
        rows.discard()
        _stop_full(writer, full)
        return NOTHING
    except ReadFailed as failed:
        failure = _failure(failed, rows.rows, begun)
        if failure is None:
            raise
        _stop_all(writer, failure)
        return rows.close()
    except DovetailError as failure:
        _stop_all(writer, failure)
        return rows.close()


def _joined(plan: Plan, begun: PartStart, rows: PartWriter) -> Part:
    """The whole part, or whatever :func:`execution.write` raises."""
    writer = begun.writer

    def report(written: int, size: int) -> bool:
        state = run_state.advance(writer, written, size)
        if state is None:
            return True
        rows.count_other_parts(state.rows - written, state.size - size)
        live.report(writer.task_id, live.Progress(state.rows, state.total, "rows", state.size, state.rate))
        return state.stop is not None

    aggregate = execution.PartQuery(
        database=plan.database,
        collection=plan.collection,
        pipeline=plan.pipeline_of(writer.number),
        comment=f"{_mark(writer)}{writer.name}",
        snapshot=plan.snapshot,
        unmatched_fields=plan.watched,
        suspect=mongodb_errors.suspect_range(begun.breakage),
    )
    return execution.write_part(aggregate, rows, report)


def _mark(writer: run_state.Writer) -> str:
    """What the comment of every operation of this part begins with, by whichever writer."""
    return f"{sources.operation_prefix(writer.run)}{writer.number}."


def _end_the_writer_before(begun: PartStart) -> None:
    """Ends what the writer before has in MongoDB: it is dead, or must not go on."""
    if begun.previous is not None:
        sources.default_source().kill(_mark(begun.previous))


def _failure(failed: ReadFailed, rows: int, begun: PartStart) -> DovetailError | None:
    """The failure that a part ends with because of this; None where to try again is right."""
    error = failed.__cause__
    if isinstance(error, PyMongoError) and not mongodb_errors.is_transient(error):
        return mongodb_errors.failure_of_refusal(error)
    broke = mongodb_errors.breakage_of(failed, rows, begun.breakage)
    return None if broke is None else mongodb_errors.failure_of_breakage(failed, broke, begun.breakage)


def _leave(begun: PartStart, rows: PartWriter, error: Exception) -> bool:
    """Makes way for the next try; False where another writer has the part, so that it is none of ours.

    What Redis does not hear of now it finds when the part is begun again.
    """
    broke = mongodb_errors.breakage_of(error, rows.rows, begun.breakage) if isinstance(error, ReadFailed) else None
    try:
        answer = run_state.leave_part(begun.writer, broke)
        rows.discard()
    except RedisError as unheard:
        logger.warning("%s is left, and Redis does not know: %s", begun.writer.key, unheard)
        return True
    return answer is not Answer.STALE


def _stop_all(writer: run_state.Writer, failure: DovetailError) -> None:
    run_state.request_stop(writer.task_id, run_state.failure_to_text(failure), writer.run)
    sources.kill_operations(writer.run)


def _stop_full(writer: run_state.Writer, full: StorageFull) -> None:
    """Stops a run that Redis has no room for.

    Raises:
        StorageFull: Redis does not even take the note that it is to stop.
    """
    try:
        _stop_all(writer, full)
    except RedisError as error:
        raise full from error


def finish_run(task_id: str, run: str, key: str) -> RunOutcome | None:
    """Puts the parts together. None where another process is doing so.

    Raises:
        redis.exceptions.RedisError: Redis is away; the next one that looks after the run may finish it.
    """
    lock = connections().results.lock(f"join_finish:{run}", timeout=FINISH_SECONDS, blocking=False)
    if not lock.acquire():
        return None
    try:
        return _finish(task_id, run, key)
    finally:
        # Where it took longer, the next one finds the run finished.
        with suppress(LockError):
            lock.release()


def _finish(task_id: str, run: str, key: str) -> RunOutcome | None:
    state = run_state.find_run(task_id)
    if state is None or state.run != run:
        return None
    try:
        ending = _put_together(task_id, state, key)
    except StagingLost:
        ending = RunOutcome(None, LOST)
    run_state.forget_run(task_id, run, _plan_key(task_id))
    return ending


def _put_together(task_id: str, state: run_state.RunState, key: str) -> RunOutcome:
    parts = [part or NOTHING for part in state.parts]
    stop = state.stop
    if stop is None:
        try:
            return RunOutcome(_publish(task_id, state, parts, key))
        except StorageFull as full:
            stop = run_state.failure_to_text(full)
    if not any(part.rows for part in parts) or isinstance(RunOutcome(None, stop).failure, SnapshotGone | StorageFull):
        return RunOutcome(None, stop)
    return RunOutcome(_publish(task_id, state, parts, result_store.partial_key(task_id)), stop)


def _publish(task_id: str, state: run_state.RunState, parts: list[Part], key: str) -> Summary:
    writer = new_writer()
    if len(parts) > 1:
        run_state.note_whole(task_id, state.run, writer)
    seconds, complete = int(retention.time_to_live().total_seconds()), state.stop is None
    return publishing.publish(state.run, parts, key, task_id, seconds, complete=complete, writer=writer)


def clear_run(task_id: str) -> None:
    """Deletes everything that runs of this task have left behind, in MongoDB and in Redis.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: not all of it is known to be gone.
    """
    sources.kill_operations(task_id)
    state = run_state.find_run(task_id)
    run_state.forget_run(task_id, state.run if state else "", _plan_key(task_id))


def clear_ended_runs() -> None:
    """Deletes what is left of the runs of tasks that ended: their workers died, or Redis refused, before they could.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away; the next call goes on.
    """
    for task_id in run_state.all_tasks():
        # A run that is not found has run out, and its task with it.
        if run_state.find_run(task_id) is None or leads.is_over(task_id):
            logger.warning("task %s has ended, and something of its run was left", task_id)
            clear_run(task_id)

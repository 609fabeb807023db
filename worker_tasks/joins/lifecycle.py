"""The life of a run: started, its parts worked on by whatever workers take them, put together by the last of them."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from kombu.utils.encoding import ensure_bytes
from pymongo.errors import PyMongoError
from redis.exceptions import LockError, OutOfMemoryError

from worker_tasks import ledger, live, results, staging
from worker_tasks.connections import Document, connections
from worker_tasks.errors import DovetailError, SnapshotGone, StorageFull, TaskTakesWorkerDown
from worker_tasks.joins import execution, explanation, runs, stopping
from worker_tasks.joins.planning import Plan
from worker_tasks.joins.runs import Answer
from worker_tasks.results import Summary
from worker_tasks.settings import settings
from worker_tasks.staging import STAGING_SECONDS, Part, PartWriter

#: Bytes that have to be free in Redis before a join begins.
LEAST_ROOM = 1024 * 1024
#: Seconds that the limit of Redis is taken as known.
LIMIT_SECONDS = 60
#: Seconds that putting the parts together may take; then another worker may try.
FINISH_SECONDS = 60

NOTHING = Part(0, 0, [], [])
REDIS_FULL = "Redis has no room for the result. Ask for less, or try again when other results have expired."


@dataclass(frozen=True)
class Ending:
    """How a run ended: with a whole result; or, where ``stop`` says why, with what was joined until then, if any."""

    summary: Summary | None
    stop: str | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.stop == runs.CANCELLED

    @property
    def failure(self) -> DovetailError | None:
        return None if self.stop is None or self.is_cancelled else runs.failure_from_text(self.stop)

    @property
    def fields(self) -> Document:
        """What the task document says of it, beside its state."""
        if self.summary is None:
            return {}
        partial = self.summary.outcome if self.stop is not None else None
        return {**self.summary.fields, "partial": partial}


def start(task_id: str, attempt: int, plan: Plan, publish: Callable[[str, int], None]) -> Ending | None:
    """Starts a run; one of a single part is worked on at once.

    Args:
        publish: sends a part, by the name of the run and its number, to the workers.

    Returns:
        None where the parts were sent: the last of them ends the run.

    Raises:
        StorageFull: Redis has no room for anything.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away.
    """
    _require_room()
    run = runs.name_of(task_id, attempt)
    runs.open_run(task_id, run, len(plan.parts), plan.total)
    if len(plan.parts) == 1:
        return _work(task_id, run, 0, plan)
    connections().results.set(_plan_key(task_id), plan.to_bson(), ex=STAGING_SECONDS)
    for number in range(len(plan.parts)):
        publish(run, number)
    return None


def _require_room() -> None:
    # Most have no limit, and are asked for it once a minute.
    if not _limit_of_redis(int(time.monotonic() / LIMIT_SECONDS)):
        return
    memory = connections().results.info("memory")
    if memory["maxmemory"] and memory["maxmemory"] - memory["used_memory"] < LEAST_ROOM:
        raise StorageFull(REDIS_FULL)


@lru_cache(maxsize=1)
def _limit_of_redis(_minute: int) -> int:
    return int(connections().results.info("memory")["maxmemory"])


def _plan_key(task_id: str) -> str:
    return f"join_plan:{task_id}"


def _plan(task_id: str) -> Plan | None:
    data = connections().results.get(_plan_key(task_id))
    return None if data is None else Plan.from_bson(ensure_bytes(data))


def work_on(task_id: str, run: str, number: int) -> Ending | None:
    """Works on one part of a run.

    Returns:
        How the run ended, if nothing else of it is under way.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away; the part can be begun again.
    """
    plan = _plan(task_id)
    if plan is None or ledger.find(task_id)["status"] in ledger.FINAL_STATES:
        return None
    return _work(task_id, run, number, plan)


def _work(task_id: str, run: str, number: int, plan: Plan) -> Ending | None:
    begun = runs.begin_part(task_id, run, number)
    if begun.answer is Answer.STALE:
        return None
    if begun.answer is Answer.ENDED:
        # Whoever ended it may have died before the rest.
        state = runs.find(task_id)
        return finish(task_id, run, plan.key) if state and None not in state.parts else None
    part = _written(task_id, run, number, plan, begun)
    answer = runs.end_part(task_id, run, number, part)
    if answer is Answer.LAST:
        # Of a single part nobody else can hear that it is the last.
        return _finish(task_id, run, plan.key) if len(plan.parts) == 1 else finish(task_id, run, plan.key)
    if answer is Answer.STALE:
        staging.discard(run, len(plan.parts))
    return None


def _written(task_id: str, run: str, number: int, plan: Plan, begun: runs.Begun) -> Part:
    """What came of the part; where that is not all, the run was told to stop, and why."""
    limits = settings()
    writer = PartWriter(run, number, limits.result_max_rows, limits.result_max_mib * 2**20)

    def report(rows: int, size: int) -> bool:
        state = runs.advance(task_id, run, number, rows, size)
        if state is None:
            return True
        writer.others(state.rows - rows, state.size - size)
        live.report(task_id, live.Progress(state.rows, state.total, "rows", state.size, state.rate))
        return state.stop is not None

    aggregate = execution.Aggregate(
        database=plan.database,
        collection=plan.collection,
        pipeline=plan.pipeline_of(number),
        comment=f"{stopping.mark(task_id)}{number}",
        snapshot=plan.snapshot,
        watched=plan.watched,
    )
    try:
        if begun.times > limits.max_attempts:
            raise TaskTakesWorkerDown(f"Part {number + 1} was begun {limits.max_attempts} times without an end.")
        if begun.stop is not None:
            return writer.close()
        return execution.write(aggregate, writer, report)
    except execution.Stopped:
        return writer.close()
    except OutOfMemoryError:
        # What was written of it only fills what is full.
        _stop_all(task_id, StorageFull(REDIS_FULL))
        writer.discard()
        return NOTHING
    except (PyMongoError, DovetailError) as error:
        failure = explanation.of(error, met_before=begun.times > 1 or not run.endswith(".1"))
        if failure is None:
            raise
        _stop_all(task_id, failure)
        return writer.close()


def _stop_all(task_id: str, failure: DovetailError) -> None:
    runs.ask_to_stop(task_id, runs.failure_to_text(failure))
    stopping.kill(stopping.mark(task_id))


def give_up(task_id: str, run: str, number: int, failure: DovetailError) -> Ending | None:
    """Ends a part that was tried often enough, and with it the run; what that was, if nothing else is under way.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away; the reconciler goes on.
    """
    _stop_all(task_id, failure)
    plan = _plan(task_id)
    if plan is None or runs.end_part(task_id, run, number, NOTHING) is not Answer.LAST:
        return None
    return finish(task_id, run, plan.key)


def finish(task_id: str, run: str, key: str) -> Ending | None:
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
        # Where it took longer, whoever came next found the run finished.
        with suppress(LockError):
            lock.release()


def _finish(task_id: str, run: str, key: str) -> Ending | None:
    state = runs.find(task_id)
    if state is None or state.run != run:
        return None
    ending = _put_together(task_id, state, key)
    runs.forget(task_id, _plan_key(task_id))
    return ending


def _put_together(task_id: str, state: runs.State, key: str) -> Ending:
    parts = [part or NOTHING for part in state.parts]
    ttl_seconds = settings().result_ttl_seconds
    if state.stop is None:
        return Ending(staging.publish(state.run, parts, key, task_id, ttl_seconds))
    if not any(part.rows for part in parts) or isinstance(Ending(None, state.stop).failure, SnapshotGone):
        staging.discard(state.run, len(parts))
        return Ending(None, state.stop)
    key = results.partial_key(task_id)
    return Ending(staging.publish(state.run, parts, key, task_id, ttl_seconds, complete=False), state.stop)

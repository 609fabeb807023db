"""The Celery tasks, a few lines each."""

import time
from collections.abc import Callable
from typing import Any

from celery import Task, states
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError

from worker_tasks.infra import sources
from worker_tasks.infra.errors import MONGODB_FAILURES, StorageFull
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan import planning, user_orders
from worker_tasks.joins.run import lifecycle, mongodb_errors, outcomes, run_state, sharing
from worker_tasks.joins.spec import spec
from worker_tasks.queue.celery_app import app
from worker_tasks.queue.claim import ClaimedTask
from worker_tasks.queue.retrying import RunInterrupted, retry_while_away
from worker_tasks.records import leads, ledger, live, task_fields
from worker_tasks.results import result_store

PRACTICE_STEPS = 20
#: Seconds between two looks of the practice task whether it is cancelled.
LOOK_SECONDS = 1.0
logger = get_task_logger(__name__)


class JoinTask(ClaimedTask):
    """A task that runs a join, perhaps for others as well, perhaps in parts on other workers."""

    def run_join(self, make_plan: Callable[[], planning.Plan]) -> dict[str, Any]:
        """Runs a join to its end.

        Raises:
            celery.exceptions.Ignore: it was cancelled, or goes on in parts elsewhere.
            celery.exceptions.Reject: a server was away for too long; the message goes back to the queue.
            DovetailError: it failed.
        """
        task_id = self.request.id
        if self.request.attempt > 1:
            if (found := retry_while_away(self, lambda: result_store.find_published(task_id))) is not None:
                self.record_with_outcome(**found.fields)
                return found.outcome
            # What older beginnings have left in MongoDB would go on for nobody.
            retry_while_away(self, lambda: sources.kill_operations(task_id))
        plan = retry_while_away(self, make_plan)
        ending = retry_while_away(self, lambda: self._start(plan))
        if ending is None:
            raise Ignore("goes on in parts")
        fields = {"plan": plan.to_document(), **ending.fields}
        self.record_with_outcome(**fields)
        if ending.failure is not None:
            raise ending.failure
        if ending.is_cancelled or ending.summary is None:
            retry_while_away(self, lambda: outcomes.record_stopped(task_id, fields))
            raise Ignore("cancelled")
        return ending.summary.outcome

    def _start(self, plan: planning.Plan) -> lifecycle.RunOutcome | None:
        task_id = self.request.id
        task: dict[str, Any] = {}
        if len(plan.parts) > 1:
            task = ledger.find_task(task_id)
            task_fields.amend(task_id, {"plan": plan.to_document()}, f"in {len(plan.parts)} parts")
        ending = lifecycle.start_run(
            task_id, self.request.attempt, plan, lambda run, number: app.publish_part(task, run, number)
        )
        if ending is not None and ending.must_begin_again:
            raise RunInterrupted(str(ending.stop))
        return ending

    def make_plan(self, join: spec.JoinSpec, key: str, *, divided: bool) -> planning.Plan:
        """Plans a join.

        Raises:
            celery.exceptions.Ignore: it was cancelled meanwhile.
            DovetailError: it can not be run.
            Interrupted: to be tried again.
        """
        task_id = self.request.id
        try:
            return planning.make_plan(join, key, f"{sources.operation_prefix(task_id)}plan", divided=divided)
        except OperationFailure as error:
            if leads.is_unwanted(task_id):
                outcomes.record_stopped(task_id, {})
                raise Ignore("cancelled") from error
            if mongodb_errors.is_transient(error):
                raise RunInterrupted("planning") from error
            raise mongodb_errors.failure_of_refusal(error) from error

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            super().before_start(task_id, args, kwargs)
        except Ignore:
            # It was cancelled while its worker died with a run that others share.
            sharing.release(app, task_id)
            raise

    def after_return(self, status: str, retval: Any, task_id: str, *_: Any) -> None:
        """Tells those who share this run."""
        outcome = getattr(self.request, "outcome", None) or {}
        fields = {name: value for name, value in outcome.items() if name != "plan"}
        try:
            if status == states.SUCCESS:
                sharing.settle(task_id, retval, fields)
            elif status == states.FAILURE:
                sharing.fail(app, task_id, retval, fields)
                lifecycle.clear_run(task_id)
        except (PyMongoError, RedisError) as error:
            # The outcome is stored; the reconciler does the rest.
            logger.warning("those who share the run of %s are not told yet: %s", task_id, error)


@app.task(bind=True, base=JoinTask)
def join_users_orders(self: JoinTask, user_id: str) -> dict[str, Any]:
    """Joins a user with their orders: ``{"redis_key": where the JSON array is, "count": documents in it}``."""
    return self.run_join(lambda: user_orders.plan(user_id))


@app.task(bind=True, base=JoinTask)
def run_join(self: JoinTask, join: dict[str, Any], *, divided: bool = True) -> dict[str, Any]:
    """Runs a JoinSpec: ``{"redis_key": where the JSON array is, "count": documents in it}``."""
    described = spec.parse_spec(join, settings().open_databases)
    key = result_store.join_key(described.fingerprint)
    outcome = self.run_join(lambda: self.make_plan(described, key, divided=divided))
    self.record_with_outcome(**self.request.outcome, **outcomes.explanation(outcome, join))
    return outcome


@app.task(bind=True, base=Task, ignore_result=True, reject_on_worker_lost=True, retry_on_worker_lost=False)
def join_part(self: Task, task_id: str, run: str, number: int) -> None:
    """Works on one part of a join that another task has begun; the last one ends that task."""
    turn = lifecycle.PartJob(task_id, run, number)
    try:
        ending = retry_while_away(self, lambda: lifecycle.work_on_part(turn))
    except StorageFull as full:
        # Redis does not even take the note that the run is to stop.
        try:
            lifecycle.clear_run(task_id)
        except RedisError as refused:
            logger.warning("what task %s has written stays for now: %s", task_id, refused)
        ending = lifecycle.RunOutcome(None, run_state.failure_to_text(full))
    if ending is not None:
        retry_while_away(self, lambda: outcomes.record_outcome(task_id, ending))


@app.task(bind=True)
def long_running_task(self: ClaimedTask, task_input: str) -> str:
    """A practice task: takes ``LONG_TASK_SECONDS`` and says how far it is."""
    next_look = 0.0
    for step in range(1, PRACTICE_STEPS + 1):
        time.sleep(settings().long_task_seconds / PRACTICE_STEPS)
        if time.monotonic() >= next_look:
            _stop_if_unwanted(self)
            next_look = time.monotonic() + LOOK_SECONDS
        live.report(self.request.id, live.Progress(step, PRACTICE_STEPS, "steps"))
    return f"Processed: {task_input}"


def _stop_if_unwanted(task: ClaimedTask) -> None:
    """Asks whether a task is cancelled, or has ended without this worker.

    Raises:
        celery.exceptions.Ignore: it is.
    """
    task_id = task.request.id
    try:
        if not leads.is_unwanted(task_id):
            return
        if (status := ledger.find_task(task_id)["status"]) in ledger.FINAL_STATES:
            raise Ignore(f"it has ended: {status}")
    except MONGODB_FAILURES as error:
        logger.warning("task %s does not know whether it is cancelled: %s", task_id, error)
        return
    retry_while_away(task, lambda: outcomes.record_stopped(task_id, {}))
    raise Ignore("cancelled")

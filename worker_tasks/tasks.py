"""The Celery tasks that run joins, and a practice task."""

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
from worker_tasks.results import result_store, summaries

PRACTICE_STEPS = 20
#: How often the practice task checks whether it was cancelled, in seconds.
CHECK_SECONDS = 1.0
logger = get_task_logger(__name__)


class JoinTask(ClaimedTask):
    """A task that runs a join. Other tasks may share the run, and other workers may run parts of it."""

    def run_join(self, make_plan: Callable[[], planning.Plan]) -> dict[str, Any]:
        """Runs a join to its end.

        Returns:
            The task's result: ``{"redis_key": the key of a JSON array, "count": the number of its documents}``.

        Raises:
            celery.exceptions.Ignore: the join was cancelled, or other tasks run its parts.
            celery.exceptions.Reject: a server was unavailable for too long; the message goes back to the queue.
            DovetailError: the join failed.
        """
        task_id = self.request.id
        if self.request.attempt > 1:
            if (summary := retry_while_away(self, lambda: result_store.find_published(task_id))) is not None:
                self.record_with_outcome(**summary.fields)
                return summary.outcome
            # Operations of earlier attempts may still be running in MongoDB, although their rows are not needed.
            retry_while_away(self, lambda: sources.kill_operations(task_id))
        plan = retry_while_away(self, make_plan)
        outcome = retry_while_away(self, lambda: self._start(plan))
        if outcome is None:
            raise Ignore("goes on in parts")
        fields = {"plan": plan.to_document(), **outcome.fields}
        self.record_with_outcome(**fields)
        if outcome.failure is not None:
            raise outcome.failure
        if outcome.is_cancelled or outcome.summary is None:
            retry_while_away(self, lambda: outcomes.record_stopped(task_id, fields))
            raise Ignore("cancelled")
        return outcome.summary.outcome

    def _start(self, plan: planning.Plan) -> lifecycle.RunOutcome | None:
        """Starts the run of a plan. Returns its outcome, or None if other tasks run its parts.

        Raises:
            RunInterrupted: the caller should retry the run.
        """
        task_id = self.request.id
        task: dict[str, Any] = {}
        if len(plan.parts) > 1:
            task = ledger.find_task(task_id)
            task_fields.amend(task_id, {"plan": plan.to_document()}, f"in {len(plan.parts)} parts")
        outcome = lifecycle.start_run(
            task_id, self.request.attempt, plan, lambda run, number: app.publish_part(task, run, number)
        )
        if outcome is not None and outcome.must_restart:
            raise RunInterrupted(str(outcome.stop))
        return outcome

    def make_plan(self, join: spec.JoinSpec, key: str, *, divided: bool) -> planning.Plan:
        """Plans a join whose result will have this Redis key.

        Args:
            divided: whether the join may be divided into parts.

        Raises:
            celery.exceptions.Ignore: the task was cancelled in the meantime.
            DovetailError: MongoDB refuses the join.
            RunInterrupted: the caller should retry planning.
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
            # If this task was cancelled while its worker died, the tasks that share its run are still waiting.
            sharing.release(app, task_id)
            raise

    def after_return(self, status: str, retval: Any, task_id: str, *_: Any) -> None:
        """Passes the outcome to the tasks that share this run."""
        outcome_fields = getattr(self.request, "outcome", None) or {}
        fields = {name: value for name, value in outcome_fields.items() if name != "plan"}
        try:
            if status == states.SUCCESS:
                sharing.settle(task_id, retval, fields)
            elif status == states.FAILURE:
                sharing.fail(app, task_id, retval, fields)
                lifecycle.clear_run(task_id)
        except (PyMongoError, RedisError) as error:
            # The outcome is stored, so the reconciler can answer the other tasks later.
            logger.warning("tasks that share the run of %s are not answered yet: %s", task_id, error)


@app.task(bind=True, base=JoinTask)
def join_users_orders(self: JoinTask, user_id: str) -> dict[str, Any]:
    """Joins a user with their orders. Returns ``{"redis_key": the key of a JSON array, "count": its length}``."""
    return self.run_join(lambda: user_orders.plan(user_id))


@app.task(bind=True, base=JoinTask)
def run_join(self: JoinTask, join: dict[str, Any], *, divided: bool = True) -> dict[str, Any]:
    """Runs a JoinSpec, given as JSON. Returns ``{"redis_key": the key of a JSON array, "count": its length}``."""
    join_spec = spec.parse_spec(join, sources.open_databases())
    key = summaries.join_key(join_spec.fingerprint)
    outcome = self.run_join(lambda: self.make_plan(join_spec, key, divided=divided))
    self.record_with_outcome(**self.request.outcome, **outcomes.explanation_fields(outcome, join))
    return outcome


@app.task(bind=True, base=Task, ignore_result=True, reject_on_worker_lost=True, retry_on_worker_lost=False)
def join_part(self: Task, task_id: str, run: str, number: int) -> None:
    """Runs one part of a join that another task has started. The last part records the outcome of that task."""
    part = lifecycle.PartJob(task_id, run, number)
    try:
        outcome = retry_while_away(self, lambda: lifecycle.work_on_part(part))
    except StorageFull as full:
        # Redis has no room even for the request to stop the run.
        try:
            lifecycle.clear_run(task_id)
        except RedisError as refusal:
            logger.warning("the rows of task %s stay in Redis for now: %s", task_id, refusal)
        outcome = lifecycle.RunOutcome(None, run_state.failure_to_text(full))
    if outcome is not None:
        retry_while_away(self, lambda: outcomes.record_outcome(task_id, outcome))


@app.task(bind=True)
def long_running_task(self: ClaimedTask, task_input: str) -> str:
    """A practice task: takes ``LONG_TASK_SECONDS`` and reports its progress."""
    next_check = 0.0
    for step in range(1, PRACTICE_STEPS + 1):
        time.sleep(settings().long_task_seconds / PRACTICE_STEPS)
        if time.monotonic() >= next_check:
            _stop_if_unwanted(self)
            next_check = time.monotonic() + CHECK_SECONDS
        live.report(self.request.id, live.Progress(step, PRACTICE_STEPS, "steps"))
    return f"Processed: {task_input}"


def _stop_if_unwanted(task: ClaimedTask) -> None:
    """Stops a task that was cancelled, or whose document already has a final state.

    Raises:
        celery.exceptions.Ignore: the task stops here.
    """
    task_id = task.request.id
    try:
        if not leads.is_unwanted(task_id):
            return
        if (status := ledger.find_task(task_id)["status"]) in ledger.FINAL_STATES:
            raise Ignore(f"it has ended: {status}")
    except MONGODB_FAILURES as error:
        logger.warning("task %s cannot check whether it is cancelled: %s", task_id, error)
        return
    retry_while_away(task, lambda: outcomes.record_stopped(task_id, {}))
    raise Ignore("cancelled")

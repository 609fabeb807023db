"""The Celery tasks, a few lines each."""

import time
from typing import Any

from celery import Task, states
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger
from pymongo.errors import OperationFailure, PyMongoError

from worker_tasks import endings, ledger, live, results, sharing
from worker_tasks.celery_app import app
from worker_tasks.claim import ClaimedTask
from worker_tasks.errors import MONGODB_FAILURES, REDIS_FAILURES, unavailable
from worker_tasks.joins import checks, execution, explanation, lifecycle, planning, spec, stopping, user_orders
from worker_tasks.settings import settings

PRACTICE_STEPS = 20
logger = get_task_logger(__name__)
AWAY = (*MONGODB_FAILURES, *REDIS_FAILURES)
#: What keeps an empty result from being explained, and does it no harm.
NOT_EXPLAINED: tuple[type[Exception], ...] = (PyMongoError, *REDIS_FAILURES)
#: Seconds before what met a server that is away is tried again: doubled each time, up to the second figure.
FIRST_PAUSE, LONGEST_PAUSE = 1, 30
MAX_RETRIES = 5


class JoinTask(ClaimedTask):
    """A task that runs a join, perhaps for others as well, perhaps in parts on other workers."""

    autoretry_for = AWAY
    retry_backoff = FIRST_PAUSE
    retry_backoff_max = LONGEST_PAUSE
    max_retries = MAX_RETRIES

    def run_plan(self, plan: planning.Plan) -> dict[str, Any]:
        """Runs a join to its end.

        Raises:
            celery.exceptions.Ignore: it was cancelled, or goes on in parts elsewhere.
            DovetailError: it failed.
        """
        task_id = self.request.id

        def publish(run: str, number: int) -> None:
            app.publish_part(task, run, number)

        task: dict[str, Any] = {}
        if len(plan.parts) > 1:
            task = ledger.find(task_id)
            ledger.amend(task_id, {"plan": plan.to_document()}, f"in {len(plan.parts)} parts")
        ending = lifecycle.start(task_id, self.request.attempt, plan, publish)
        if ending is None:
            raise Ignore("goes on in parts")
        fields = {"plan": plan.to_document(), **ending.fields}
        self.record_with_outcome(**fields)
        if ending.failure is not None:
            raise ending.failure
        if ending.is_cancelled or ending.summary is None:
            endings.record_stopped(task_id, fields)
            raise Ignore("cancelled")
        return ending.summary.outcome

    def make_plan(self, join: spec.JoinSpec, key: str, *, divided: bool) -> planning.Plan:
        """Plans a join.

        Raises:
            celery.exceptions.Ignore: it was cancelled meanwhile.
            DovetailError: it can not be run.
        """
        task_id = self.request.id
        try:
            return planning.make_plan(join, key, f"{stopping.mark(task_id)}plan", divided=divided)
        except OperationFailure as error:
            if error.code in execution.KILLED and ledger.find(task_id)["cancel_requested"]:
                endings.record_stopped(task_id, {})
                raise Ignore("cancelled") from error
            raise explanation.of_refusal(error) from error

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
        if status == states.SUCCESS:
            sharing.settle(task_id, retval, fields)
        elif status == states.FAILURE:
            sharing.fail(app, task_id, retval, fields)


@app.task(bind=True, base=JoinTask)
def join_users_orders(self: JoinTask, user_id: str) -> dict[str, Any]:
    """Joins a user with their orders: ``{"redis_key": where the JSON array is, "count": documents in it}``."""
    return self.run_plan(user_orders.plan(user_id))


@app.task(bind=True, base=JoinTask)
def run_join(self: JoinTask, join: dict[str, Any], *, divided: bool = True) -> dict[str, Any]:
    """Runs a JoinSpec: ``{"redis_key": where the JSON array is, "count": documents in it}``."""
    described = spec.read(join, settings().open_databases)
    outcome = self.run_plan(self.make_plan(described, results.join_key(described.fingerprint), divided=divided))
    if outcome["count"] == 0:
        self.record_with_outcome(**self.request.outcome, explanation=_why_empty(described))
    return outcome


def _why_empty(described: spec.JoinSpec) -> list[str]:
    try:
        return checks.why_empty(described)
    except NOT_EXPLAINED as error:
        # The result is there and right; only its explanation is missing.
        logger.warning("an empty result is not explained: %s", error)
        return []


@app.task(bind=True, base=Task, ignore_result=True, max_retries=MAX_RETRIES, default_retry_delay=FIRST_PAUSE)
def join_part(self: Task, task_id: str, run: str, number: int) -> None:
    """Works on one part of a join that another task has begun; the last one ends that task."""
    try:
        ending = lifecycle.work_on(task_id, run, number)
        if ending is not None:
            endings.record(task_id, ending)
    except AWAY as error:
        if self.request.retries == self.max_retries:
            ending = lifecycle.give_up(task_id, run, number, unavailable(error))
            if ending is not None:
                endings.record(task_id, ending)
            raise
        pause = min(FIRST_PAUSE * 2**self.request.retries, LONGEST_PAUSE)
        raise self.retry(exc=error, countdown=pause) from error


@app.task(bind=True)
def long_running_task(self: ClaimedTask, task_input: str) -> str:
    """A practice task: takes ``LONG_TASK_SECONDS`` and says how far it is."""
    for step in range(1, PRACTICE_STEPS + 1):
        time.sleep(settings().long_task_seconds / PRACTICE_STEPS)
        live.report(self.request.id, live.Progress(step, PRACTICE_STEPS, "steps"))
    return f"Processed: {task_input}"

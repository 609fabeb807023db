"""Records the outcome of a run for its task and followers when no worker is executing the task itself."""

from typing import Any

from celery import states
from celery.utils.log import get_task_logger

from worker_tasks.infra import sources
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import DRIVER_ERRORS, DovetailError
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import lifecycle, sharing
from worker_tasks.joins.run.lifecycle import RunOutcome
from worker_tasks.joins.spec import spec
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger

#: If one of these errors prevents the explanation of an empty result, the task still succeeds.
IGNORED_ERRORS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, DovetailError)

logger = get_task_logger(__name__)


def record_outcome(task_id: str, outcome: RunOutcome) -> None:
    """Records the outcome of a join that ran in several parts, or that was stopped while no part was active.

    Raises:
        pymongo.errors.PyMongoError: the outcome may not have been recorded.
    """
    if outcome.is_cancelled:
        record_stopped(task_id, outcome.fields)
    elif outcome.must_restart:
        _restart_in_one_part(task_id)
    elif outcome.failure is not None:
        app.record_failure(task_id, outcome.failure, fields=outcome.fields)
        sharing.fail(app, task_id, outcome.failure, outcome.fields)
    elif outcome.summary is not None:
        answer, fields = outcome.summary.outcome, outcome.fields
        if not answer["count"]:
            fields |= explanation_fields(answer, _join_of(ledger.find_task(task_id)))
        sharing.answer(task_id, answer, fields, f"{len(outcome.summary.segments)} parts put together")
        sharing.settle(task_id, answer, fields)


def _join_of(task: Document) -> Any:
    """The join in a task's arguments, in the form that :func:`worker_tasks.tasks.run_join` accepts."""
    return task["args"][0] if task["args"] else task["kwargs"].get("join")


def explanation_fields(outcome: Document, join: Any) -> Document:
    """The fields of a task document that explain an empty result. There are no such fields if the result has rows.

    Args:
        join: a JoinSpec as JSON.
    """
    if outcome["count"]:
        return {}
    try:
        return {"explanation": checks.explain_empty(spec.parse_spec(join, sources.open_databases()))}
    except IGNORED_ERRORS as error:
        # The result itself is correct; only its explanation is missing.
        logger.warning("could not explain an empty result: %s", error)
        return {"explanation": []}


def _restart_in_one_part(task_id: str) -> None:
    task = ledger.find_task(task_id)
    kwargs = task["kwargs"] | {"divided": False}
    note = "what its parts had read, or the instant they read at, is gone: run again in one part"
    if ledger.transition(task_id, states.PENDING, fields={"kwargs": kwargs, "crashes": 0}, note=note):
        app.publish_again(task | {"kwargs": kwargs})
    else:
        # The task was cancelled, but its run continued for the followers.
        sharing.hand_over(app, task_id)


def record_stopped(task_id: str, fields: Document) -> None:
    """Records that a join was stopped, and how many of its operations MongoDB is still running.

    Raises:
        pymongo.errors.PyMongoError: the cancellation may not have been recorded.
    """
    left = sources.kill_operations(task_id)
    lifecycle.clear_run(task_id)
    note = f"stopped; MongoDB still has {left} operations of it" if left else "stopped; MongoDB has nothing of it left"
    cancelled = {"result": ledger.CANCELLED, "date_done": ledger.now(), "left_in_mongodb": left, **fields}
    ledger.transition(task_id, states.REVOKED, fields=cancelled, note=note)
    sharing.hand_over(app, task_id)

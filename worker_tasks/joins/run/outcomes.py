"""How a join ended, recorded for its task and all that share its run, where its own message is not there to do so."""

from typing import Any

from celery import states
from celery.utils.log import get_task_logger

from worker_tasks.infra import sources
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import DRIVER_ERRORS, DovetailError
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import lifecycle, sharing
from worker_tasks.joins.run.lifecycle import RunOutcome
from worker_tasks.joins.spec import spec
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger

#: What keeps an empty result from being explained, and does it no harm.
NOT_EXPLAINED: tuple[type[Exception], ...] = (*DRIVER_ERRORS, DovetailError)

logger = get_task_logger(__name__)


def record_outcome(task_id: str, ending: RunOutcome) -> None:
    """Records how a join ended that went on in parts, or of which nothing was under way when it was stopped.

    Raises:
        pymongo.errors.PyMongoError: not known to be recorded.
    """
    if ending.is_cancelled:
        record_stopped(task_id, ending.fields)
    elif ending.must_restart:
        _begin_again_in_one_part(task_id)
    elif ending.failure is not None:
        app.record_failure(task_id, ending.failure, fields=ending.fields)
        sharing.fail(app, task_id, ending.failure, ending.fields)
    elif ending.summary is not None:
        outcome = ending.summary.outcome
        fields = ending.fields
        if not outcome["count"]:
            fields |= explanation_fields(outcome, _join_of(ledger.find_task(task_id)))
        sharing.answer(task_id, outcome, fields, f"{len(ending.summary.segments)} parts put together")
        sharing.settle(task_id, outcome, fields)


def _join_of(task: Document) -> Any:
    """The join that a task was given, as :func:`worker_tasks.tasks.run_join` takes it."""
    return task["args"][0] if task["args"] else task["kwargs"].get("join")


def explanation_fields(outcome: Document, join: Any) -> Document:
    """The fields of a task document that say why a result is empty; none for a result with rows.

    Args:
        join: a JoinSpec, as JSON has it.
    """
    if outcome["count"]:
        return {}
    try:
        return {"explanation": checks.explain_empty(spec.parse_spec(join, settings().open_databases))}
    except NOT_EXPLAINED as error:
        # The result is there and right; only its explanation is missing.
        logger.warning("an empty result is not explained: %s", error)
        return {"explanation": []}


def _begin_again_in_one_part(task_id: str) -> None:
    task = ledger.find_task(task_id)
    kwargs = task["kwargs"] | {"divided": False}
    note = "what its parts had read, or the instant they read at, is gone: run again in one part"
    if ledger.transition(task_id, states.PENDING, fields={"kwargs": kwargs, "crashes": 0}, note=note):
        app.publish_again(task | {"kwargs": kwargs})
    else:
        # It was cancelled, and its run went on for others.
        sharing.hand_over(app, task_id)


def record_stopped(task_id: str, fields: Document) -> None:
    """Records that a join was stopped, with MongoDB's answer to the question whether anything of it is left.

    Raises:
        pymongo.errors.PyMongoError: not known to be recorded.
    """
    left = sources.kill_operations(task_id)
    lifecycle.clear_run(task_id)
    note = f"stopped; MongoDB still has {left} operations of it" if left else "stopped; MongoDB has nothing of it left"
    cancelled = {"result": ledger.CANCELLED, "date_done": ledger.now(), "left_in_mongodb": left, **fields}
    ledger.transition(task_id, states.REVOKED, fields=cancelled, note=note)
    sharing.hand_over(app, task_id)

"""The one way in: record, then publish."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery import Task, states
from celery.utils import uuid
from redis.exceptions import RedisError

from worker_tasks.infra import redis_memory, sources
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput, TaskNotFound, is_unavailable, named_driver_errors
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import lifecycle, outcomes, run_state, sharing
from worker_tasks.joins.run.run_state import Answer
from worker_tasks.joins.spec.spec import JoinSpec, parse, require_open
from worker_tasks.queue.celery_app import app
from worker_tasks.records import leads, ledger, task_search
from worker_tasks.records import metadata as metadata_rules
from worker_tasks.results import result_store, retention

RUN_JOIN = "worker_tasks.tasks.run_join"
#: How often another task is found to lead a join, and found to have ended by then.
SHARING_TRIES = 5

logger = logging.getLogger(__name__)
#: What is left to a live result that still answers another task.


def submit(task: Task, *args: Any, metadata: dict[str, Any] | None = None, requested_by: str | None = None) -> str:
    """Records a task with its metadata, then publishes it; returns without waiting for it.

    Returns:
        The task id.

    Raises:
        InvalidInput: the metadata can not be kept; nothing was recorded.
        ServiceUnavailable: a server is away, refuses, or has no room, and nothing was recorded; or Redis went away
            just then, and the record says that the task was not published.
    """
    metadata = {} if metadata is None else metadata
    if errors := metadata_rules.metadata_errors(metadata):
        raise InvalidInput(errors)
    with named_driver_errors():
        redis_memory.require_room()
        return task.apply_async(args, metadata=metadata, requested_by=requested_by).id


def submit_again(task_id: str) -> str:
    """Submits anew what this task asked for, with its metadata.

    Returns:
        The new task's id.

    Raises:
        TaskNotFound: no task document has this id.
        InvalidInput: nothing says what the task was to do.
        ServiceUnavailable: as for :func:`submit`.
    """
    with named_driver_errors():
        asked = ledger.find_task(task_id)
        if asked["name"] is None:
            raise InvalidInput({"task_id": "names a task of which nothing says what it was to do."})
        if asked.get("join") is not None:
            return submit_join(read_join(asked["join"]), metadata=asked["metadata"], fresh=True)
        redis_memory.require_room()
        return app.send_task(
            asked["name"], asked["args"], asked["kwargs"], queue=asked["queue"], metadata=asked["metadata"]
        ).id


def submit_join(
    spec: JoinSpec, *, metadata: dict[str, Any] | None = None, requested_by: str | None = None, fresh: bool = False
) -> str:
    """Records a join with its metadata, and has it run: unless its result is there, or another task runs it just now.

    Args:
        spec: a join from :func:`read_join` or :func:`admit`.
        fresh: runs it anew in any case.

    Returns:
        The task id.

    Raises:
        InvalidInput: the metadata can not be kept; nothing was recorded.
        ServiceUnavailable: a server is away, refuses, or has no room, and nothing was recorded; or Redis went away
            just then, and the record says that the task was not published.
    """
    metadata = {} if metadata is None else metadata
    if errors := metadata_rules.metadata_errors(metadata):
        raise InvalidInput(errors)
    with named_driver_errors():
        join = spec.canonical()
        document = ledger.new_document(
            uuid(),
            RUN_JOIN,
            [join],
            metadata=metadata,
            requested_by=requested_by,
            join=join,
            fingerprint=spec.fingerprint,
        )
        if (checked := checks.kept_checks(spec.fingerprint)) is not None:
            document["checks"] = checks.verdict(checked)
        if fresh:
            _require_room()
            ledger.record(document)
            app.publish_recorded(document)
        else:
            _run_or_share(document)
    return document["_id"]


def read_join(join: Any) -> JoinSpec:
    """Reads a join from JSON: the only way in for one that somebody wrote.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
        ServiceUnavailable: MongoDB is away.
    """
    return admit(parse(join))


def admit(spec: JoinSpec) -> JoinSpec:
    """The same join, once its database is known to be open and its collections to exist.

    Raises:
        InvalidInput: names every collection that does not exist, or the database.
        ServiceUnavailable: MongoDB is away.
    """
    require_open(spec, settings().open_databases)
    with named_driver_errors():
        Catalog(spec, sources.default_source().database(spec.database)).check()
    return spec


def _run_or_share(document: Document) -> None:
    """Records a join, and has it run, unless there is or will be a result that answers it."""
    for _ in range(SHARING_TRIES):
        if (summary := _live_result(document)) is not None:
            ledger.record(document)
            _answer_at_once(document, summary)
            return
        _require_room()
        try:
            ledger.record(document | {"leads": document["fingerprint"]})
        except ledger.AlreadyLed:
            if (leader := task_search.leader_of(document["fingerprint"])) is None:
                continue  # it has ended by now, most likely with a result
            ledger.record(document | {"shares": leader["_id"]})
            with _repaired_later(document["_id"]):
                # It may have ended before this one was there to be told.
                sharing.join_run(app, leader["_id"])
        else:
            _lead(document)
        return
    ledger.record(document)
    app.publish_recorded(document)


def _require_room() -> None:
    """Looks before anything is recorded of a join that Redis has no room for."""
    redis_memory.require_room()
    redis_memory.require_queue()


def _lead(document: Document) -> None:
    """Has a join run, unless whoever led before has published its result just before."""
    try:
        summary = _live_result(document)
    except RedisError as error:
        app.record_unpublished(document, error, sent=False)
        raise
    if summary is None:
        app.publish_recorded(document)
    else:
        _answer_at_once(document, summary)


def _live_result(document: Document) -> result_store.Summary | None:
    """A result that answers this join, and will be there for a while."""
    summary = result_store.find_result(result_store.join_key(document["fingerprint"]))
    return summary if summary is not None and retention.can_answer(summary) else None


def _answer_at_once(document: Document, summary: result_store.Summary) -> None:
    fields = summary.fields | {"shares": summary.task_id}
    if not summary.count:
        with suppress(TaskNotFound), _repaired_later(document["_id"]):
            fields["explanation"] = ledger.find_task(summary.task_id).get("explanation")
    with _repaired_later(document["_id"]):
        sharing.answer(document["_id"], summary.outcome, fields, f"answered by the live result of {summary.task_id}")
        sharing.settle(document["_id"], summary.outcome, fields)


@contextmanager
def _repaired_later(task_id: str) -> Iterator[None]:
    """Leaves the rest to the reconciler if a server goes away: a recorded task is accepted."""
    try:
        yield
    except Exception as error:
        if not is_unavailable(error):
            raise
        logger.warning("task %s is recorded, and left to the reconciler: %s", task_id, error)


def cancel(task_id: str) -> bool:
    """Ends a task that is no longer wanted; a run that others share goes on for them, and stops with the last of them.

    What of a join is under way in MongoDB is ended at once. Its worker keeps what was joined until then; if no part of
    it is under way, that is done here.

    Raises:
        TaskNotFound: no task document has this id.
        ServiceUnavailable: a server is away.

    Returns:
        False where the task had come to its end already.
    """
    with named_driver_errors():
        task = ledger.find_task(task_id)
        if task.get("shares"):
            return _leave(task_id, task["shares"])
        if task["status"] != states.PENDING and task_search.followers_of(task_id):
            return _leave(task_id, task_id)
        if not ledger.request_cancellation(task_id):
            return False
        if ledger.find_task(task_id)["status"] in ledger.FINAL_STATES:
            sharing.hand_over(app, task_id)
        else:
            _stop(task_id)
        return True


def _leave(task_id: str, run_id: str) -> bool:
    """Takes a task out of a run that it shares, and stops the run if it was the last; False where it had ended."""
    left = leads.leave_run(task_id) if task_id == run_id else ledger.request_cancellation(task_id)
    if left and ledger.find_task(run_id)["status"] in ledger.FINAL_STATES and not task_search.followers_of(run_id):
        leads.end_run(run_id)
        # Somebody may have joined it in between.
        sharing.hand_over(app, run_id)
        _stop(run_id)
    return left


def _stop(run_id: str) -> None:
    idle = run_state.ask_to_stop(run_id) is Answer.IDLE
    sources.kill_operations(run_id)
    # Where no part is under way nobody else would end it before its next part is taken by a worker.
    if (
        idle
        and (state := run_state.find_run(run_id)) is not None
        and (ending := lifecycle.finish_run(run_id, state.run, ""))
    ):
        outcomes.record_outcome(run_id, ending)

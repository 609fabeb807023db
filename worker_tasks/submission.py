"""Submits and cancels tasks. Every submission is recorded first and then published."""

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
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.layout import layout_of
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import lifecycle, outcomes, run_state, sharing
from worker_tasks.joins.run.run_state import Answer
from worker_tasks.joins.spec.spec import JoinSpec, parse, require_open
from worker_tasks.queue.celery_app import app
from worker_tasks.records import leads, ledger, task_search
from worker_tasks.records import metadata as metadata_rules
from worker_tasks.results import result_store, retention, summaries

RUN_JOIN = "worker_tasks.tasks.run_join"
#: The largest number of attempts to join another task's run. An attempt fails if the run has just ended.
SHARING_TRIES = 5

logger = logging.getLogger(__name__)


def submit(task: Task, *args: Any, metadata: dict[str, Any] | None = None, requested_by: str | None = None) -> str:
    """Records a task with its metadata, publishes it, and returns without waiting for it.

    Returns:
        The task id.

    Raises:
        InvalidInput: the metadata cannot be stored; nothing was recorded.
        ServiceUnavailable: a server is unavailable, refuses the operation, or has no room. Nothing was recorded, unless
            Redis became unavailable later. In that case, the task document says that the task was not published.
    """
    metadata = {} if metadata is None else metadata
    if errors := metadata_rules.metadata_errors(metadata):
        raise InvalidInput(errors)
    with named_driver_errors():
        redis_memory.require_room()
        return task.apply_async(args, metadata=metadata, requested_by=requested_by).id


def submit_again(task_id: str) -> str:
    """Submits a new task with the name, arguments and metadata of this one.

    Returns:
        The id of the new task.

    Raises:
        TaskNotFound: no task document has this id.
        InvalidInput: the document does not name a task to run.
        ServiceUnavailable: as for :func:`submit`.
    """
    with named_driver_errors():
        original = ledger.find_task(task_id)
        if original["name"] is None:
            raise InvalidInput({"task_id": "names a task of which nothing says what it was to do."})
        if original.get("join") is not None:
            return submit_join(read_join(original["join"]), metadata=original["metadata"], fresh=True)
        redis_memory.require_room()
        return app.send_task(
            original["name"],
            original["args"],
            original["kwargs"],
            queue=original["queue"],
            metadata=original["metadata"],
        ).id


def submit_join(
    spec: JoinSpec, *, metadata: dict[str, Any] | None = None, requested_by: str | None = None, fresh: bool = False
) -> str:
    """Submits a join. Reuses a live result or a run in progress if there is one, and starts a new run otherwise.

    Args:
        spec: a join from :func:`read_join` or :func:`admit`.
        metadata: the metadata of the task.
        requested_by: the person or client that the task document names.
        fresh: whether to start a new run even if another result or run could be used.

    Returns:
        The task id.

    Raises:
        InvalidInput: the metadata cannot be stored; nothing was recorded.
        ServiceUnavailable: as for :func:`submit`.
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
        if (cached := checks.cached_checks(spec.fingerprint)) is not None:
            document["checks"] = checks.verdict(cached)
        if fresh:
            _require_room()
            ledger.record(document)
            app.publish_recorded(document)
        else:
            _run_or_share(document)
    return document["_id"]


def read_join(join: Any) -> JoinSpec:
    """Parses a join from JSON and checks it as :func:`admit` does.

    Raises:
        InvalidInput: some fields are invalid; the error has the path of each one and the reason.
        ServiceUnavailable: MongoDB is unavailable.
    """
    return admit(parse(join))


def admit(spec: JoinSpec) -> JoinSpec:
    """Returns the join after checking that its database is open for joins and that its collections exist.

    Raises:
        InvalidInput: the database is not open, collections are missing, or no method can run the join; the error has
            each path and the reason.
        ServiceUnavailable: MongoDB is unavailable.
    """
    require_open(spec, sources.open_databases())
    layout_of(spec)
    with named_driver_errors():
        Catalog(spec).require_collections()
    return spec


def _run_or_share(document: Document) -> None:
    """Records a join, then answers it with a live result, makes it follow a run in progress, or starts a run."""
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
                continue  # the leader has just ended, most likely with a result
            ledger.record(document | {"shares": leader["_id"]})
            with _left_to_reconciler(document["_id"]):
                # The leader may have ended before this follower was recorded.
                sharing.join_run(app, leader["_id"])
        else:
            _lead(document)
        return
    ledger.record(document)
    app.publish_recorded(document)


def _require_room() -> None:
    """Raises StorageFull if Redis has no room for a result or a message."""
    redis_memory.require_room()
    redis_memory.require_queue()


def _lead(document: Document) -> None:
    """Starts the run of a join, unless an earlier leader has published a result in the meantime."""
    try:
        summary = _live_result(document)
    except RedisError as error:
        app.record_unpublished(document, error, sent=False)
        raise
    if summary is None:
        app.publish_recorded(document)
    else:
        _answer_at_once(document, summary)


def _live_result(document: Document) -> summaries.Summary | None:
    """A result that answers this join and will not expire soon, or None."""
    summary = result_store.find_result(summaries.join_key(document["fingerprint"]))
    return summary if summary is not None and retention.can_answer(summary) else None


def _answer_at_once(document: Document, summary: summaries.Summary) -> None:
    fields = summary.fields | {"shares": summary.task_id}
    if not summary.count:
        with suppress(TaskNotFound), _left_to_reconciler(document["_id"]):
            fields["explanation"] = ledger.find_task(summary.task_id).get("explanation")
    with _left_to_reconciler(document["_id"]):
        sharing.answer(document["_id"], summary.outcome, fields, f"answered by the live result of {summary.task_id}")
        sharing.settle(document["_id"], summary.outcome, fields)


@contextmanager
def _left_to_reconciler(task_id: str) -> Iterator[None]:
    """Logs the error if a server becomes unavailable. The reconciler will then repair the recorded task."""
    try:
        yield
    except Exception as error:
        if not is_unavailable(error):
            raise
        logger.warning("task %s is recorded and left to the reconciler: %s", task_id, error)


def cancel(task_id: str) -> bool:
    """Cancels a task. If other tasks share its run, the run continues until the last of them is cancelled.

    Stopping a run kills its operations in MongoDB at once. The worker then keeps the rows joined so far. If no part is
    active, this function keeps them instead.

    Returns:
        False if the task had already ended.

    Raises:
        TaskNotFound: no task document has this id.
        ServiceUnavailable: a server is unavailable.
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
    """Takes a task out of a shared run; stops the run if no task is left. Returns False if the task had ended."""
    left = leads.leave_run(task_id) if task_id == run_id else ledger.request_cancellation(task_id)
    if left and ledger.find_task(run_id)["status"] in ledger.FINAL_STATES and not task_search.followers_of(run_id):
        leads.end_run(run_id)
        # Another task may have joined the run since the last check.
        sharing.hand_over(app, run_id)
        _stop(run_id)
    return left


def _stop(run_id: str) -> None:
    """Stops a run, kills its operations in MongoDB, and records its outcome if no part is active."""
    is_idle = run_state.request_stop(run_id) is Answer.IDLE
    sources.kill_operations(run_id)
    # If no part is active, the run would otherwise not end until a worker takes the next part.
    if (
        is_idle
        and (state := run_state.find_run(run_id)) is not None
        and (outcome := lifecycle.finish_run(run_id, state.run, ""))
    ):
        outcomes.record_outcome(run_id, outcome)

"""Retries the work of a task while a server is unavailable, with growing pauses. The task keeps its lease."""

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Task
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from kombu.utils.functional import retry_over_time
from pymongo.errors import PyMongoError

from worker_tasks.infra.errors import ServiceUnavailable, StorageFull, TaskNotFound, named_driver_errors
from worker_tasks.queue.claim import ClaimedTask
from worker_tasks.records import ledger

#: The pause before the first retry, the increase with each retry, and the longest pause, in seconds.
FIRST_PAUSE, PAUSE_STEP, MAX_PAUSE = 1, 2, 15
#: After this many seconds of retries, the message goes back to its queue and frees the slot for other tasks.
IN_PLACE_SECONDS = 60

Result = TypeVar("Result")
logger = get_task_logger(__name__)


class RunInterrupted(Exception):
    """A run was interrupted for a reason other than the join itself, so the caller should retry.

    ``__cause__`` is the reason.
    """


class _Retry(Exception):
    """The work needs another try."""


def retry_while_away(task: Task, work: Callable[[], Result]) -> Result:
    """Calls ``work`` for this task. Retries it as long as a server is unavailable.

    Returns:
        The result of ``work``.

    Raises:
        celery.exceptions.Ignore: the task has ended, or another worker has started it in the meantime.
        celery.exceptions.Reject: the outage outlasted ``IN_PLACE_SECONDS``; the message goes back to its queue.
        Exception: any other error of ``work``.
    """

    def work_once() -> Result:
        try:
            with named_driver_errors():
                return work()
        except StorageFull:
            raise
        except (RunInterrupted, ServiceUnavailable) as error:
            raise _Retry(_describe_cause(error)) from error

    def before_retry(error: Exception, pauses: Any, retries: int) -> float:
        logger.warning("%s, try %d: %s", task.request.id, retries + 1, error)
        if isinstance(task, ClaimedTask) and not _is_newest_attempt(task):
            raise Ignore("another worker has it, or it has ended")
        return next(pauses)

    pauses = {"interval_start": FIRST_PAUSE, "interval_step": PAUSE_STEP, "interval_max": MAX_PAUSE}
    try:
        return retry_over_time(work_once, _Retry, errback=before_retry, timeout=IN_PLACE_SECONDS, **pauses)
    except _Retry as error:
        _give_back(task, error)
        raise Reject(error, requeue=True) from error


def _describe_cause(error: Exception) -> str:
    return f"{error} ({error.__cause__!r})"[:500]


def _is_newest_attempt(task: ClaimedTask) -> bool:
    """Whether this attempt is the task's newest one. Returns True while MongoDB is unavailable."""
    try:
        document = ledger.find_task(task.request.id)
    except PyMongoError:
        return True
    except TaskNotFound:
        return False
    return document["attempt"] == task.request.attempt


def _give_back(task: Task, error: Exception) -> None:
    """Records that the task waits again."""
    if not isinstance(task, ClaimedTask):
        return
    try:
        ledger.give_back(task.request.id, f"back in the queue: {error}"[:200], task.request.attempt)
    except PyMongoError as away:
        logger.warning("task %s is back in the queue, but its document does not say so: %s", task.request.id, away)

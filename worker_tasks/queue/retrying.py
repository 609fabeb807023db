"""Trying again for as long as a server is away: in place, with growing pauses, while the lease of the task lives."""

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

#: Seconds until the first new try, what is added after each, and the longest pause.
FIRST_PAUSE, LONGER_BY, LONGEST_PAUSE = 1, 2, 15
#: Seconds after which the message goes back to its queue, so that others get the slot.
IN_PLACE_SECONDS = 60

Done = TypeVar("Done")
logger = get_task_logger(__name__)


class RunInterrupted(Exception):
    """A run was broken off by something that says nothing of the join: it is to be tried again. ``__cause__`` is it."""


class _Away(Exception):
    """To be tried again."""


def retry_while_away(task: Task, work: Callable[[], Done]) -> Done:
    """Does ``work`` for this task, again and again for as long as a server is away.

    Raises:
        celery.exceptions.Ignore: meanwhile the task was begun by another worker, or ended.
        celery.exceptions.Reject: it took too long; the message goes back to its queue.
        Exception: what ``work`` raises otherwise.
    """

    def once() -> Done:
        try:
            with named_driver_errors():
                return work()
        except StorageFull:
            raise
        except (RunInterrupted, ServiceUnavailable) as error:
            raise _Away(_cause(error)) from error

    def before_the_next(error: Exception, pauses: Any, tries: int) -> float:
        logger.warning("%s, try %d: %s", task.request.id, tries + 1, error)
        if isinstance(task, ClaimedTask) and not _is_ours(task):
            raise Ignore("another worker has it, or it has ended")
        return next(pauses)

    pauses = {"interval_start": FIRST_PAUSE, "interval_step": LONGER_BY, "interval_max": LONGEST_PAUSE}
    try:
        return retry_over_time(once, _Away, errback=before_the_next, timeout=IN_PLACE_SECONDS, **pauses)
    except _Away as error:
        _give_back(task, error)
        raise Reject(error, requeue=True) from error


def _cause(error: Exception) -> str:
    return f"{error} ({error.__cause__!r})"[:500]


def _is_ours(task: ClaimedTask) -> bool:
    """Whether this beginning of the task is its newest, as far as is known."""
    try:
        document = ledger.find_task(task.request.id)
    except PyMongoError:
        return True
    except TaskNotFound:
        return False
    return document["attempt"] == task.request.attempt


def _give_back(task: Task, error: Exception) -> None:
    if not isinstance(task, ClaimedTask):
        return
    try:
        ledger.give_back(task.request.id, f"back in the queue: {error}"[:200], task.request.attempt)
    except PyMongoError as unknown:
        logger.warning("task %s is back in the queue, and its document does not say so: %s", task.request.id, unknown)

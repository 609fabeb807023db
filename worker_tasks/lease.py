"""What keeps a running task ours: the visibility of its message, renewed while it is worked on.

Redis has no connection-bound delivery, so kombu gives a message to another worker once it has been
unacknowledged for the visibility timeout, and never renews it: a task that takes longer runs twice at once.
Renewed here, the timeout can be short, and a killed worker's tasks move on soon.
"""

import time
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.request import Request
from celery.worker.state import task_ready
from pymongo.errors import PyMongoError

from worker_tasks import ledger
from worker_tasks.backend import is_no_outcome
from worker_tasks.errors import REDIS_FAILURES, TaskNotFound

logger = get_logger(__name__)


class Lease(bootsteps.StartStopStep):
    """A step of the consumer that renews the delivered, unacknowledged messages of this worker."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any):
        self._timer: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        interval = consumer.app.conf.broker_transport_options["visibility_timeout"] / 3
        self._timer = consumer.timer.call_repeatedly(interval, self._renew, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _renew(self, consumer: Any) -> None:
        channel = consumer.task_consumer.channel
        if not (tags := list(channel.qos._delivered)):  # noqa: SLF001 - kombu has no public way
            return
        try:
            with channel.conn_or_acquire() as client:
                # XX: a message that was acknowledged meanwhile does not come back.
                client.zadd(channel.unacked_index_key, dict.fromkeys(tags, time.time()), xx=True)
        except REDIS_FAILURES as error:
            logger.warning("visibility of %d messages not renewed: %s", len(tags), error)


class LeasedRequest(Request):
    """A task in the worker's main process, which puts its message back where it has not come to an end."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if is_no_outcome(error):
            logger.error("task %s is back in the queue: %r", self.id, error)
            task_ready(self)
            self.reject(requeue=True)
            return
        if isinstance(error, WorkerLostError | SystemExit) and not (self._already_cancelled or self._already_revoked):
            self._note_loss(error)
        super().on_failure(exc_info, send_failed_event, return_ok)

    def _note_loss(self, error: BaseException) -> None:
        try:
            ledger.amend(self.id, {}, f"the process that ran it was lost: {error}")
        except (PyMongoError, TaskNotFound) as missing:
            logger.error("task %s lost its process, and its document does not say so: %s", self.id, missing)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Ends the task in a worker that stops; Celery puts its message back."""
        super().cancel(pool, signal, emit_retry)
        try:
            ledger.give_back(self.id, "its worker stopped; back in the queue")
        except PyMongoError as error:
            logger.error("task %s is back in the queue, and its document does not say so: %s", self.id, error)

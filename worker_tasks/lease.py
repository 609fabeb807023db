"""What keeps a running task ours: the visibility of its message, renewed while it is worked on.

Redis has no connection-bound delivery, so kombu gives a message to another worker once it has been
unacknowledged for the visibility timeout, and never renews it: a task that takes longer runs twice at once.
Renewed here, the timeout can be short, and a killed worker's tasks move on soon.
"""

import time
from typing import Any

from celery import bootsteps, states
from celery.utils.log import get_logger
from celery.worker.request import Request
from pymongo.errors import PyMongoError

from worker_tasks import ledger
from worker_tasks.errors import REDIS_FAILURES

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
    """A task in the worker's main process. A stopping worker cancels it, and Celery puts its message back."""

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        super().cancel(pool, signal, emit_retry)
        try:
            ledger.transition(self.id, states.PENDING, note="its worker stopped; back in the queue")
        except PyMongoError as error:
            logger.error("task %s is back in the queue, and its document does not say so: %s", self.id, error)

"""Keeps the messages of a worker its own while it works on them, and ends a worker that takes none.

Redis has no connection-bound delivery: a message that is not acknowledged within the visibility timeout goes to another
worker. Leases are renewed here, so the timeout can be short, and a killed worker's tasks move on soon.
"""

import os
import threading
import time
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from worker_tasks import ledger
from worker_tasks.backend import is_no_outcome
from worker_tasks.broker import leases
from worker_tasks.connections import connections
from worker_tasks.errors import TaskNotFound

#: Seconds until a renewal that failed is tried again.
RETRY_SECONDS = 1.0
#: Visibility timeouts within which a worker that has a free slot takes a message, if its queue has any.
DEAF_AFTER = 2
#: Seconds that a deaf worker has to end by itself.
LEAVE_SECONDS = 15.0

logger = get_logger(__name__)


class Lease(bootsteps.StartStopStep):
    """Renews the leases, in a thread of the worker's main process and on a connection of its own.

    A main loop that waits for its broker does not keep it from that.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any):
        self._stopped = threading.Event()
        self._deaf_since: float | None = None
        self._taken = -1
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:
        threading.Thread(target=self._run, args=(worker,), name="lease", daemon=True).start()

    def stop(self, worker: Any) -> None:
        self._stopped.set()

    terminate = stop

    def _run(self, worker: Any) -> None:
        visibility = worker.app.conf.broker_transport_options["visibility_timeout"]
        pause = 0.0
        while not self._stopped.wait(pause):
            try:
                leases.renew()
                if self._is_deaf(worker, visibility * DEAF_AFTER):
                    self._leave()
                pause = visibility / 3
            except RedisError as error:
                logger.warning("leases not renewed: %s", error)
                pause = RETRY_SECONDS
            except Exception:
                logger.exception("leases not renewed")
                pause = RETRY_SECONDS

    def _is_deaf(self, worker: Any, within: float) -> bool:
        """Whether messages wait and a slot is free, and yet nothing was taken for so many seconds.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        # What counts down to its time takes no slot.
        has_room = len(leases) - len(state.scheduled_requests) < worker.concurrency
        takes_nothing = leases.taken == self._taken and has_room
        self._taken = leases.taken
        if not takes_nothing or state.should_stop is not None or not _waiting(worker):
            self._deaf_since = None
            return False
        now = time.monotonic()
        self._deaf_since = self._deaf_since or now
        return now - self._deaf_since >= within

    def _leave(self) -> None:
        """Ends the worker with an error, so that its supervisor starts it anew."""
        logger.critical("messages wait and a slot is free, but this worker takes none: it leaves")
        state.should_stop = 1
        time.sleep(LEAVE_SECONDS)
        os._exit(1)


def _waiting(worker: Any) -> int:
    """How many messages wait in the queues that this worker consumes from."""
    with connections().queue.pipeline(transaction=False) as pipe:
        for queue in worker.app.amqp.queues.consume_from:
            pipe.llen(queue)
        return sum(pipe.execute())


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

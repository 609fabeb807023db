"""Keeps the messages of a worker its own while it works on them, and ends a worker that takes none.

Redis has no connection-bound delivery: a message that is not acknowledged within the visibility timeout goes to another
worker. Leases are renewed here, so the timeout can be short, and a killed worker's tasks move on soon.
"""

import os
import threading
import time
from collections.abc import Callable
from signal import SIGTERM
from typing import Any

from billiard.common import TERM_SIGNAL, TERM_SIGNAME
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import bootsteps
from celery.exceptions import InvalidTaskError
from celery.platforms import signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from worker_tasks.infra import sources
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import REDIS_FAILURES, TaskNotFound
from worker_tasks.joins.run import sharing
from worker_tasks.queue.backend import requires_redelivery
from worker_tasks.queue.broker import leases
from worker_tasks.queue.claim import MAX_ID_LENGTH, is_task_id
from worker_tasks.records import ledger, task_fields

#: Seconds between two looks whether there is anything to do; so soon a renewal that failed is tried again.
LOOK_SECONDS = 0.5
#: Visibility timeouts within which a worker that has a free slot takes a message, if its queue has any.
DEAF_AFTER = 2
#: Seconds that it has at least: kombu needs 13 of them to give up a connection that no longer answers.
LEAST_DEAF_SECONDS = 25.0
#: Seconds that a deaf worker has to end by itself.
LEAVE_SECONDS = 15.0

logger = get_logger(__name__)
#: What keeps a note from being taken; the reconciler sees to the rest.
NOT_DONE: tuple[type[Exception], ...] = (PyMongoError, TaskNotFound, *REDIS_FAILURES)


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
        due = 0.0
        while not self._stopped.wait(LOOK_SECONDS):
            if time.monotonic() < due and not leases.has_pending_writes:
                continue
            try:
                leases.renew()
                if self._is_deaf(worker, max(visibility * DEAF_AFTER, LEAST_DEAF_SECONDS)):
                    self._leave()
                due = time.monotonic() + visibility / 3
            except RedisError as error:
                logger.warning("leases not renewed: %s", error)
                due = 0.0
            except Exception:
                logger.exception("leases not renewed")
                due = 0.0

    def _is_deaf(self, worker: Any, within: float) -> bool:
        """Whether messages wait and a slot is free, and yet nothing was taken for so many seconds.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        # What counts down to its time takes no slot.
        has_room = len(leases) - len(state.scheduled_requests) < worker.concurrency
        takes_nothing = leases.total_taken == self._taken and has_room
        self._taken = leases.total_taken
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

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        if not is_task_id(self.id):
            raise InvalidTaskError(f"a task id is text of 1 to {MAX_ID_LENGTH} characters, not {self.id!r:.100}")

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if requires_redelivery(error):
            logger.error("task %s is back in the queue: %r", self.id, error)
            task_ready(self)
            self.reject(requeue=True)
            return
        if isinstance(error, WorkerLostError | SystemExit) and not (self._already_cancelled or self._already_revoked):
            note = f"the process that ran it was lost: {error}"
            self._try("lost its process, and its document does not say so", task_fields.amend, self.id, {}, note)
        super().on_failure(exc_info, send_failed_event, return_ok)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Ends a running task at somebody's command, in MongoDB as well; who shares its run gets another one."""
        # Where it is remapped, children ignore SIGTERM, which is what Flower and Celery's own command send.
        number = signals.signum(signal or TERM_SIGNAME)
        self._try("is terminated, and its document does not say who asked", ledger.request_cancellation, self.id)
        super().terminate(pool, TERM_SIGNAL if number == SIGTERM else number)
        self._try("is terminated, MongoDB may still work on it", sources.kill_operations, self.id)
        self._try("is terminated, those who share its run wait on", sharing.hand_over, self.app, self.id)

    def _try(self, otherwise: str, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except NOT_DONE as error:
            logger.error("task %s %s: %s", self.id, otherwise, error)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Ends the task in a worker that stops; Celery puts its message back."""
        # No RETRY is stored first: nothing is retried, and with MongoDB away that would take longer than a stop may.
        super().cancel(pool, signal, emit_retry=False)
        note = "its worker stopped; back in the queue"
        self._try("is back in the queue, and its document does not say so", ledger.give_back, self.id, note)

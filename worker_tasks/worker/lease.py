"""Renews the leases of a worker's messages, and ends a worker that has stopped taking messages.

A message that is not acknowledged within the visibility timeout goes to another worker. Renewing the leases makes it
possible to keep this timeout short, so that the tasks of a killed worker soon run elsewhere.
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
from celery.signals import worker_shutting_down
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from worker_tasks.infra import sources
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import REDIS_FAILURES, TaskNotFound
from worker_tasks.infra.settings import settings
from worker_tasks.joins.run import sharing
from worker_tasks.queue.backend import requires_redelivery
from worker_tasks.queue.broker import leases
from worker_tasks.queue.claim import MAX_ID_LENGTH, is_task_id
from worker_tasks.records import ledger, task_fields

#: Seconds between two checks for work, and until a failed renewal is repeated.
POLL_SECONDS = 0.5
#: A worker with a free slot counts as stalled if it takes no message for this many visibility timeouts.
STALLED_TIMEOUTS = 2
#: No worker counts as stalled before this many seconds: kombu needs 13 to give up a connection that does not answer.
MIN_STALLED_SECONDS = 25.0
#: Seconds that a stalled worker has to exit by itself.
EXIT_SECONDS = 15.0
#: Seconds that a worker has to exit after its soft shutdown. The soft shutdown takes 20 seconds by default, and
#: platforms grant 30 seconds in total.
CLOSE_SECONDS = 8.0

logger = get_logger(__name__)
#: Errors that keep a step from being recorded; the reconciler repairs the task later.
REPAIRABLE_ERRORS: tuple[type[Exception], ...] = (PyMongoError, TaskNotFound, *REDIS_FAILURES)


class Lease(bootsteps.StartStopStep):
    """Renews the leases in a thread of the worker's main process.

    The thread has its own connection, so renewals continue while the main loop waits for the broker.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any):
        self._stopped = threading.Event()
        self._stalled_since: float | None = None
        self._last_total = -1
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:
        threading.Thread(target=self._run, args=(worker,), name="lease", daemon=True).start()

    def stop(self, worker: Any) -> None:
        self._stopped.set()

    terminate = stop

    def _run(self, worker: Any) -> None:
        visibility = worker.app.conf.broker_transport_options["visibility_timeout"]
        due = 0.0
        while not self._stopped.wait(POLL_SECONDS):
            if time.monotonic() < due and not leases.has_pending_writes:
                continue
            try:
                leases.renew()
                if self._is_stalled(worker, max(visibility * STALLED_TIMEOUTS, MIN_STALLED_SECONDS)):
                    self._exit()
                due = time.monotonic() + visibility / 3
            except RedisError as error:
                logger.warning("leases not renewed: %s", error)
                due = 0.0
            except Exception:
                logger.exception("leases not renewed")
                due = 0.0

    def _is_stalled(self, worker: Any, timeout: float) -> bool:
        """Whether the worker has taken no message for ``timeout`` seconds, although messages wait and a slot is free.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        # A task that waits for its ETA occupies no slot.
        has_free_slot = len(leases) - len(state.scheduled_requests) < worker.concurrency
        takes_nothing = leases.total_taken == self._last_total and has_free_slot
        self._last_total = leases.total_taken
        if not takes_nothing or state.should_stop is not None or not _waiting_messages(worker):
            self._stalled_since = None
            return False
        now = time.monotonic()
        self._stalled_since = self._stalled_since or now
        return now - self._stalled_since >= timeout

    def _exit(self) -> None:
        """Ends the worker with an error, so that its supervisor restarts it."""
        logger.critical("messages wait and a slot is free, but this worker takes none: it exits")
        state.should_stop = 1
        time.sleep(EXIT_SECONDS)
        os._exit(1)


@worker_shutting_down.connect
def _limit_shutdown(**_: Any) -> None:
    """Limits the time that a worker takes to stop. If Redis hangs, kombu can wait forever to close a channel."""
    limit = threading.Timer(settings().worker_soft_shutdown_seconds + CLOSE_SECONDS, _exit_unfinished)
    limit.daemon = True
    limit.start()


def _exit_unfinished() -> None:
    logger.critical("the worker did not stop in time and exits; its messages return when their leases run out")
    os._exit(1)


def _waiting_messages(worker: Any) -> int:
    """The number of messages in the queues that this worker consumes from."""
    with connections().queue.pipeline(transaction=False) as pipe:
        for queue in worker.app.amqp.queues.consume_from:
            pipe.llen(queue)
        return sum(pipe.execute())


class LeasedRequest(Request):
    """A task in the worker's main process. Returns the message to the queue if the task's outcome was not stored."""

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
            self._try_to("lost its process, but its document does not say so", task_fields.amend, self.id, {}, note)
        super().on_failure(exc_info, send_failed_event, return_ok)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Ends a running task on a remote command, and kills its operations in MongoDB.

        Tasks that share the run get a new one.
        """
        # Flower and Celery's own command send SIGTERM, which children ignore if the worker remaps it.
        number = signals.signum(signal or TERM_SIGNAME)
        self._try_to(
            "is terminated, but its document does not record the request", ledger.request_cancellation, self.id
        )
        super().terminate(pool, TERM_SIGNAL if number == SIGTERM else number)
        self._try_to("is terminated, but MongoDB may still work on it", sources.kill_operations, self.id)
        self._try_to("is terminated, but tasks that share its run still wait", sharing.hand_over, self.app, self.id)

    def _try_to(self, consequence: str, act: Callable[..., Any], *arguments: Any) -> None:
        """Calls ``act``; if a server is unavailable, logs the consequence instead of raising."""
        try:
            act(*arguments)
        except REPAIRABLE_ERRORS as error:
            logger.error("task %s %s: %s", self.id, consequence, error)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Ends the task in a worker that is stopping. Celery returns its message to the queue."""
        # Do not store RETRY. The task is not retried, and without MongoDB the write would take longer than the worker
        # has to stop.
        super().cancel(pool, signal, emit_retry=False)
        note = "its worker stopped; back in the queue"
        self._try_to("is back in the queue, but its document does not say so", ledger.give_back, self.id, note)

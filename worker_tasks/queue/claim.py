"""The base class of tasks. A task must claim its document before it runs."""

from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from worker_tasks.infra.errors import MONGODB_FAILURES, TaskTakesWorkerDown
from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger

#: The prefix of Celery's own tasks. No user submits them, and they have no task document.
CELERY_PREFIX = "celery."
#: The largest number of characters in a task id. Task ids are part of URLs.
MAX_ID_LENGTH = 255


def is_task_id(value: Any) -> bool:
    """Whether the value can identify a task document and appear in a URL."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_ID_LENGTH


class ClaimedTask(Task):
    """A task that starts only if its document allows it.

    Redis may deliver a message again after its task has ended or was cancelled. The worker then acknowledges it without
    running the task.
    """

    Request = "worker_tasks.worker.lease:LeasedRequest"
    #: If a task kills its child process, Celery rejects the message back into the queue instead of publishing a new
    #: one. The claim counts these crashes.
    reject_on_worker_lost = True
    retry_on_worker_lost = False

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.request.is_eager:
            # The task runs in the caller's process, without a message or a document.
            self.request.attempt = 1
            return
        try:
            claim = ledger.claim(task_id, self.name, args, kwargs, self.request.hostname, retries=self.request.retries)
        except MONGODB_FAILURES as error:
            # A task must not run without its document, so the message goes back to the queue. The driver's timeout
            # keeps this from becoming a busy loop.
            raise Reject(error, requeue=True) from error
        if isinstance(claim, ledger.Refused):
            raise Ignore(f"already {claim.status}")
        self.request.attempt = claim.attempt
        if claim.crashes > settings().max_attempts:
            raise TaskTakesWorkerDown(
                f"Begun {settings().max_attempts} times without coming to an end, most likely because it takes "
                "its worker down. It will not be tried again."
            )

    def record_with_outcome(self, **fields: Any) -> None:
        """Sets more fields of the task document, to be written together with the final state."""
        self.request.outcome = fields

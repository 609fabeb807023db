"""The claim: what every task does before its first line runs."""

from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from worker_tasks.infra.errors import MONGODB_FAILURES, TaskTakesWorkerDown
from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger

#: What the names of Celery's own tasks begin with: they are nobody's, and have no document.
CELERY_PREFIX = "celery."
#: Characters of a task id, which is part of an address.
MAX_ID_LENGTH = 255


def is_task_id(value: Any) -> bool:
    """Whether a task document can be found by this, and named in an address."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_ID_LENGTH


class ClaimedTask(Task):
    """A task that begins only if its document may leave the state it is in.

    A message may be delivered again after its task has ended or was cancelled; then it is acknowledged
    and nothing runs.
    """

    Request = "worker_tasks.worker.lease:LeasedRequest"
    #: The message of what took its child down goes back, for which nothing has to be published; the claim counts that.
    reject_on_worker_lost = True
    retry_on_worker_lost = False

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.request.is_eager:
            # Called in the caller's own process, with no message and no document.
            self.request.attempt = 1
            return
        try:
            answer = ledger.claim(task_id, self.name, args, kwargs, self.request.hostname, retries=self.request.retries)
        except MONGODB_FAILURES as error:
            # Without its document no task runs: back into the queue with it. The driver's own time-out
            # keeps this from becoming a busy loop.
            raise Reject(error, requeue=True) from error
        if isinstance(answer, ledger.Refused):
            raise Ignore(f"already {answer.status}")
        self.request.attempt = answer.attempt
        if answer.crashes > settings().max_attempts:
            raise TaskTakesWorkerDown(
                f"Begun {settings().max_attempts} times without coming to an end, most likely because it takes "
                "its worker down. It will not be tried again."
            )

    def record_with_outcome(self, **fields: Any) -> None:
        """Sets further fields of the task document in the write that stores the final state."""
        self.request.outcome = fields

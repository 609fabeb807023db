"""The claim: what every task does before its first line runs."""

from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from worker_tasks import ledger
from worker_tasks.errors import MONGODB_FAILURES, TaskTakesWorkerDown
from worker_tasks.settings import settings


class ClaimedTask(Task):
    """A task that begins only if its document may leave the state it is in.

    A message may be delivered again after its task has ended or was cancelled; then it is acknowledged
    and nothing runs.
    """

    Request = "worker_tasks.lease:LeasedRequest"
    #: Seconds until what took its worker's child down is tried again; Celery's own value is three minutes.
    default_retry_delay = 1

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            answer = ledger.claim(task_id, self.name, args, kwargs, self.request.hostname)
        except MONGODB_FAILURES as error:
            # Without its document no task runs: back into the queue with it. The driver's own time-out
            # keeps this from becoming a busy loop.
            raise Reject(error, requeue=True) from error
        if isinstance(answer, ledger.Refused):
            raise Ignore(f"already {answer.status}")
        self.request.attempt = answer.attempt
        if answer.attempt > settings().max_attempts:
            raise TaskTakesWorkerDown(
                f"Begun {settings().max_attempts} times without coming to an end, most likely because it takes "
                "its worker down. It will not be tried again."
            )

    def record_with_outcome(self, **fields: Any) -> None:
        """Sets further fields of the task document in the write that stores the final state."""
        self.request.outcome = fields

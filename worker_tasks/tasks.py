"""The Celery tasks, a few lines each."""

import time
from typing import Any

from worker_tasks import live
from worker_tasks.celery_app import app
from worker_tasks.claim import ClaimedTask
from worker_tasks.errors import MONGODB_FAILURES, REDIS_FAILURES
from worker_tasks.joins import user_orders
from worker_tasks.settings import settings

PRACTICE_STEPS = 20


@app.task(
    bind=True,
    autoretry_for=(*MONGODB_FAILURES, *REDIS_FAILURES),
    retry_backoff=1,
    retry_backoff_max=30,
    max_retries=5,
)
def join_users_orders(self: ClaimedTask, user_id: str) -> dict[str, Any]:
    """Joins a user with their orders: ``{"redis_key": where the JSON array is, "count": documents in it}``."""
    summary = user_orders.run(user_id, self.request.id)
    self.record_with_outcome(result_expires_at=summary.expires_at)
    return summary.outcome


@app.task(bind=True)
def long_running_task(self: ClaimedTask, task_input: str) -> str:
    """A practice task: takes ``LONG_TASK_SECONDS`` and says how far it is."""
    for step in range(1, PRACTICE_STEPS + 1):
        time.sleep(settings().long_task_seconds / PRACTICE_STEPS)
        live.report(self.request.id, live.Progress(step, PRACTICE_STEPS, "steps"))
    return f"Processed: {task_input}"

from collections.abc import Callable
from typing import Any

import pytest

from worker_tasks.infra.connections import connections
from worker_tasks.tasks import long_running_task

#: No worker takes from this queue.
UNATTENDED = "unattended"


@pytest.fixture
def waiting_task(servers: None) -> str:
    """The id of a task that waits, and goes on waiting."""
    return long_running_task.apply_async(["some input"], queue=UNATTENDED, metadata={"reason": "a test"}).id


@pytest.fixture
def traces() -> Callable[[], tuple[int, int]]:
    """How many tasks are recorded and how many messages wait: what a refused request must not change."""

    def count() -> tuple[int, int]:
        queued: Any = connections().queue.llen("celery")
        return connections().tasks.count_documents({}), queued

    return count

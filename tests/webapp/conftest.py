from collections.abc import Callable
from typing import Any

import pytest

from webapp.results import result_request
from worker_tasks.infra.connections import connections
from worker_tasks.tasks import long_running_task

#: The time that pages wait for a worker, in seconds; long enough for a busy machine.
WAIT_SECONDS = 20
#: A queue without a worker.
UNATTENDED = "unattended"


@pytest.fixture(autouse=True)
def patient_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests with a worker, pages wait for the artifacts that they show."""
    if "worker" in request.fixturenames:
        monkeypatch.setattr(result_request, "WAIT_SECONDS", WAIT_SECONDS)


@pytest.fixture
def waiting_task(servers: None) -> str:
    """The id of a task that stays queued."""
    return long_running_task.apply_async(["some input"], queue=UNATTENDED, metadata={"reason": "a test"}).id


@pytest.fixture
def traces() -> Callable[[], tuple[int, int]]:
    """Counts recorded tasks and queued messages, which a refused request must not change."""

    def count() -> tuple[int, int]:
        queued: Any = connections().queue.llen("celery")
        return connections().tasks.count_documents({}), queued

    return count

"""Documents of the original application and of Celery's stock backend lack some fields, but are shown."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

from worker_tasks.infra.connections import connections

DONE: dict[str, Any] = {
    "status": "SUCCESS",
    "result": '"x"',
    "traceback": None,
    "children": [],
    "date_done": datetime(2025, 1, 2, tzinfo=UTC),
}
OLD: dict[str, dict[str, Any]] = {
    "done": {"metadata": {"team": "blue"}, **DONE},
    "waiting": {"metadata": {"reason": "audit"}, "status": "QUEUED"},
    "bare": {"status": "FAILURE", "result": None},
    "stock": {**DONE, "args": "(1, 2)", "kwargs": "{}", "name": "a.task", "worker": "a@b"},
}


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, no_tasks: None) -> Iterator[str]:
    task_id = f"old-{request.param}"
    connections().tasks.insert_one({"_id": task_id, **OLD[request.param]})
    yield task_id
    connections().tasks.delete_one({"_id": task_id})


@pytest.mark.parametrize("address", ["/tasks", "/api/v1/tasks", "/tasks/{}", "/api/v1/tasks/{}", "/task/{}", "/"])
def test_a_document_of_an_older_version_is_shown(client: FlaskClient, old: str, address: str) -> None:
    answer = client.get(address.format(old))
    assert answer.status_code == 200
    assert old in answer.text or address in {"/", "/task/{}"}

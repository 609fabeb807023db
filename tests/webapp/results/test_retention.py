"""API clients extend the lifetime of results, and delete results."""

from datetime import timedelta

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.webapp.api.test_v1 import assert_problem, finished_with
from tests.worker_tasks.support import new_id, task_in
from worker_tasks.infra.connections import connections
from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger
from worker_tasks.results import result_store


def test_a_result_is_kept_longer_until_it_cannot_be(
    client: FlaskClient, servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = finished_with([{"_id": 1}])
    before = result_store.find_result(f"join_result:{task_id}")
    answer = client.post(f"/api/v1/tasks/{task_id}/result/keeping")
    assert answer.status_code == 200
    kept = result_store.find_result(f"join_result:{task_id}")
    assert before is not None
    assert kept is not None
    assert kept.expires_at - before.expires_at > timedelta(minutes=59)
    assert answer.get_json()["result_expires_at"] == kept.expires_at.isoformat()
    limited = settings().model_copy(update={"result_keep_seconds": 3_000})
    monkeypatch.setattr("worker_tasks.results.retention.settings", lambda: limited)
    problem = assert_problem(client.post(f"/api/v1/tasks/{task_id}/result/keeping"), 409)
    assert problem["detail"] == f"The result cannot be kept longer: it stays until {kept.expires_at.isoformat()}."
    assert result_store.find_result(f"join_result:{task_id}") == kept


def test_a_result_is_discarded_for_all_who_share_it(client: FlaskClient, servers: None) -> None:
    task_id = finished_with([{"_id": 1}])
    sharer = ledger.find_task(task_id) | {"_id": new_id(), "shares": task_id}
    connections().tasks.insert_one(sharer)
    answer = client.delete(f"/api/v1/tasks/{sharer['_id']}/result")
    assert (answer.status_code, answer.get_json()["task_id"]) == (200, sharer["_id"])
    for each in (task_id, sharer["_id"]):
        problem = assert_problem(client.get(f"/api/v1/tasks/{each}/result"), 410)
        assert problem["detail"] == "This result was discarded by hand. Ask for the join again."
        assert_problem(client.delete(f"/api/v1/tasks/{each}/result"), 410)
        assert_problem(client.post(f"/api/v1/tasks/{each}/result/keeping"), 410)


def test_a_task_without_a_result_cannot_keep_or_discard_it(client: FlaskClient, servers: None) -> None:
    task_id = task_in(states.STARTED)
    for answer in (
        client.delete(f"/api/v1/tasks/{task_id}/result"),
        client.post(f"/api/v1/tasks/{task_id}/result/keeping"),
    ):
        assert assert_problem(answer, 409)["detail"] == "The task has no result: it is STARTED."
    assert_problem(client.delete(f"/api/v1/tasks/{new_id()}/result"), 404)
    assert_problem(client.post(f"/api/v1/tasks/{new_id()}/result/keeping"), 404)

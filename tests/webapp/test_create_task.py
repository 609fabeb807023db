"""The calls of the origin: POST /create-task, GET /task/<id>, GET /tasks."""

from flask.testing import FlaskClient

from tests.support import Process, wait_for_state

QUEUE = "celery"


def test_a_task_is_created_followed_and_listed_with_its_metadata(client: FlaskClient, worker: Process) -> None:
    body = {"task_input": "test task", "metadata_1": "important info", "metadata_2": "more info"}
    created = client.post("/create-task", json=body)
    assert created.status_code == 200
    task_id = created.get_json()
    assert isinstance(task_id, str)

    assert client.get(f"/task/{task_id}").get_json()["status"] in {"QUEUED", "STARTED"}
    wait_for_state(task_id, "SUCCESS")
    assert client.get(f"/task/{task_id}").get_json() == {"status": "SUCCESS", "result": "Processed: test task"}
    listed = next(task for task in client.get("/tasks").get_json() if task["_id"] == task_id)
    assert listed["metadata"] == {"metadata_1": "important info", "metadata_2": "more info"}
    assert listed["status"] == "SUCCESS"

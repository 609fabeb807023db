"""A task's page and its polled fragment."""

import re
from collections.abc import Callable

import pytest
from celery import states
from flask.testing import FlaskClient
from pymongo.database import Database

from development.servers import Server
from tests.support import Process, eventually, paused, wait_for_state
from tests.webapp.conftest import UNATTENDED
from worker_tasks.infra.connections import Document, connections
from worker_tasks.queue import capacity
from worker_tasks.queue.celery_app import app as celery_app
from worker_tasks.records import ledger, live
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task


@pytest.fixture
def poll(client: FlaskClient) -> Callable[..., tuple[int, str, str]]:
    def ask(task_id: str, tag: str = "") -> tuple[int, str, str]:
        """The status, tag and body of the fragment, requested as htmx does."""
        answer = client.get(f"/tasks/{task_id}/status", headers={"HX-Request": "true", "HX-PTag": tag})
        return answer.status_code, answer.headers.get("HX-PTag", ""), answer.text

    return ask


Poll = Callable[..., tuple[int, str, str]]


def test_a_waiting_task_shows_its_metadata_and_polls(client: FlaskClient, waiting_task: str) -> None:
    page = client.get(f"/tasks/{waiting_task}")
    assert "Practice task: some input" in page.text
    assert "a test" in page.text
    assert "Queued" in page.text
    assert f'hx-get="/tasks/{waiting_task}/status"' in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text


def test_a_poll_with_the_current_tag_is_answered_without_mongodb(
    poll: Poll, waiting_task: str, mongodb_server: Server
) -> None:
    _, tag, body = poll(waiting_task)
    assert tag
    assert f'hx-ptag="{tag}"' in body
    with paused(mongodb_server):
        assert poll(waiting_task, tag) == (304, "", "")
    # Another tag is answered from MongoDB.
    assert poll(waiting_task, f"other{tag}")[0] == 200


def test_each_change_makes_the_tag_stale(poll: Poll, waiting_task: str) -> None:
    _, queued, _ = poll(waiting_task)
    ledger.transition(waiting_task, states.STARTED)
    status, started, body = poll(waiting_task, queued)
    assert (status, "Running" in body) == (200, True)
    live.report(waiting_task, live.Progress(3, 12, "steps"))
    status, reported, body = poll(waiting_task, started)
    assert (status, "3 of 12 steps, 25 %" in body) == (200, True)
    assert poll(waiting_task, reported)[0] == 304


def test_a_task_missing_in_redis_is_read_from_mongodb_and_announced_again(poll: Poll, waiting_task: str) -> None:
    _, tag, _ = poll(waiting_task)
    connections().results.delete(f"task_live:{waiting_task}")
    status, tag, _ = poll(waiting_task, tag)
    assert status == 200
    assert poll(waiting_task, tag)[0] == 304


def test_an_old_fragment_is_rendered_again_with_a_longer_pause(poll: Poll, waiting_task: str) -> None:
    version, _, rendered = poll(waiting_task)[1].partition("@")
    assert poll(waiting_task, f"{version}@{int(rendered) - 31}")[0] == 200


def test_a_finished_fragment_does_not_poll(poll: Poll, worker: Process) -> None:
    task_id = submit(join_users_orders, "u1")
    wait_for_state(task_id, states.SUCCESS)
    status, _, body = poll(task_id)
    assert status == 200
    assert "1 row joined." in body
    assert " hx-" not in body


def test_an_empty_result_is_reported(client: FlaskClient, worker: Process) -> None:
    task_id = submit(join_users_orders, "nobody")
    assert wait_for_state(task_id, states.SUCCESS)["result"] == '{"redis_key": "user_order_result:nobody", "count": 0}'
    assert "Nothing was found: 0 rows." in client.get(f"/tasks/{task_id}").text
    assert "The join ran well and found nothing" in client.get(f"/tasks/{task_id}/result").text


def test_a_failed_task_shows_its_error(client: FlaskClient, worker: Process) -> None:
    task_id = celery_app.send_task("worker_tasks.tasks.join_users_orders", [""]).id
    wait_for_state(task_id, states.FAILURE)
    page = client.get(f"/tasks/{task_id}").text
    assert "Failed" in page
    assert "user_id: must not be empty" in page
    assert "Traceback" in page


def test_the_fragment_of_an_unknown_task_ends_the_polling(poll: Poll, servers: None) -> None:
    status, tag, body = poll("no-such-task")
    assert (status, tag) == (200, "")
    assert "There is no task with this id any more." in body
    assert "hx-" not in body


def test_the_page_of_an_unknown_task_is_404(client: FlaskClient, servers: None) -> None:
    page = client.get("/tasks/no-such-task", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "There is no task with this id." in page.text


def test_a_waiting_task_is_cancelled(client: FlaskClient, waiting_task: str) -> None:
    token = csrf_token(client, waiting_task)
    answer = client.post(f"/tasks/{waiting_task}/cancellation", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/tasks/{waiting_task}")
    assert ledger.find_task(waiting_task)["status"] == states.REVOKED
    assert "Cancelled" in client.get(f"/tasks/{waiting_task}").text


def test_a_task_is_run_again_with_its_metadata(client: FlaskClient, waiting_task: str) -> None:
    token = csrf_token(client, waiting_task)
    answer = client.post(f"/tasks/{waiting_task}/runs", data={"csrf_token": token})
    again = answer.headers["Location"].rpartition("/")[2]
    assert again != waiting_task
    first, second = ledger.find_task(waiting_task), ledger.find_task(again)
    assert [second[field] for field in ("name", "args", "metadata", "queue")] == [
        first[field] for field in ("name", "args", "metadata", "queue")
    ]


@pytest.mark.parametrize("action", ["cancellation", "runs"])
def test_an_action_without_a_csrf_token_changes_nothing(client: FlaskClient, waiting_task: str, action: str) -> None:
    version = ledger.find_task(waiting_task)["version"]
    assert client.post(f"/tasks/{waiting_task}/{action}").status_code == 400
    assert ledger.find_task(waiting_task)["version"] == version


def csrf_token(client: FlaskClient, task_id: str) -> str:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(f"/tasks/{task_id}").text)
    assert token
    return token[1]


def test_the_page_of_a_waiting_task_shows_its_position(client: FlaskClient, no_tasks: None, worker: Process) -> None:
    first, second = (long_running_task.apply_async(["x"], queue=UNATTENDED).id for _ in range(2))
    eventually(lambda: capacity.slots() > 0)
    assert "It is the next one." in client.get(f"/tasks/{first}").text
    assert "1 task is before it" in client.get(f"/tasks/{second}").text


def test_a_join_task_describes_its_join_and_opens_it_in_the_builder(
    client: FlaskClient, shop: Database[Document]
) -> None:
    on = [{"local": "_id", "foreign": "userId"}]
    join = {"database": "shop", "from": "users", "joins": [{"from": "orders", "as": "theirs", "on": on}]}
    why = {"note": "for Ann", "ticket": 7}
    fields = {"join": join}
    sent = celery_app.send_task("worker_tasks.tasks.run_join", [join], queue=UNATTENDED, metadata=why, fields=fields)
    task_id = sent.id
    page = client.get(f"/tasks/{task_id}").text
    assert "rows with their orders, where _id = userId" in page
    link = re.search(r'href="(/\?join=[^"]+)"', page)
    assert link
    builder = client.get(client.get(link[1].replace("&amp;", "&")).headers["Location"]).text
    assert re.search(r'name="joins-0-name"[^>]* value="theirs"', builder)
    assert re.search(r'name="note"[^>]* value="for Ann"', builder)
    assert re.search(r'name="metadata-0-value"[^>]* value="7"', builder)

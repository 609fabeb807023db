"""Two tasks side by side and the changes between their results."""

import json
import re
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support import Process, publish, submit_join, wait_for_state
from tests.webapp.api.test_v1 import assert_problem
from tests.worker_tasks.support import new_id
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.submission import RUN_JOIN

BEFORE: list[Document] = [{"_id": n, "name": f"P{n}", "orders": [{"amount": n}]} for n in range(60)]


def run_of(key: str, rows: list[Document], **metadata: str) -> str:
    """Publishes a result under this key, in place of the current one. Returns the id of its finished task."""
    task_id = new_id()
    summary = publish(rows, key, task_id, 60)
    document = ledger.new_document(task_id, RUN_JOIN, [{}], metadata=metadata)
    done = {"status": states.SUCCESS, "result": json.dumps(summary.outcome), "result_bytes": summary.bytes}
    connections().tasks.insert_one(document | done)
    return task_id


@pytest.fixture
def two(worker: Process) -> tuple[str, str]:
    """The ids of two tasks. Between them, three rows changed, two were added, one was removed."""
    key = f"join_result:{new_id()}"
    after = [json.loads(json.dumps(row)) for row in BEFORE[1:]]
    for row in after[:2]:
        row["name"] = "Changed"
    after[10]["orders"].append({"amount": 999})
    after += [{"_id": 100, "name": "New"}, {"_id": 101, "name": "New"}]
    after.reverse()
    return run_of(key, BEFORE, ticket="T-1"), run_of(key, after, ticket="T-2")


def compared(client: FlaskClient, two: tuple[str, str], **asked: Any) -> str:
    answer = client.get("/comparison", query_string={"older": two[0], "newer": two[1], **asked})
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", answer.text)


def test_changes_are_counted_by_row_and_by_column(client: FlaskClient, two: tuple[str, str]) -> None:
    page = compared(client, two)
    assert "3 changed, 2 added, 1 gone, 56 the same." in page
    assert "Rows with the same _id are compared." in page
    assert re.search(r"<dt>name</dt><dd>2</dd>.*<dt>orders</dt><dd>1</dd>", page)
    assert re.search(r"was </span>P1</del> <ins><span[^>]*>is now </span>Changed<", page)
    for task_id in two:
        assert task_id[:8] in page
    assert re.search(r'class="differs"><th scope="row">ticket</th><td>T-1</td><td>T-2</td>', page)


def test_added_and_removed_rows_link_to_their_position(client: FlaskClient, two: tuple[str, str]) -> None:
    older, newer = two
    added = compared(client, two, show="added")
    assert re.findall(rf'href="/tasks/{newer}/result\?row=(\d+)"', added) == ["1", "2"]
    gone = compared(client, two, show="gone")
    assert re.findall(rf'href="/tasks/{older}/result\?row=(\d+)"', gone) == ["1"]


def test_rows_can_be_paired_by_other_columns(client: FlaskClient, two: tuple[str, str]) -> None:
    page = compared(client, two, key="name")
    assert "Rows with the same name are compared; several rows have the same" in page
    answer = client.get("/comparison", query_string={"older": two[0], "newer": two[1], "key": "nobody"})
    assert "names “nobody”, which is not a column of both results." in answer.text


def test_a_task_links_to_the_changes_since_the_previous_run(client: FlaskClient, worker: Process) -> None:
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    asked = {"database": "shop", "from": "users", "match": {"_id": {"$in": ["u1", "u2"]}}, "joins": [join]}
    tasks = []
    for _ in range(3):
        tasks.append(submit_join(asked, fresh=True))
        wait_for_state(tasks[-1], states.SUCCESS)
    link = f"/comparison?older={tasks[1]}&amp;newer={tasks[2]}"
    assert link in client.get(f"/tasks/{tasks[2]}").text
    # The first result is gone, so there is nothing left to compare with.
    assert "/comparison" not in client.get(f"/tasks/{tasks[1]}").text


def test_the_api_returns_the_same_comparison(client: FlaskClient, two: tuple[str, str]) -> None:
    found = client.get("/api/v1/comparison", query_string={"older": two[0], "newer": two[1]}).get_json()
    assert {name: found[name] for name in ("added", "gone", "changed", "same")} == {
        "added": 2, "gone": 1, "changed": 3, "same": 56
    }  # fmt: skip
    assert (found["key"], found["changes"]) == (["_id"], {"name": 2, "orders": 1})


def test_a_shared_result_and_a_missing_one_are_reported(client: FlaskClient, two: tuple[str, str]) -> None:
    older, newer = two
    follower = new_id()
    task = ledger.find_task(newer)
    connections().tasks.insert_one(task | {"_id": follower, "shares": newer})
    assert "Both have the same result: one run answered both." in compared(client, (newer, follower))
    summary = result_store.find_task_result(ledger.find_task(older))
    assert summary
    assert result_store.discard(summary)
    assert f"the result of task <code>{older[:8]}</code> is gone" in compared(client, two)
    assert_problem(client.get("/api/v1/comparison", query_string={"older": older, "newer": newer}), 410)


@pytest.mark.parametrize(
    ("asked", "status"),
    [({}, 422), ({"older": "nobody", "newer": "nothing"}, 404), ({"older": "x", "newer": "x"}, 422)],
)
def test_an_invalid_comparison_is_refused(client: FlaskClient, asked: dict[str, str], status: int) -> None:
    assert client.get("/comparison", query_string=asked).status_code == status


def selected(client: FlaskClient, *task_ids: str) -> TestResponse:
    token = re.search(
        r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/tasks", headers={"Accept": "text/html"}).text
    )
    assert token
    form = {"csrf_token": token[1], "do": "compare", "task": list(task_ids)}
    return client.post("/tasks/selection", data=form)


def test_two_selected_tasks_are_compared_with_the_older_first(client: FlaskClient, two: tuple[str, str]) -> None:
    older, newer = two
    answer = selected(client, newer, older)
    assert answer.headers["Location"] == f"/comparison?older={older}&newer={newer}"
    answer = selected(client, newer)
    assert (
        "Select two tasks to compare them; 1 was selected."
        in client.get(answer.headers["Location"], headers={"Accept": "text/html"}).text
    )

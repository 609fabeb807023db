"""The result page: rows by page, and what it says when they are gone."""

import re
from datetime import timedelta

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, publish, wait_for_state
from worker_tasks import ledger
from worker_tasks.connections import connections
from worker_tasks.joins.user_orders import result_key
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders

ROWS = 120


def joined(user_id: str) -> str:
    """The id of a finished join."""
    task_id = submit(join_users_orders, user_id, metadata={"reason": "a test"})
    wait_for_state(task_id, states.SUCCESS)
    return task_id


@pytest.fixture
def long_result(servers: None) -> str:
    """The id of a finished task whose result has three pages."""
    task_id = "long-result"
    key = result_key(task_id)
    summary = publish([{"_id": f"row-{row}", "orders": []} for row in range(ROWS)], key, task_id, 60)
    connections().tasks.delete_one({"_id": task_id})
    ledger.record(ledger.new_document(task_id, join_users_orders.name, [task_id]))
    ledger.transition(
        task_id,
        states.SUCCESS,
        fields={"result": f'{{"redis_key": "{key}", "count": {ROWS}}}', "result_expires_at": summary.expires_at},
    )
    return task_id


def test_the_joined_rows_are_shown_with_what_is_nested_in_them(client: FlaskClient, worker: Process) -> None:
    page = client.get(f"/tasks/{joined('u1')}/result").text
    for seen in ("Alice", "alice@example.com", "1 document", "o101", "1200", "PAID", "user_order_result:u1"):
        assert seen in page


def test_values_of_mongodb_are_shown_as_people_read_them(client: FlaskClient, worker: Process) -> None:
    order = connections().join_database.orders.find_one({"orderedAt": {"$exists": True}})
    assert order
    page = client.get(f"/tasks/{joined(order['userId'])}/result").text
    assert str(order["amount"]) in page
    assert f"{order['orderedAt']:%Y-%m-%d %H:%M}" in page
    assert "numberDecimal" not in page


@pytest.mark.parametrize(("number", "first", "last"), [(1, 0, 49), (2, 50, 99), (3, 100, 119)])
def test_each_page_holds_its_rows(client: FlaskClient, long_result: str, number: int, first: int, last: int) -> None:
    page = client.get(f"/tasks/{long_result}/result?page={number}").text
    shown = [int(row) for row in re.findall(r"row-(\d+)", page)]
    assert shown == list(range(first, last + 1))
    assert f"Page {number} of 3" in page


@pytest.mark.parametrize("number", ["0", "4", "-1", "x", "", "1e3"])
def test_a_page_that_is_not_there_is_refused(client: FlaskClient, long_result: str, number: str) -> None:
    answer = client.get(f"/tasks/{long_result}/result?page={number}")
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == [{"field": "page", "message": "must be a number from 1 to 3."}]


def test_an_expired_result_says_when_and_can_be_run_again(client: FlaskClient, worker: Process) -> None:
    task_id = joined("u3")
    expires_at = ledger.now() - timedelta(seconds=1)
    connections().tasks.update_one({"_id": task_id}, {"$set": {"result_expires_at": expires_at}})
    for key in connections().results.scan_iter(f"*{result_key('u3')}"):
        connections().results.delete(key)
    page = client.get(f"/tasks/{task_id}/result")
    assert page.status_code == 410
    assert f"{expires_at:%Y-%m-%d %H:%M:%S} UTC" in page.text
    assert f'action="/tasks/{task_id}/runs"' in page.text


def test_a_replaced_result_leads_to_the_newer_one(client: FlaskClient, worker: Process) -> None:
    older, newer = joined("u4"), joined("u4")
    page = client.get(f"/tasks/{older}/result")
    assert page.status_code == 410
    assert f'href="/tasks/{newer}/result"' in page.text
    assert client.get(f"/tasks/{newer}/result").status_code == 200


def test_a_task_without_a_result_leads_to_its_page(client: FlaskClient, waiting_task: str) -> None:
    answer = client.get(f"/tasks/{waiting_task}/result")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/tasks/{waiting_task}")


def test_what_the_rows_hold_is_shown_and_never_run(client: FlaskClient, servers: None) -> None:
    task_id = "markup"
    stored = {"<script>alert(1)</script>": "<img src=x onerror=alert(1)>", "n": {"<b>": ["<i>"]}}
    publish([stored], result_key(task_id), task_id, 60)
    connections().tasks.delete_one({"_id": task_id})
    ledger.record(ledger.new_document(task_id, join_users_orders.name, ["<script>"], metadata={"<u>": "</td>"}))
    outcome = f'{{"redis_key": "{result_key(task_id)}", "count": 1}}'
    ledger.transition(task_id, states.SUCCESS, fields={"result": outcome})
    page = client.get(f"/tasks/{task_id}/result").text + client.get(f"/tasks/{task_id}").text
    for markup in ("<script>", "<img src=x", "<b>", "<i>", "<u>"):
        assert markup not in page

"""The pages of a result, and the page for a result that is gone."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, eventually, publish, submit_join, wait_for_state
from tests.worker_tasks.support import new_id
from worker_tasks.infra.connections import connections
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.user_orders import result_key
from worker_tasks.records import ledger, task_fields
from worker_tasks.results import result_store, summaries
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
    if (before := result_store.find_result(key)) is not None:
        result_store.discard(before)
    summary = publish([{"_id": f"row-{row}", "orders": []} for row in range(ROWS)], key, task_id, 60)
    connections().tasks.delete_one({"_id": task_id})
    ledger.record(ledger.new_document(task_id, join_users_orders.name, [task_id]))
    ledger.transition(
        task_id,
        states.SUCCESS,
        fields={"result": f'{{"redis_key": "{key}", "count": {ROWS}}}', "result_expires_at": summary.expires_at},
    )
    return task_id


def test_the_page_shows_rows_with_their_nested_documents(client: FlaskClient, worker: Process) -> None:
    page = client.get(f"/tasks/{joined('u1')}/result").text
    for seen in ("Alice", "alice@example.com", "1 document", "o101", "1200", "PAID", "user_order_result:u1"):
        assert seen in page


@pytest.mark.parametrize("in_lists", [False, True])
def test_a_document_that_is_nested_100_deep_is_shown(client: FlaskClient, servers: None, in_lists: bool) -> None:
    deep: Any = "the bottom"
    for _ in range(98):
        deep = [deep, 1] if in_lists else {"a": deep}
    task_id = new_id()
    summary = publish([{"_id": 1, "deep": deep}], f"deep {task_id}", task_id, 60)
    done = {"status": states.SUCCESS, "result": json.dumps(summary.outcome)}
    connections().tasks.insert_one(ledger.new_document(task_id, join_users_orders.name, ["u1"], metadata={}) | done)
    answer = client.get(f"/tasks/{task_id}/result")
    assert answer.status_code == 200
    assert "the bottom" in answer.text


def test_mongodb_values_are_shown_in_readable_form(client: FlaskClient, worker: Process) -> None:
    order = connections().joins[settings().join_database].orders.find_one({"orderedAt": {"$exists": True}})
    assert order
    page = client.get(f"/tasks/{joined(order['userId'])}/result").text
    assert str(order["amount"]) in page
    assert f"{order['orderedAt']:%Y-%m-%d %H:%M}" in page
    assert "numberDecimal" not in page


@pytest.mark.parametrize(("number", "first", "last"), [(1, 0, 49), (2, 50, 99), (3, 100, 119)])
def test_each_page_holds_its_rows(client: FlaskClient, long_result: str, number: int, first: int, last: int) -> None:
    page = client.get(f"/tasks/{long_result}/result?page={number}").text
    shown = [int(row) for row in re.findall(r">\s*row-(\d+)", page)]
    assert shown == list(range(first, last + 1))
    assert f"Page {number} of 3" in page


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1e3", "٣"])
def test_an_invalid_page_number_is_refused(client: FlaskClient, long_result: str, number: str) -> None:
    answer = client.get(f"/tasks/{long_result}/result?page={number}")
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == [{"field": "page", "message": "must be a number from 1 to 3."}]


def test_the_page_of_an_expired_result_says_when_and_offers_a_new_run(client: FlaskClient, worker: Process) -> None:
    task_id = joined("u3")
    expires_at = ledger.now() - timedelta(seconds=1)
    connections().tasks.update_one({"_id": task_id}, {"$set": {"result_expires_at": expires_at}})
    for key in connections().results.scan_iter(f"*{result_key('u3')}"):
        connections().results.delete(key)
    page = client.get(f"/tasks/{task_id}/result")
    assert page.status_code == 410
    assert f"{expires_at:%Y-%m-%d %H:%M:%S} UTC" in page.text
    assert f'action="/tasks/{task_id}/runs"' in page.text


LOST = "Redis lost this result before it expired."


@pytest.mark.parametrize(("seconds_left", "lost"), [(60, True), (2, False)])
def test_the_page_of_a_lost_result_says_so_and_offers_a_new_run(
    client: FlaskClient, long_result: str, seconds_left: int, *, lost: bool
) -> None:
    task_fields.set_expiry(long_result, ledger.now() + timedelta(seconds=seconds_left))
    for key in connections().results.scan_iter(f"*{result_key(long_result)}"):
        connections().results.delete(key)
    gone, task = client.get(f"/tasks/{long_result}/result"), client.get(f"/tasks/{long_result}")
    assert (gone.status_code, task.status_code) == (410, 200)
    for page in (gone.text, task.text):
        assert (LOST in page) is lost
        assert ("The joined documents expired" in page or "This result expired" in page) is not lost
        assert page.count(f'action="/tasks/{long_result}/runs"') == 1


def test_a_replaced_result_is_not_reported_as_lost(client: FlaskClient, long_result: str) -> None:
    for newer in ("newer", "newest"):
        publish([{"_id": 1}], result_key(long_result), newer, 60)
    for address in (f"/tasks/{long_result}/result", f"/tasks/{long_result}"):
        assert LOST not in client.get(address).text


def test_the_last_two_results_are_readable_and_older_ones_lead_to_the_newest(
    client: FlaskClient, worker: Process
) -> None:
    oldest, older, newer = joined("u4"), joined("u4"), joined("u4")
    assert client.get(f"/tasks/{older}/result").status_code == 200
    page = client.get(f"/tasks/{oldest}/result")
    assert page.status_code == 410
    assert f'href="/tasks/{newer}/result"' in page.text
    assert client.get(f"/tasks/{newer}/result").status_code == 200


def test_the_selection_of_a_lost_result_is_carried_over_to_the_next(client: FlaskClient, worker: Process) -> None:
    task_id = joined("u6")
    press(client, task_id, "discarding")
    gone = client.get(f"/tasks/{task_id}/result?sort=-name&q=x")
    assert gone.status_code == 410
    assert "was discarded by hand" in gone.text
    assert f'action="/tasks/{task_id}/runs?sort=-name&amp;q=x"' in gone.text
    token = re.search(r'name="csrf_token" value="([^"]+)"', gone.text)
    assert token
    again = client.post(f"/tasks/{task_id}/runs?sort=-name&q=x", data={"csrf_token": token[1]})
    address = again.headers["Location"]
    assert re.fullmatch(r"/tasks/[0-9a-f-]{36}\?sort=-name&q=x", address)
    wait_for_state(address[7:43], states.SUCCESS)
    assert f'href="/tasks/{address[7:43]}/result?sort=-name&amp;q=x"' in client.get(address).text


def test_the_task_of_a_discarded_result_says_so_and_offers_a_new_run(client: FlaskClient, worker: Process) -> None:
    task_id = joined("u8")
    press(client, task_id, "discarding")
    page = client.get(f"/tasks/{task_id}").text
    assert "The joined documents were discarded by hand" in page
    assert "Read the result" not in page
    assert page.count(f'action="/tasks/{task_id}/runs"') == 1


def test_a_task_with_an_older_result_shows_its_time_and_offers_a_new_run(client: FlaskClient, worker: Process) -> None:
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    asked = {"database": "shop", "from": "users", "match": {"_id": "u11"}, "joins": [join]}
    first = submit_join(asked)
    wait_for_state(first, states.SUCCESS)
    second = submit_join(asked)
    assert "Nothing was run for this task" not in client.get(f"/tasks/{first}").text
    page = client.get(f"/tasks/{second}").text
    assert "Nothing was run for this task" in page
    assert "Run it afresh" in page
    # Both tasks share one result, so there are no changes to show.
    assert "/comparison" not in page


def test_keeping_a_result_preserves_the_selection(client: FlaskClient, long_result: str) -> None:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(f"/tasks/{long_result}/result").text)
    assert token
    kept = client.post(f"/tasks/{long_result}/result/keeping?page=2&columns=_id", data={"csrf_token": token[1]})
    assert kept.headers["Location"] == f"/tasks/{long_result}/result?page=2&columns=_id"


def test_the_result_page_of_a_task_without_a_result_leads_to_the_task(client: FlaskClient, waiting_task: str) -> None:
    answer = client.get(f"/tasks/{waiting_task}/result")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/tasks/{waiting_task}")


def test_markup_in_rows_is_escaped(client: FlaskClient, servers: None) -> None:
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


def test_a_row_number_leads_to_its_page(client: FlaskClient, long_result: str) -> None:
    answer = client.get(f"/tasks/{long_result}/result?row=51&columns=_id")
    assert answer.headers["Location"] == f"/tasks/{long_result}/result?page=2&columns=_id#row-51"
    page = client.get(answer.headers["Location"]).text
    assert 'id="row-51"' in page
    assert 'id="row-50"' not in page
    beyond = client.get(f"/tasks/{long_result}/result?row={ROWS + 1}")
    assert beyond.headers["Location"] == f"/tasks/{long_result}/result?page=3#row-{ROWS}"
    assert "Page 3 of 3" in client.get(f"/tasks/{long_result}/result?page=4000").text
    assert "Page 3 of 3" in client.get(f"/tasks/{long_result}/result?page={'9' * 5000}").text


def test_only_selected_columns_are_shown(client: FlaskClient, long_result: str) -> None:
    page = client.get(f"/tasks/{long_result}/result?columns=_id").text
    assert re.findall(r'<td data-label="(\w+)"', page) == ["_id"] * 50
    assert "Columns: 1 of 2" in page


def press(client: FlaskClient, task_id: str, action: str) -> None:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(f"/tasks/{task_id}/result").text)
    assert token
    assert client.post(f"/tasks/{task_id}/result/{action}", data={"csrf_token": token[1]}).status_code == 303


def test_a_result_is_kept_longer_up_to_the_limit(
    client: FlaskClient, long_result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = result_key(long_result)
    press(client, long_result, "keeping")
    kept = result_store.find_result(key)
    assert kept is not None
    left = [connections().results.ttl(name) for name in (key, summaries.index_key(key), summaries.summary_key(key))]
    assert all(3_590 < seconds <= 3_660 for seconds in left), left
    assert ledger.find_task(long_result)["result_expires_at"] == kept.expires_at
    limited = settings().model_copy(update={"result_keep_seconds": 3_000})
    monkeypatch.setattr("worker_tasks.results.retention.settings", lambda: limited)
    assert "Keep it until" not in client.get(f"/tasks/{long_result}/result").text
    press(client, long_result, "keeping")
    assert result_store.find_result(key) == kept


def test_a_discarded_result_is_deleted_at_once(client: FlaskClient, long_result: str) -> None:
    key = result_key(long_result)
    press(client, long_result, "discarding")
    names = (key, summaries.index_key(key), summaries.summary_key(key), summaries.outcome_key(long_result))
    assert connections().results.exists(*names) == 0
    assert client.get(f"/tasks/{long_result}/result").status_code == 410


def test_a_reader_finishes_while_the_result_is_kept_longer(long_result: str) -> None:
    summary = result_store.find_result(result_key(long_result))
    assert summary is not None
    chunks = result_store.read_chunks(summary)
    assert result_store.keep(summary, summary.expires_at + timedelta(hours=1)) is not None
    assert len(b"".join(chunks)) == summary.bytes
    assert result_store.read_rows(summary, 0, 5) is not None


def test_keeping_or_discarding_a_replaced_result_leaves_the_newer_one_alone(long_result: str) -> None:
    key = result_key(long_result)
    before = result_store.find_result(key)
    assert before is not None
    newer = publish([{"_id": 1}], key, "another-task", 60)
    assert result_store.keep(before, before.expires_at + timedelta(hours=1)) is None
    assert not result_store.discard(before)
    assert result_store.find_result(key) == newer


def test_rows_without_a_match_have_their_own_page(client: FlaskClient, worker: Process) -> None:
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    task_id = submit_join({"database": "shop", "from": "users", "match": {"city": {"$ne": "Oz"}}, "joins": [join]})
    wait_for_state(task_id, states.SUCCESS)
    page = client.get(f"/tasks/{task_id}/result").text
    assert "98 without orders" in page
    tab = client.get(f"/tasks/{task_id}/result/unmatched/orders").text
    assert "98 rows found no match" in tab
    assert "These are the first 50." in tab
    assert client.get(f"/tasks/{task_id}/result/unmatched/other").status_code == 404


def test_the_page_of_rows_without_a_match_takes_any_name(client: FlaskClient, worker: Process) -> None:
    join = {"from": "orders", "as": "a/b ?#ä", "on": [{"local": "_id", "foreign": "userId"}], "limit": 1}
    task_id = submit_join({"database": "shop", "from": "users", "joins": [join]})
    wait_for_state(task_id, states.SUCCESS)
    (address,) = re.findall(
        rf'"(/tasks/{task_id}/result/unmatched/[^"]+)"', client.get(f"/tasks/{task_id}/result").text
    )
    assert "98 rows found no match" in client.get(address).text


@pytest.mark.parametrize(
    ("shape", "fields"), [("array", None), ("count", None), ("first", None), ("first", ["note"]), ("rows", ["number"])]
)
def test_a_link_leads_to_all_rows_without_a_match_and_no_others(
    client: FlaskClient, worker: Process, shape: str, fields: list[str] | None
) -> None:
    """Some notes have an empty text, some have none, and all have the number 0."""
    name = f"notes_{shape}_{'some' if fields else 'all'}"
    people, notes = connections().joins.shop[f"{name}_people"], connections().joins.shop[name]
    people.insert_many([{"_id": number} for number in range(60)])
    notes.insert_many([{"person": number, "number": 0, **({"note": ""} if number % 4 else {})} for number in range(57)])
    join = {"from": name, "as": "notes", "shape": shape, "on": [{"local": "_id", "foreign": "person"}]}
    join |= {} if fields is None else {"fields": fields}
    task_id = submit_join({"database": "shop", "from": people.name, "joins": [join], "sort": [["_id", 1]]})
    wait_for_state(task_id, states.SUCCESS)
    address = f"/tasks/{task_id}/result/unmatched/notes"
    link = eventually(lambda: re.search(r'href="([^"]+)">All of them', client.get(address).text))
    assert "3 rows found no match" in client.get(address).text

    def listed() -> list[str]:
        answer = client.get(unescape(link[1]))
        assert answer.status_code == 200
        assert '<option value="unmatched" selected>found no match</option>' in answer.text
        return re.findall(r'id="row-(\d+)"', answer.text)

    assert sorted(map(int, eventually(listed))) == [58, 59, 60]

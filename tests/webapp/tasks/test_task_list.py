"""GET /tasks returns JSON for API clients and a page for browsers, page by page."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.webapp.conftest import UNATTENDED
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger
from worker_tasks.tasks import long_running_task

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def seven_tasks(no_tasks: None) -> list[str]:
    """Ids of recorded tasks, newest first."""
    ids = [f"task-{number}" for number in range(7)]
    for task_id in ids:
        ledger.record(ledger.new_document(task_id, "worker_tasks.tasks.long_running_task", [task_id]))
    return ids[::-1]


def test_the_list_has_whole_tasks_newest_first(client: FlaskClient, seven_tasks: list[str]) -> None:
    listed = client.get("/tasks").get_json()
    assert [task["_id"] for task in listed] == seven_tasks
    assert listed[0]["args"] == ["task-6"]
    assert listed[0]["timeline"][0]["status"] == "QUEUED"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", listed[0]["queued_at"])


def test_following_the_links_shows_each_task_once(client: FlaskClient, seven_tasks: list[str]) -> None:
    seen: list[str] = []
    address: str | None = "/tasks?limit=3"
    while address:
        page = client.get(address)
        assert len(page.get_json()) <= 3
        seen += [task["_id"] for task in page.get_json()]
        link = re.fullmatch(r'<(.+)>; rel="next"', page.headers.get("Link", ""))
        address = link[1] if link else None
    assert seen == seven_tasks


def test_a_browser_gets_a_page_with_links_to_the_tasks(client: FlaskClient, seven_tasks: list[str]) -> None:
    page = client.get("/tasks?limit=3", headers=HTML)
    assert page.content_type == "text/html; charset=utf-8"
    assert "Accept" in page.headers["Vary"]
    assert re.findall(r'href="/tasks/(task-\d)"', page.text) == seven_tasks[:3]
    older = re.search(r'rel="next" href="([^"]+)"', page.text)
    assert older
    assert re.findall(r'href="/tasks/(task-\d)"', client.get(unescape(older[1]), headers=HTML).text) == seven_tasks[3:6]


def test_an_empty_list_says_so(client: FlaskClient, no_tasks: None) -> None:
    assert client.get("/tasks").get_json() == []
    assert "Nothing was asked yet." in client.get("/tasks", headers=HTML).text


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_api_clients_get_json_by_default(client: FlaskClient, no_tasks: None, accept: str | None) -> None:
    headers = {"Accept": accept} if accept else {}
    assert client.get("/tasks", headers=headers).content_type == "application/json"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=%C2%B2", "limit"),
        ("cursor=", "cursor"),
        ("cursor=!!!", "cursor"),
        ("cursor=2026", "cursor"),
        ("cursor=MjAyNi0wMS0wMQ==", "cursor"),
        ("cursor=%F0%9F%99%82", "cursor"),
    ],
)
def test_an_invalid_limit_or_cursor_is_refused_by_name(
    client: FlaskClient, servers: None, query: str, field: str
) -> None:
    answer = client.get(f"/tasks?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


@pytest.fixture
def four_tasks(no_tasks: None) -> dict[str, str]:
    """The ids of four different tasks by name."""
    long_ago = ledger.now() - timedelta(days=40)
    recorded = {
        "blue": ledger.new_document("blue", "a.task", ["x"], metadata={"team": "blue", "cost": 7}),
        "red": ledger.new_document("red", "a.task", ["Lisbon"], metadata={"team": "red"}, requested_by="Ann"),
        "old": ledger.new_document("old", "a.task", metadata={"team": "blue"}) | {"queued_at": long_ago},
        "joined": ledger.new_document("joined", "b.task", fingerprint="f" * 32),
    }
    for document in recorded.values():
        ledger.record(document)
    ledger.transition("red", "FAILURE", fields={"result": "null"})
    return dict.fromkeys(recorded, "")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=FAILURE", {"red"}),
        ("status=QUEUED", {"blue", "old", "joined"}),
        ("key=team&value=blue", {"blue", "old"}),
        ("metadata.team=blue&metadata.cost=7", {"blue"}),
        ("key=cost&value=7", {"blue"}),
        ("by=Ann", {"red"}),
        (f"join={'f' * 32}", {"joined"}),
        ("q=lisb", {"red"}),
        ("q=BLUE", {"blue", "old"}),
        ("since=2020-01-01&until=2020-02-01", set()),
        ("status=&key=&value=&q=&since=&until=", {"blue", "red", "old", "joined"}),
    ],
)
def test_tasks_are_found(client: FlaskClient, four_tasks: dict[str, str], query: str, found: set[str]) -> None:
    assert {task["_id"] for task in client.get(f"/tasks?{query}").get_json()} == found


def test_tasks_are_found_by_time(client: FlaskClient, four_tasks: dict[str, str]) -> None:
    month_ago = (ledger.now() - timedelta(days=30)).date()
    assert [task["_id"] for task in client.get(f"/tasks?until={month_ago}").get_json()] == ["old"]
    assert "old" not in [task["_id"] for task in client.get(f"/tasks?since={month_ago}").get_json()]


def test_tasks_are_found_by_key_alone_value_alone_and_words_in_any_order(client: FlaskClient, no_tasks: None) -> None:
    join = {"database": "shop", "from": "users", "joins": [{"from": "orders", "as": "x", "on": []}]}
    for task_id, metadata in (("a", {"ticket": "NU-1"}), ("b", {"ticket": "X", "team": "blue"}), ("c", {"team": "NU"})):
        ledger.record(ledger.new_document(task_id, "worker_tasks.tasks.run_join", [join], join=join, metadata=metadata))

    def found(**asked: str) -> str:
        return "".join(sorted(task["_id"] for task in client.get("/tasks", query_string=asked).get_json()))

    assert found(key="ticket") == "ab"
    assert found(key="tick") == ""
    assert found(value="nu") == "ac"
    assert found(value="ticket") == ""
    assert found(q="orders users blue") == "b"
    assert found(q="Users with their orders") == "abc"
    assert found(q="with") == ""


def test_since_must_be_before_until(client: FlaskClient, no_tasks: None) -> None:
    problem = client.get("/tasks?since=2026-01-02&until=2026-01-02")
    assert (problem.status_code, problem.get_json()["errors"][0]["field"]) == (422, "until")


def test_changed_metadata_is_found_by_its_new_value(client: FlaskClient, four_tasks: dict[str, str]) -> None:
    assert client.patch("/api/v1/tasks/blue", json={"metadata": {"team": "green"}}).status_code == 200
    assert [task["_id"] for task in client.get("/tasks?key=team&value=green").get_json()] == ["blue"]
    assert [task["_id"] for task in client.get("/tasks?key=team&value=blue").get_json()] == ["old"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=GONE", "status"),
        ("key=$x", "key"),
        ("since=soon", "since"),
        ("what=1", "what"),
        (f"q={'x' * 301}", "q"),
    ],
)
def test_an_invalid_filter_is_refused_by_name(client: FlaskClient, servers: None, query: str, field: str) -> None:
    answer = client.get(f"/tasks?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_the_filters_stay_in_the_page_and_in_its_links(client: FlaskClient, four_tasks: dict[str, str]) -> None:
    page = client.get("/tasks?key=team&value=blue&limit=1", headers=HTML).text
    assert re.search(r'name="value" value="blue"', page)
    assert 'hx-get="/tasks?key=team&amp;value=blue&amp;limit=1"' in page
    older = re.search(r'rel="next" href="([^"]+)"', page)
    assert older
    assert 'href="/tasks/old"' in client.get(unescape(older[1]), headers=HTML).text
    assert "No task is like that." in client.get("/tasks?key=team&value=none", headers=HTML).text


def test_the_form_offers_existing_joins_and_people(client: FlaskClient, no_tasks: None) -> None:
    for task_id, other, mark, person in (
        ("a", "orders", "f1", "ada"),
        ("b", "orders", "f2", None),
        ("c", "cats", "f3", "bo"),
    ):
        join = {"database": "shop", "from": "users", "joins": [{"from": other, "as": "x", "on": []}]}
        options: dict[str, Any] = {"join": join, "fingerprint": mark, "requested_by": person}
        ledger.record(ledger.new_document(task_id, "worker_tasks.tasks.run_join", [join], **options))
    page = client.get("/tasks?join=f3", headers=HTML).text
    offered = re.findall(r'<option value="(f\d)" (selected)?\s*>([^<]+)</option>', page)
    assert sorted(offered) == [
        ("f1", "", "Users with their orders (f1)"),
        ("f2", "", "Users with their orders (f2)"),
        ("f3", "selected", "Users with their cats"),
    ]
    assert re.findall(r'<datalist id="people">(.*?)</datalist>', page) == [
        '<option value="ada"></option><option value="bo"></option>'
    ]
    assert re.findall(r'name="task" value="(\w)"', page) == ["c"]
    assert re.findall(r'name="task" value="(\w)"', client.get("/tasks?by=ada", headers=HTML).text) == ["a"]


def test_an_unchanged_list_is_not_sent_again(client: FlaskClient, four_tasks: dict[str, str]) -> None:
    poll = {**HTML, "HX-Request": "true"}
    first = client.get("/tasks", headers=poll)
    assert "<html" not in first.text
    tag = first.headers["HX-PTag"]
    assert client.get("/tasks", headers={**poll, "HX-PTag": tag}).status_code == 304
    ledger.transition("blue", "STARTED")
    assert client.get("/tasks", headers={**poll, "HX-PTag": tag}).status_code == 200


@pytest.fixture
def select(client: FlaskClient) -> Callable[..., str]:
    def send(action: str, *ids: str, list_: str = "/tasks") -> str:
        """Submits an action on these tasks. Returns the text of the list afterwards."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/tasks", headers=HTML).text)
        assert token
        data = {"csrf_token": token[1], "do": action, "task": list(ids), "list": list_}
        answer = client.post("/tasks/selection", data=data)
        assert answer.status_code == 303
        return client.get(answer.headers["Location"], headers=HTML).text

    return send


def test_several_are_cancelled_at_once(no_tasks: None, select: Callable[..., str]) -> None:
    ids = [long_running_task.apply_async(["x"], queue=UNATTENDED).id for _ in range(3)]
    ledger.transition(ids[2], "SUCCESS")
    assert "2 tasks were cancelled; 1 had ended before." in select("cancel", *ids)
    assert [ledger.find_task(task_id)["status"] for task_id in ids] == ["REVOKED", "REVOKED", "SUCCESS"]


def test_several_are_run_again_at_once(no_tasks: None, select: Callable[..., str]) -> None:
    ids = [long_running_task.apply_async([text], queue=UNATTENDED).id for text in "ab"]
    assert "2 tasks were submitted again; 1 could not be." in select("again", *ids, "no-such-task")
    assert connections().tasks.count_documents({}) == 4


def send_selection(client: FlaskClient, action: str | None, ids: list[str]) -> TestResponse:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/tasks", headers=HTML).text)
    assert token
    data = {"csrf_token": token[1], "task": ids} | ({} if action is None else {"do": action})
    return client.post("/tasks/selection", data=data)


def document(task_id: str) -> Any:
    return connections().tasks.find_one({"_id": task_id})


@pytest.mark.parametrize("action", [None, "", "run", "CANCEL", "cancel ", "again again", "delete"])
def test_an_unknown_action_does_nothing(client: FlaskClient, no_tasks: None, action: str | None) -> None:
    task_id = long_running_task.apply_async(["x"], queue=UNATTENDED).id
    before = document(task_id)
    for ids in ([task_id], []):
        answer = send_selection(client, action, ids)
        assert (answer.status_code, [error["field"] for error in answer.get_json()["errors"]]) == (422, ["do"])
    assert document(task_id) == before
    assert connections().tasks.count_documents({}) == 1


@pytest.mark.parametrize("action", ["cancel", "again"])
def test_too_many_selected_tasks_are_refused_before_any_change(
    client: FlaskClient, no_tasks: None, action: str
) -> None:
    task_id = long_running_task.apply_async(["x"], queue=UNATTENDED).id
    before = document(task_id)
    answer = send_selection(client, action, [task_id, *(f"task-{number}" for number in range(50))])
    assert answer.status_code == 422
    (error,) = answer.get_json()["errors"]
    assert error == {"field": "task", "message": "may name at most 50 tasks, not 51. Nothing was done."}
    assert document(task_id) == before
    assert connections().tasks.count_documents({}) == 1


def test_a_task_selected_twice_is_run_again_once(no_tasks: None, select: Callable[..., str]) -> None:
    task_id = long_running_task.apply_async(["x"], queue=UNATTENDED).id
    assert "1 task was submitted again." in select("again", *([task_id] * 60))
    assert connections().tasks.count_documents({}) == 2


def test_an_empty_selection_is_reported_and_never_leads_to_another_site(
    select: Callable[..., str], four_tasks: None
) -> None:
    assert "No task was selected." in select("cancel", list_="//evil.example/tasks?")

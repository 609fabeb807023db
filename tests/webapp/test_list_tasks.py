"""GET /tasks: JSON for programs, a page for people, bounded and paged."""

import re
from html import unescape

import pytest
from flask.testing import FlaskClient

from worker_tasks import ledger

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def seven_tasks(no_tasks: None) -> list[str]:
    """Ids of recorded tasks, newest first."""
    ids = [f"task-{number}" for number in range(7)]
    for task_id in ids:
        ledger.record(ledger.new_document(task_id, "worker_tasks.tasks.long_running_task", [task_id]))
    return ids[::-1]


def test_the_newest_tasks_come_first_with_all_that_is_known_of_them(
    client: FlaskClient, seven_tasks: list[str]
) -> None:
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
def test_programs_get_json_without_asking_for_it(client: FlaskClient, no_tasks: None, accept: str | None) -> None:
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
def test_what_is_no_page_is_refused_by_name(client: FlaskClient, servers: None, query: str, field: str) -> None:
    answer = client.get(f"/tasks?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]

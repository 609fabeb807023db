"""A form submitted while a server is away comes back complete, with a message naming the server."""

import time
from collections import defaultdict
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from development.servers import Server
from tests.support import paused, refusing, submit_form
from worker_tasks.records import task_search

HTML = {"Accept": "text/html"}
ANSWER_SECONDS = 3.0

METADATA = {"note": "for the “audit” & more", "metadata-0-key": "ticket", "metadata-0-value": "T-7 <b>"}
BUILDER = METADATA | {
    "database": "shop",
    "source": "users",
    "filters-0-field": "city",
    "filters-0-operator": "ne",
    "filters-0-value": "Madrid",
    "filters-1-field": "",
    "filters-1-value": "typed before its field",
    "raw": '{"age": {"$gt": 30}}',
    "expand-0-path": "tags",
    "expand-0-position": "n",
    "expand-0-keep_empty": "y",
    "fields": "city",
    "sort-0-field": "name",
    "sort-0-direction": "-1",
    "limit": "17",
    "joins-0-source": "orders",
    "joins-0-on-0-local": "_id",
    "joins-0-on-0-foreign": "userId",
    "joins-0-on-0-cast": "string",
    "joins-0-on-0-fold": "case",
    "joins-0-kind": "inner",
    "joins-0-shape": "array",
    "joins-0-name": "theirs",
    "joins-0-fields": "amount",
    "joins-0-limit": "three",
    "joins-1-source": "reviews",
    "joins-1-on-0-local": "_id",
    "joins-1-on-0-foreign": "user_id",
    "joins-1-kind": "left",
    "joins-1-shape": "count",
    "joins-2-source": "$flights$planes",
    "joins-2-on-0-local": "items.id",
    "joins-2-on-0-foreign": "_id",
    "joins-2-into": "items",
    "joins-2-shape": "first",
    "saved_name": "Orders of a city",
    "saved_description": "How many each has.",
}
NOT_RIGHT_YET = ("raw", "joins-0-limit", "joins-1-", "joins-2-", "expand-")
RUNNABLE = {name: text for name, text in BUILDER.items() if not name.startswith(NOT_RIGHT_YET)}
SAVED = {"value-status": "PAID", **METADATA}

pytestmark = pytest.mark.usefixtures("shop")


class Fields(HTMLParser):
    """The values a browser would submit from the forms of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self._select = self._text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "input" and name and (given.get("type") not in {"checkbox", "radio"} or "checked" in given):
            self.sent[name].append(value)
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in given:
            self.sent[self._select].append(value)
        elif tag == "textarea":
            self._text = name

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text and data.strip():
            self.sent[self._text].append(data.strip())


def assert_all_is_there(answer: TestResponse, typed: dict[str, str], server: str) -> None:
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert server in answer.text
    sent = Fields(answer.text).sent
    assert {name: sent.get(name) for name in typed} == {name: [text] for name, text in typed.items()}


@pytest.fixture
def saved(client: FlaskClient) -> str:
    """The URL of a saved join with the parameter status."""
    names = {
        "saved_name": "By status",
        "filters-0-field": "status",
        "filters-0-value": "{status}",
        "filters-0-type": "string",
    }
    draft = {name: text for name, text in RUNNABLE.items() if not name.startswith(("filters", "saved"))}
    answer = submit_form(client, "/", {**draft, **names, "do": "save"}, headers=HTML)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def token_of(client: FlaskClient, where: str) -> dict[str, str]:
    return {"csrf_token": Fields(client.get(where, headers=HTML).text).sent["csrf_token"][0]}


ROUTES = {
    "a change": ("/", BUILDER | {"do": "draft"}, "mongodb"),
    "another collection": ("/", BUILDER | {"do": "add-join"}, "mongodb"),
    "the checks": ("/", BUILDER | {"do": "check"}, "mongodb"),
    "a run": ("/", RUNNABLE | {"do": "run"}, "mongodb redis"),
    "a run that is not right yet": ("/", BUILDER | {"do": "run"}, "mongodb"),
    "a saved join": ("/", RUNNABLE | {"do": "save"}, "mongodb"),
    "a run of a saved join": ("saved", SAVED, "mongodb redis"),
    "a row of metadata": ("saved", SAVED | {"do": "add-row"}, "mongodb"),
    "a run of a join that is there": ("/saved/orders-by-status", SAVED, "mongodb redis"),
    "the original join": ("/user-orders", METADATA | {"user_id": "u1"}, "mongodb redis"),
    "the practice task": ("/practice", METADATA | {"task_input": "x y"}, "mongodb redis"),
}


@pytest.mark.parametrize(
    ("route", "name"),
    [(route, name) for route, (_, _, names) in ROUTES.items() for name in names.split()],
)
def test_all_typed_text_comes_back_while_a_server_is_frozen(
    client: FlaskClient, saved: str, no_tasks: None, route: str, name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{name}_server")
    where, typed, _ = ROUTES[route]
    where = saved if where == "saved" else where
    token = token_of(client, where)
    with paused(server):
        started = time.monotonic()
        answer = client.post(where, data=token | typed, headers=HTML)
        took = time.monotonic() - started
    assert_all_is_there(answer, {key: text for key, text in typed.items() if key != "do"}, server.name)
    assert took < ANSWER_SECONDS
    assert task_search.search(task_search.TaskFilter(), 1) == []


@pytest.mark.parametrize("route", ["a run", "a run of a saved join", "the original join", "the practice task"])
def test_all_typed_text_comes_back_while_redis_refuses_writes(client: FlaskClient, saved: str, route: str) -> None:
    where, typed, _ = ROUTES[route]
    where = saved if where == "saved" else where
    token = token_of(client, where)
    with refusing("OOM"):
        answer = client.post(where, data=token | typed, headers=HTML)
    assert_all_is_there(answer, {key: text for key, text in typed.items() if key != "do"}, "Redis")


def test_the_form_shows_the_url_while_mongodb_is_away(client: FlaskClient, mongodb_server: Server) -> None:
    typed = {name: text for name, text in BUILDER.items() if not name.startswith("saved")}
    with paused(mongodb_server):
        answer = client.get(f"/?{urlencode(typed)}&check=yes", headers=HTML)
    assert_all_is_there(answer, typed, "MongoDB is away")


@pytest.mark.parametrize("path", ["/", "/checks"])
def test_a_fragment_that_cannot_be_rendered_is_an_error_that_htmx_ignores(
    client: FlaskClient, mongodb_server: Server, path: str
) -> None:
    page = client.get("/", headers=HTML).text
    assert '"noSwap": [204, 304, "4xx", "5xx"]' in page
    token = token_of(client, "/")
    with paused(mongodb_server):
        answer = client.post(path, data=token | RUNNABLE, headers={**HTML, "HX-Request": "true"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert not {"HX-Retarget", "HX-Replace-Url", "HX-Push-Url"} & set(answer.headers.keys())

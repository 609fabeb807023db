"""A form submits a task, or comes back with its errors."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from pymongo.database import Database

from development.servers import Server
from tests.support import paused, submit_form
from worker_tasks.infra.connections import Document
from worker_tasks.records import ledger

Traces = Callable[[], tuple[int, int]]


def asked(location: str) -> Document:
    """The document of the task to which the response redirects."""
    page = re.fullmatch(r"/tasks/([0-9a-f-]{36})", location)
    assert page, location
    return ledger.find_task(page[1])


def test_a_submitted_form_is_recorded_with_note_and_metadata(client: FlaskClient, servers: None) -> None:
    answer = submit_form(
        client,
        "/user-orders",
        {
            "user_id": "u1",
            "note": "for the audit",
            "metadata-0-key": "metadata_1",
            "metadata-0-value": "important info",
            "metadata-1-key": "metadata_2",
            "metadata-1-value": "",
            "metadata-2-key": "ticket",
            "metadata-2-value": "T-1000",
        },
    )
    assert answer.status_code == 303
    task = asked(answer.headers["Location"])
    assert (task["name"], task["args"]) == ("worker_tasks.tasks.join_users_orders", ["u1"])
    assert task["metadata"] == {"note": "for the audit", "metadata_1": "important info", "ticket": "T-1000"}


def test_a_practice_task_is_recorded_in_the_same_way(client: FlaskClient, servers: None) -> None:
    answer = submit_form(client, "/practice", {"task_input": "some text"})
    task = asked(answer.headers["Location"])
    assert (task["name"], task["args"]) == ("worker_tasks.tasks.long_running_task", ["some text"])


def test_adding_a_row_keeps_the_typed_text(client: FlaskClient, servers: None, traces: Traces) -> None:
    before = traces()
    typed = {"user_id": "u7", "metadata-0-key": "team", "metadata-0-value": "blue", "do": "add-row"}
    page = submit_form(client, "/user-orders", typed).text
    assert 'value="u7"' in page
    assert 'value="team"' in page
    assert 'value="blue"' in page
    assert 'name="metadata-1-key"' in page
    assert "Not submitted" not in page
    assert traces() == before


@pytest.mark.parametrize(
    ("where", "typed"),
    [
        ("/user-orders", {"user_id": "u1"}),
        ("/practice", {"task_input": "x"}),
        ("/saved/orders-by-status", {"value-status": "PAID"}),
    ],
)
def test_an_unknown_button_submits_nothing(
    client: FlaskClient, shop: Database[Document], traces: Traces, where: str, typed: dict[str, str]
) -> None:
    before = traces()
    answer = submit_form(client, where, typed | {"do": "add-rows"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == ["do"]
    assert traces() == before


def test_enter_does_not_press_the_button_that_adds_a_row(client: FlaskClient, servers: None) -> None:
    """Enter in a field presses the first submit button."""
    for page in ("/user-orders", "/practice"):
        buttons = re.findall(r"<button[^>]*>", client.get(page).text)
        assert 'type="submit"' in buttons[0]
        assert "name=" not in buttons[0]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"user_id": ""}, "must not be empty"),
        ({"user_id": "  "}, "must not be empty"),
        ({"user_id": "u" * 201}, "at most 200 are allowed"),
        ({"user_id": "u1", "metadata-0-key": "", "metadata-0-value": "x"}, "a key must not be empty"),
        ({"user_id": "u1", "metadata-0-key": "a.b", "metadata-0-value": "x"}, "a key must not contain"),
        ({"user_id": "u1", "metadata-0-key": "$a", "metadata-0-value": "x"}, "a key must not contain"),
        ({"user_id": "u1", "metadata-0-key": "k" * 101, "metadata-0-value": "x"}, "at most 100 characters"),
        (
            {
                "user_id": "u1",
                "metadata-0-key": "a",
                "metadata-0-value": "x",
                "metadata-1-key": "a",
                "metadata-1-value": "y",
            },
            "The key “a” is there twice.",
        ),
        ({"user_id": "u1", "note": "x", "metadata-0-key": "note", "metadata-0-value": "y"}, "is there twice"),
        ({"user_id": "u1", "note": "x" * 17_000}, "at most 16,384 are kept"),
    ],
)
def test_an_error_appears_beside_its_field_and_leaves_no_trace(
    client: FlaskClient, servers: None, traces: Traces, fields: dict[str, str], complaint: str
) -> None:
    before = traces()
    answer = submit_form(client, "/user-orders", fields)
    assert answer.status_code == 422
    assert re.search(r'class="wrong"[^>]*>[^<]*' + re.escape(complaint), answer.text), answer.text
    assert answer.text.count('aria-invalid="true"') == 1
    assert traces() == before


def test_too_many_rows_of_metadata_are_refused(client: FlaskClient, servers: None, traces: Traces) -> None:
    before = traces()
    rows = {f"metadata-{row}-{part}": f"{part}{row}" for row in range(51) for part in ("key", "value")}
    assert submit_form(client, "/user-orders", {"user_id": "u1", **rows}).status_code == 422
    assert traces() == before


def test_an_empty_practice_task_is_refused(client: FlaskClient, servers: None, traces: Traces) -> None:
    before = traces()
    for typed in ("", " ", "x" * 1001):
        assert submit_form(client, "/practice", {"task_input": typed}).status_code == 422
    assert traces() == before


def test_a_form_without_its_token_is_refused(client: FlaskClient, servers: None, traces: Traces) -> None:
    before = traces()
    answer = client.post("/user-orders", data={"user_id": "u1"}, headers={"Accept": "text/html"})
    assert answer.status_code == 400
    assert "The form could not be taken" in answer.text
    assert traces() == before


@pytest.mark.parametrize("server", ["redis_server", "mongodb_server"])
def test_the_form_comes_back_unchanged_while_a_server_is_away(
    client: FlaskClient, servers: None, server: str, request: pytest.FixtureRequest
) -> None:
    away: Server = request.getfixturevalue(server)
    with paused(away):
        answer = submit_form(client, "/user-orders", {"user_id": "u42", "note": "urgent"})
    assert answer.status_code == 503
    assert f"{away.name} does not answer" in answer.text
    assert 'value="u42"' in answer.text
    assert 'value="urgent"' in answer.text

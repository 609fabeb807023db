"""Every error is answered in time, with a page for browsers and problem+json for API clients."""

import time
from http import HTTPStatus

import pytest
from flask import Flask
from flask.testing import FlaskClient

from development.servers import Server
from tests.support import paused
from webapp.application import create_app

HTML = {"Accept": "text/html"}
ANSWER_SECONDS = 3.0


def test_an_unknown_url_is_a_page_for_browsers(client: FlaskClient, servers: None) -> None:
    page = client.get("/nothing/here", headers=HTML)
    assert (page.status_code, page.content_type) == (404, "text/html; charset=utf-8")
    assert "There is no page at this address." in page.text


def test_an_unknown_url_is_a_problem_document_for_api_clients(client: FlaskClient, servers: None) -> None:
    answer = client.get("/api/v1/nothing")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.get_json() == {
        "type": "about:blank",
        "title": "Nothing here",
        "status": 404,
        "detail": "There is no page at this address.",
    }


def test_a_wrong_method_is_answered_with_the_allowed_ones(client: FlaskClient, servers: None) -> None:
    answer = client.get("/create-task")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.fixture
def broken(servers: None) -> Flask:
    """The application with a page that raises an unexpected error."""
    app = create_app()

    @app.get("/broken")
    def fail() -> str:
        raise KeyError("a secret")

    return app


def test_an_internal_error_is_a_page_without_secrets(broken: Flask, caplog: pytest.LogCaptureFixture) -> None:
    page = broken.test_client().get("/broken", headers=HTML)
    assert page.status_code == 500
    assert "Something broke on our side" in page.text
    assert "secret" not in page.text
    assert "a secret" in caplog.text


def test_an_internal_error_is_a_problem_document_for_api_clients(broken: Flask) -> None:
    answer = broken.test_client().get("/broken")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("mongodb_server", "/tasks"),
        ("mongodb_server", "/tasks/{task}"),
        ("mongodb_server", "/tasks/{task}/result"),
        ("mongodb_server", "/task/{task}"),
        ("redis_server", "/tasks/{task}"),
        ("redis_server", "/tasks/{task}/status"),
    ],
)
def test_while_a_server_is_away_pages_answer_in_time(
    client: FlaskClient, waiting_task: str, server: str, path: str, request: pytest.FixtureRequest
) -> None:
    away: Server = request.getfixturevalue(server)
    with paused(away):
        started = time.monotonic()
        answer = client.get(path.format(task=waiting_task), headers=HTML)
        took = time.monotonic() - started
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.headers["Retry-After"] == "5"
    assert took < ANSWER_SECONDS
    if not path.startswith("/task/"):
        assert f"{away.name} is away" in answer.text


@pytest.mark.parametrize("server", ["mongodb_server", "redis_server"])
def test_while_a_server_is_away_the_api_answers_in_time(
    client: FlaskClient, servers: None, server: str, request: pytest.FixtureRequest
) -> None:
    away: Server = request.getfixturevalue(server)
    with paused(away):
        started = time.monotonic()
        answer = client.post("/create-task", json={"task_input": "x"})
        took = time.monotonic() - started
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.get_json()["title"] == f"{away.name} is away"
    assert took < ANSWER_SECONDS


def test_healthz_depends_on_no_server(client: FlaskClient, redis_server: Server, mongodb_server: Server) -> None:
    with paused(redis_server), paused(mongodb_server):
        assert client.get("/healthz").get_json() == {"status": "alive"}


def test_readyz_names_the_servers_that_are_away(client: FlaskClient, servers: None, mongodb_server: Server) -> None:
    assert client.get("/readyz").get_json()["away"] == []
    with paused(mongodb_server):
        started = time.monotonic()
        answer = client.get("/readyz")
        took = time.monotonic() - started
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.get_json()["away"] == ["MongoDB"]
    assert took < ANSWER_SECONDS

"""Each line in the log of the web process names its request and its task."""

import logging
import random
import re
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from celery.app.defaults import DEFAULT_PROCESS_LOG_FMT
from flask.testing import FlaskClient

from development.servers import Server, free_port
from tests.support import Process, paused
from webapp.support import logs

#: The beginning of the worker's lines.
BEGINNING = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: [A-Z]+/[\w-]+\] ")


@pytest.fixture
def web(servers: None, tmp_path: Path) -> Iterator[tuple[str, Process]]:
    """The address of a web process of its own, and the process with its log."""
    port = free_port()
    process = Process("web", tmp_path / "web.log", GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}")
    process.wait_for_line("Booting worker")
    yield f"http://127.0.0.1:{port}", process
    process.stop()


def ask(address: str, **headers: str) -> tuple[int, str]:
    """The status and the request id of the response."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        response = urlopen(Request(address, headers=named), timeout=30)
    except HTTPError as refused:
        response = refused
    with response:
        return response.status or 0, response.headers["X-Request-ID"]


def about(process: Process, text: str) -> list[str]:
    return [line for line in process.log.read_text().splitlines() if text in line]


def test_lines_have_the_format_of_the_worker(web: tuple[str, Process], worker: Process) -> None:
    assert logs.LINE_FORMAT.replace("%(about)s", "") == DEFAULT_PROCESS_LOG_FMT
    _, process = web
    for each in (process, worker):
        lines = about(each, "Booting worker") + about(each, "ready.")
        assert lines
        assert [line for line in lines if not BEGINNING.match(line)] == []


def test_each_line_names_its_request_and_task_under_concurrency(
    web: tuple[str, Process], mongodb_server: Server
) -> None:
    address, process = web
    asked = {f"id-{number}": f"task-{number}" for number in range(24)}
    with paused(mongodb_server), ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda each: ask(f"{address}/tasks/{each[1]}", X_Request_ID=each[0]), asked.items())
        assert list(answers) == [(503, request_id) for request_id in asked]
    for request_id, task_id in asked.items():
        (line,) = about(process, f"GET /tasks/{task_id}:")
        assert f"request[{request_id}] task[{task_id}]: GET" in line
        assert BEGINNING.match(line)


def test_a_line_without_a_task_names_the_request_alone(web: tuple[str, Process], mongodb_server: Server) -> None:
    address, process = web
    with paused(mongodb_server):
        status, request_id = ask(f"{address}/tasks")
    (line,) = about(process, "GET /tasks:")
    assert status == 503
    assert BEGINNING.sub("", line).startswith(f"request[{request_id}]: GET /tasks: MongoDB does not answer.")


def test_a_url_cannot_forge_a_line(web: tuple[str, Process], mongodb_server: Server) -> None:
    address, process = web
    forged = "x\n[2026-01-01 00:00:00,000: ERROR-x] forged \x1b[31m\u2028"
    with paused(mongodb_server):
        assert ask(f"{address}/tasks/{quote(forged)}", X_Request_ID="honest")[0] == 503
    (line,) = about(process, "forged")
    assert BEGINNING.sub("", line).startswith("request[honest] task[x\\n[2026")
    assert "\x1b" not in line


@pytest.mark.parametrize("path", ["/healthz", "/practice", "/nothing", "/static/dovetail.css", "/api/v1/openapi.json"])
def test_every_response_has_its_request_id(client: FlaskClient, path: str) -> None:
    with client.get(path, headers={"X-Request-ID": "8f14e45f-ceea-467f"}) as answer:
        assert answer.headers.getlist("X-Request-ID") == ["8f14e45f-ceea-467f"]
    with client.get(path) as first, client.get(path) as second:
        ids = [each.headers["X-Request-ID"] for each in (first, second)]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)


@pytest.mark.parametrize("seed", range(40))
def test_a_request_id_is_kept_if_it_is_safe_and_replaced_otherwise(client: FlaskClient, seed: int) -> None:
    pick = random.Random(seed)
    token = string.ascii_letters + string.digits + "._~+/=:-"
    length = pick.choice([1, 36, 128, 129, 5_000])
    sent = "".join(pick.choices(token, k=length))
    if not seed % 2:
        place = pick.randrange(length)
        sent = sent[:place] + pick.choice(" ,;\"'<>{}[]\\%\t\xe9\xff") + sent[place + 1 :]
    answered = client.get("/healthz", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    if seed % 2 and length <= 128:
        assert answered == sent
    else:
        assert answered != sent
        assert re.fullmatch(r"[0-9a-f]{32}", answered)


def test_a_traceback_keeps_its_lines() -> None:
    formatter = logs.OneLineFormatter(logs.LINE_FORMAT)
    try:
        raise KeyError("x")
    except KeyError as error:
        cause = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "a\nb", None, cause)
    assert logs.ContextFilter().filter(record)
    first, *rest = formatter.format(record).splitlines()
    assert first.endswith("a\\nb")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "KeyError: 'x'"

"""The clients of the origin in a shell: submit, and fetch."""

import json
import signal
import subprocess
import sys

import pytest

from development.servers import Server
from tests.support import ROOT, Process, paused, wait_for_state
from tests.worker_tasks.support import METADATA, answered_in_time, new_id
from worker_tasks.client import main
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders


def test_submit_prints_the_task_id_without_waiting(worker: Process, capsys: pytest.CaptureFixture[str]) -> None:
    worker.signal_group(signal.SIGSTOP)
    try:
        with answered_in_time():
            assert main(["submit", "u1", "--metadata", "reason=audit", "--metadata", "note=a=b"]) == 0
        task = ledger.find_task(capsys.readouterr().out.strip())
        assert task["status"] == "PENDING"
    finally:
        worker.signal_group(signal.SIGCONT)
    assert (task["args"], task["metadata"]) == (["u1"], {"reason": "audit", "note": "a=b"})
    wait_for_state(task["_id"], "SUCCESS")


def test_fetch_prints_the_joined_documents(worker: Process, capsys: pytest.CaptureFixture[str]) -> None:
    wait_for_state(submit(join_users_orders, "u1", metadata=METADATA), "SUCCESS")
    assert main(["fetch", "u1"]) == 0
    (user,) = json.loads(capsys.readouterr().out)
    assert (user["name"], [order["_id"] for order in user["orders"]]) == ("Alice", ["o101"])


def test_fetching_what_is_not_there_is_an_error_and_a_sentence(
    servers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "nobody was ever joined"]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err == "There is no result for nobody was ever joined: never joined, expired, or lost.\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", ""], "user_id: must not be empty"),
        (["submit", "u" * 201], "user_id: has 201 characters"),
        (["submit", "u1", "--metadata", "$where=1"], "metadata.$where: a key must not contain"),
        (["submit", "u1", "--metadata", "=1"], "metadata.: a key must not be empty"),
    ],
)
def test_what_can_not_be_asked_is_an_error_and_a_sentence(
    servers: None, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    before = connections().tasks.count_documents({})
    assert main(arguments) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert words in answer.err
    assert connections().tasks.count_documents({}) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "submit"),
        (["submit"], "user_id"),
        (["submit", "u1", "--metadata", "reason"], "'reason' is not KEY=VALUE"),
        (["delete", "u1"], "invalid choice"),
    ],
)
def test_what_is_not_understood_shows_how_to_ask(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    answer = capsys.readouterr().err
    assert "usage: python -m worker_tasks.client" in answer
    assert words in answer


@pytest.mark.parametrize("arguments", [["submit", "u1"], ["fetch", "u1"]])
def test_while_redis_is_away_there_is_a_sentence_in_time(
    redis_server: Server, servers: None, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with paused(redis_server), answered_in_time():
        assert main(arguments) == 1
    assert capsys.readouterr().err == "Redis does not answer. Nothing is lost; try again in a moment.\n"


@pytest.mark.parametrize(
    ("variables", "words"), [({}, "There is no result for"), ({"REDIS_URL": "http://nowhere"}, "REDIS_URL")]
)
def test_from_a_shell_there_is_a_sentence_and_no_traceback(
    servers: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = subprocess.run(
        [sys.executable, "-m", "worker_tasks.client", "fetch", new_id()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert words in run.stderr
    assert "Traceback" not in run.stderr

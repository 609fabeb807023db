"""The commands submit and fetch of the command-line client."""

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


def test_fetching_a_missing_result_prints_one_sentence(servers: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "nobody was ever joined"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "There is no result for nobody was ever joined: never joined, expired, or lost.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["submit", ""], "user_id: must not be empty"),
        (["submit", "u" * 201], "user_id: has 201 characters"),
        (["submit", "u1", "--metadata", "$where=1"], "metadata.$where: a key must not contain"),
        (["submit", "u1", "--metadata", "=1"], "metadata.: a key must not be empty"),
    ],
)
def test_invalid_input_prints_one_sentence_and_records_nothing(
    servers: None, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    before = connections().tasks.count_documents({})
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert expected in output.err
    assert connections().tasks.count_documents({}) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "submit"),
        (["submit"], "user_id"),
        (["submit", "u1", "--metadata", "reason"], "'reason' is not KEY=VALUE"),
        (["delete", "u1"], "invalid choice"),
    ],
)
def test_invalid_arguments_print_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    output = capsys.readouterr().err
    assert "usage: python -m worker_tasks.client" in output
    assert expected in output


@pytest.mark.parametrize("arguments", [["submit", "u1"], ["fetch", "u1"]])
def test_while_redis_is_away_the_client_prints_one_sentence_in_time(
    redis_server: Server, servers: None, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with paused(redis_server), answered_in_time():
        assert main(arguments) == 1
    assert capsys.readouterr().err == "Redis does not answer. Nothing is lost; try again in a moment.\n"


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, "There is no result for"), ({"REDIS_URL": "http://nowhere"}, "REDIS_URL")]
)
def test_in_a_shell_errors_are_sentences_without_a_traceback(
    servers: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
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
    assert expected in run.stderr
    assert "Traceback" not in run.stderr

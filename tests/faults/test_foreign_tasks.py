"""Tasks written and sent by other developers work as on stock Celery, and the ledger records them."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, states
from redis.utils import str_if_bytes

from development.servers import Server
from tests.faults.conftest import StartWorker
from tests.faults.support import METADATA, failure_message, killed, messages, unacknowledged
from tests.support import Process, eventually, wait_for_state
from worker_tasks.infra.connections import TASKS_COLLECTION, connections
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.tasks import long_running_task
from worker_tasks.worker.reconciler import reconcile

#: A module of tasks by a developer who knows Celery, but not Dovetail.
OTHERS = """
import os
import pathlib
import time

from celery import group
from celery.exceptions import Reject

from worker_tasks.queue.celery_app import app

app.conf.task_routes = {"celery.*": {"queue": os.environ["OTHERS_QUEUE"]}}
# An outcome that cannot be stored is tried again once, not for ten seconds.
app.conf.result_backend_max_retries = 1


@app.task(name="others.retries", bind=True, max_retries=30)
def retries(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="others.rejects")
def rejects():
    raise Reject("not for me", requeue=False)


@app.task(name="others.notes", ignore_result=True)
def notes(file, times=0):
    with open(file, "a") as log:
        log.write("x")
    if times == -1:
        raise ValueError("noted and failed")


@app.task(name="others.add")
def add(x, y):
    return x + y


@app.task(name="others.total")
def total(numbers):
    return sum(numbers)


@app.task(name="others.replaced", bind=True)
def replaced(self, queue):
    raise self.replace(group(add.s(1, 1).set(queue=queue), add.s(2, 2).set(queue=queue)))


@app.task(name="others.waits")
def waits(for_file):
    while not pathlib.Path(for_file).exists():
        time.sleep(0.05)
    return "waited"
"""


@pytest.fixture
def others(start_worker: StartWorker, queue: str, tmp_path: Path) -> Process:
    """A worker with these tasks, which gives up a task after three crashes."""
    (tmp_path / "others_tasks.py").write_text(OTHERS)
    return start_worker(
        "first", "--include others_tasks", PYTHONPATH=str(tmp_path), MAX_ATTEMPTS="3", OTHERS_QUEUE=queue
    )


@pytest.fixture
def foreign(redis_server: Server) -> Iterator[Celery]:
    """A client with Celery's defaults."""
    with Celery("foreign", broker=f"{redis_server.url}/0", set_as_current=False) as client:
        yield client


def calls(name: str, *arguments: Any, queue: str, **options: Any) -> Any:
    """The signature of one of these tasks."""
    return app.signature(name, arguments, queue=queue, **options)


def documents_of_celery() -> int:
    return connections().tasks.count_documents({"name": {"$regex": "^celery"}})


@pytest.mark.usefixtures("others")
def test_a_task_with_an_unknown_name_fails_and_the_worker_survives(foreign: Celery, queue: str) -> None:
    unknown = foreign.send_task("no.such.task", queue=queue).id
    recorded = app.send_task("renamed.task", queue=queue, metadata=METADATA).id
    task = wait_for_state(recorded, states.FAILURE)
    assert "NotRegistered" in task["result"]
    assert task["metadata"] == METADATA
    eventually(lambda: connections().tasks.find_one({"_id": unknown, "status": states.FAILURE}))
    assert wait_for_state(app.send_task("others.retries", [0], queue=queue).id, states.SUCCESS)["result"] == "0"
    eventually(lambda: not messages(queue) and unknown not in unacknowledged())


@pytest.mark.usefixtures("others")
def test_retries_of_celery_do_not_count_as_crashes(queue: str) -> None:
    task_id = app.send_task("others.retries", [12], queue=queue, metadata=METADATA).id
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    assert (task["status"], task["result"], task["attempt"]) == (states.SUCCESS, "12", 13)
    assert task["metadata"] == METADATA


@pytest.mark.usefixtures("others")
def test_a_task_that_rejects_its_message_fails(queue: str) -> None:
    task = wait_for_state(app.send_task("others.rejects", queue=queue).id, states.FAILURE)
    assert "not for me" in failure_message(task)
    eventually(lambda: not messages(queue) and task["_id"] not in unacknowledged())


def test_an_error_in_storing_an_outcome_is_not_a_failure_of_the_task(
    others: Process, queue: str, tmp_path: Path, mongodb_server: Server
) -> None:
    task_id = app.send_task("others.waits", [str(tmp_path / "go")], queue=queue, metadata=METADATA).id
    wait_for_state(task_id, states.STARTED)
    with killed(mongodb_server):
        (tmp_path / "go").touch()
        others.wait_for_line(f"task {task_id} is back in the queue: BackendStoreError")
    task = wait_for_state(task_id, states.SUCCESS, states.FAILURE, within=40)
    assert (task["status"], task["result"]) == (states.SUCCESS, '"waited"')
    assert states.FAILURE not in [event["status"] for event in task["timeline"]]
    assert task["metadata"] == METADATA


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("name", ["others.notes", "others.waits"], ids=["by the task", "by the call"])
def test_a_task_with_an_ignored_result_runs_once_and_ends(queue: str, tmp_path: Path, name: str) -> None:
    file = tmp_path / "file"
    file.touch()
    task_id = app.send_task(name, [str(file)], queue=queue, ignore_result=True, metadata=METADATA).id
    task = wait_for_state(task_id, states.SUCCESS)
    assert (task["result"], task["metadata"]) == ("null", METADATA)
    assert task["date_done"] is not None
    assert task_id not in reconcile(app, timedelta(0))
    assert file.read_text() == ("x" if name == "others.notes" else "")


@pytest.mark.usefixtures("others")
def test_a_task_with_an_ignored_result_fails_with_its_reason(queue: str, tmp_path: Path) -> None:
    task = wait_for_state(app.send_task("others.notes", [str(tmp_path / "log"), -1], queue=queue).id, states.FAILURE)
    assert "noted and failed" in failure_message(task)


@pytest.mark.usefixtures("others")
def test_a_chord_with_a_slow_header_runs_its_body(queue: str, tmp_path: Path) -> None:
    before = documents_of_celery()
    # Celery retries its check of the header once a second, so the number of retries exceeds the limit for crashes.
    header = [calls("others.add", 1, 2, queue=queue), calls("others.add", 3, 4, queue=queue, countdown=5)]
    unlock = {"queue": queue}
    app.conf.task_routes = {"celery.chord_unlock": unlock}
    try:
        result = chord(header, calls("others.total", queue=queue), app=app)()
        assert result.get(timeout=30) == 10
    finally:
        app.conf.task_routes = None
    assert documents_of_celery() == before


@pytest.mark.usefixtures("others")
def test_results_of_celerys_own_tasks_are_readable_without_task_documents(queue: str) -> None:
    before = connections().tasks.count_documents({})
    add = calls("others.add", queue=queue)
    result = app.send_task("celery.starmap", [dict(add), [[1, 2], [3, 4]]], queue=queue)
    assert result.get(timeout=20) == [3, 7]
    assert result.status == states.SUCCESS
    assert connections().tasks.count_documents({}) == before


@pytest.mark.usefixtures("others")
def test_a_task_replaced_by_a_group_ends_with_the_results_of_the_group(queue: str) -> None:
    result = app.send_task("others.replaced", [queue], queue=queue, metadata=METADATA)
    assert result.get(timeout=20) == [2, 4]
    task = ledger.find_task(result.id)
    assert (task["status"], task["metadata"]) == (states.SUCCESS, METADATA)


def test_a_task_applied_in_place_has_no_document(servers: None, queue: str) -> None:
    task_id = f"applied-{queue}"
    result = long_running_task.apply(["in place"], task_id=task_id)
    assert result.get() == "Processed: in place"
    assert connections().tasks.count_documents({"_id": task_id}) == 0


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("task_id", [None, "", "x" * 300], ids=["null", "empty", "long"])
def test_a_message_with_an_invalid_task_id_runs_nothing(foreign: Celery, queue: str, task_id: Any) -> None:
    before = connections().tasks.count_documents({})
    for name in ("others.add", "no.such.task"):
        message = foreign.amqp.create_task_message(task_id, name, [1, 2], {})
        with foreign.producer_or_acquire() as producer:
            foreign.amqp.send_task_message(producer, name, message, queue=queue)
    # Messages are consumed in order, so this one ends last, and only if the worker is alive.
    wait_for_state(app.send_task("others.add", [1, 2], queue=queue).id, states.SUCCESS)
    eventually(lambda: not messages(queue) and task_id not in unacknowledged())
    assert connections().tasks.count_documents({}) == before + 1


@pytest.mark.parametrize("terminate", ["command", "client"])
def test_terminate_ends_a_running_task_and_frees_its_slot(
    start_worker: StartWorker, queue: str, tmp_path: Path, terminate: str
) -> None:
    (tmp_path / "others_tasks.py").write_text(OTHERS)
    start_worker("first", "--include others_tasks --concurrency 1", PYTHONPATH=str(tmp_path), OTHERS_QUEUE=queue)
    task_id = app.send_task("others.waits", [str(tmp_path / "never")], queue=queue, metadata=METADATA).id
    wait_for_state(task_id, states.STARTED)
    if terminate == "client":
        app.control.revoke(task_id, terminate=True)
    else:
        app.control.terminate(task_id, signal="SIGTERM")
    task = wait_for_state(task_id, states.REVOKED)
    assert task["cancel_requested"]
    assert task["metadata"] == METADATA
    next_one = wait_for_state(app.send_task("others.add", [1, 2], queue=queue).id, states.SUCCESS)
    assert next_one["result"] == "3"
    assert ledger.find_task(task_id)["attempt"] == 1


def test_task_events_are_sent_once_they_are_enabled(start_worker: StartWorker, queue: str) -> None:
    start_worker("first", LONG_TASK_SECONDS="0")
    seen: list[str] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})

        def received_events() -> set[str]:
            # The countdown lets the receiver connect before the events come.
            task_id = long_running_task.apply_async(["received"], queue=queue, countdown=0.5).id
            with suppress(TimeoutError):
                receiver.capture(limit=None, timeout=1, wakeup=False)
            wait_for_state(task_id, states.SUCCESS)
            return {name for name in seen if name.startswith("task-")}

        assert received_events() == set()
        (answer,) = app.control.enable_events(["first@test"], reply=True)
        assert "ok" in answer["first@test"]
        eventually(lambda: {"task-started", "task-succeeded"} <= received_events())
    assert "worker-heartbeat" in seen


def test_a_worker_makes_the_indexes_if_the_release_phase_was_skipped(start_worker: StartWorker, queue: str) -> None:
    database = connections().mongodb[f"unreleased_{queue[-6:]}"]
    lost = ledger.new_document(f"lost-{queue}", long_running_task.name, ["found"], queue=queue)
    lost["changed_at"] = ledger.now() - timedelta(minutes=5)
    database[TASKS_COLLECTION].insert_one(lost)
    start_worker("first", TASKS_DATABASE=database.name, RECONCILE_SECONDS="1", LONG_TASK_SECONDS="0")
    eventually(lambda: database[TASKS_COLLECTION].find_one({"_id": lost["_id"], "status": states.SUCCESS}))
    assert database[TASKS_COLLECTION].index_information().keys() == connections().tasks.index_information().keys()
    connections().mongodb.drop_database(database.name)


def test_each_queue_has_its_own_exchange(worker: Process) -> None:
    bound: Any = connections().queue.smembers("_kombu.binding.celery")
    assert {str_if_bytes(member).split("\x06\x16")[-1] for member in bound} & {"celery", "reading"} == {"celery"}

"""Celery's own readers can read every state of a task from the result backend, with its metadata."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo.errors
import pytest
from bson.errors import InvalidDocument
from celery import Celery
from celery.exceptions import BackendStoreError, Reject, Retry, TaskRevokedError
from celery.result import AsyncResult, GroupResult
from kombu.exceptions import EncodeError, OperationalError

from development.servers import Server
from tests.support import Process, wait_for_state
from tests.worker_tasks.support import METADATA, new_id, task_in, waiting
from worker_tasks import release
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import InvalidInput, LimitExceeded
from worker_tasks.infra.settings import Settings
from worker_tasks.queue.backend import MetadataBackend
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.usefixtures("servers")

LATE = [("STARTED", {"pid": 1}), ("RETRY", Retry("late")), ("FAILURE", ValueError("late"))]


def store(task_id: str, state: str, value: Any, traceback: str | None = None) -> None:
    """Stores a state as a worker does."""
    app.backend.store_result(task_id, value, state, traceback=traceback)


@pytest.fixture(params=["ours", "stock"])
def reader(request: pytest.FixtureRequest, mongodb_server: Server) -> Iterator[Celery]:
    """Our application, then a foreign client's: Celery's own MongoDB backend on the same documents."""
    if request.param == "ours":
        yield app
        return
    stock = Celery(
        "stock",
        backend=f"mongodb://127.0.0.1:{mongodb_server.port}/tasks",
        set_as_current=False,
        mongodb_backend_settings={"taskmeta_collection": "task_results"},
        accept_content=["json"],
    )
    yield stock
    stock.backend._get_connection().close()
    if "date_done_1" in connections().tasks.index_information():
        connections().tasks.drop_index("date_done_1")


@pytest.mark.parametrize(("state", "value"), [("PENDING", None), ("STARTED", {"pid": 1}), ("SUCCESS", {"count": 1})])
def test_a_state_and_its_value_are_read_unchanged(reader: Celery, state: str, value: Any) -> None:
    task_id = task_in("PENDING")
    store(task_id, state, value)
    read = AsyncResult(task_id, app=reader)
    assert (read.status, read.result, read.traceback) == (state, value, None)
    assert ledger.find_task(task_id)["metadata"] == METADATA


@pytest.mark.parametrize("state", ["RETRY", "FAILURE"])
def test_a_state_with_an_error_is_read_with_its_type_message_and_traceback(reader: Celery, state: str) -> None:
    task_id = task_in("STARTED")
    store(task_id, state, ZeroDivisionError("division by zero"), traceback="Traceback: line 1")
    read = AsyncResult(task_id, app=reader)
    assert (read.status, read.traceback) == (state, "Traceback: line 1")
    assert (type(read.result), str(read.result)) == (ZeroDivisionError, "division by zero")
    assert ledger.find_task(task_id)["metadata"] == METADATA


def test_a_named_failure_is_read_with_its_message(reader: Celery) -> None:
    task_id = task_in("STARTED")
    store(task_id, "FAILURE", InvalidInput({"user_id": "must be text."}))
    error = AsyncResult(task_id, app=reader).result
    assert (type(error).__name__, str(error)) == ("InvalidInput", "user_id: must be text.")


def test_a_task_revoked_by_celery_is_read_as_revoked(reader: Celery) -> None:
    task_id = task_in("PENDING")
    app.backend.mark_as_revoked(task_id, "no longer wanted")
    read = AsyncResult(task_id, app=reader)
    assert (read.status, str(read.result)) == ("REVOKED", "no longer wanted")
    with pytest.raises(TaskRevokedError):
        read.get(timeout=5)
    assert ledger.find_task(task_id)["metadata"] == METADATA


def test_a_cancelled_task_is_read_as_revoked(reader: Celery) -> None:
    task_id = submit(waiting, metadata=METADATA)
    ledger.request_cancellation(task_id)
    read = AsyncResult(task_id, app=reader)
    assert read.status == "REVOKED"
    with pytest.raises(TaskRevokedError):
        read.get(timeout=5)


def test_a_waiting_task_is_read_as_pending(reader: Celery) -> None:
    read = AsyncResult(submit(waiting, metadata=METADATA), app=reader)
    assert (read.status, read.result, read.date_done, read.ready()) == ("PENDING", None, None, False)


def test_an_unknown_task_is_read_as_pending_and_gets_no_document(reader: Celery) -> None:
    task_id = new_id()
    read = AsyncResult(task_id, app=reader)
    assert (read.status, read.result) == ("PENDING", None)
    assert connections().tasks.count_documents({"_id": task_id}) == 0


def test_the_index_of_a_stock_backend_does_not_conflict_with_ours(reader: Celery) -> None:
    AsyncResult(new_id(), app=reader).state  # noqa: B018 - reading the state makes the index
    release.ensure_indexes()
    assert {"expires_at_1", "queued_at_-1__id_-1"} <= connections().tasks.index_information().keys()


def test_a_task_run_by_a_worker_is_read_with_its_return_value(reader: Celery, worker: Process) -> None:
    task_id = submit(join_users_orders, "u1", metadata=METADATA)
    task = wait_for_state(task_id, "SUCCESS")
    assert AsyncResult(task_id, app=reader).get(timeout=5) == {"redis_key": "user_order_result:u1", "count": 1}
    assert task["metadata"] == METADATA
    assert [event["status"] for event in task["timeline"]] == ["PENDING", "STARTED", "SUCCESS"]
    assert (task["attempt"], task["version"]) == (1, 3)


def test_a_task_that_fails_in_a_worker_is_read_with_its_error(worker: Process) -> None:
    read = join_users_orders.apply_async([{"$ne": None}], metadata=METADATA)
    task = wait_for_state(read.id, "FAILURE")
    assert isinstance(read.result, InvalidInput)
    assert read.result.errors == {"user_id": "must be text."}
    assert "InvalidInput" in task["traceback"]
    assert task["metadata"] == METADATA


@pytest.mark.parametrize(("state", "value"), LATE, ids=[state for state, _ in LATE])
def test_success_is_final_whatever_state_comes_late(state: str, value: Any) -> None:
    task_id = task_in("STARTED")
    store(task_id, "SUCCESS", "the result")
    before = ledger.find_task(task_id)
    store(task_id, state, value, traceback="late")
    assert ledger.find_task(task_id) == before
    assert (before["status"], before["result"], before["metadata"]) == ("SUCCESS", '"the result"', METADATA)


def test_a_later_success_replaces_a_failure() -> None:
    task_id = task_in("STARTED")
    store(task_id, "FAILURE", ValueError("lost"), traceback="Traceback: line 1")
    store(task_id, "SUCCESS", "found")
    task = ledger.find_task(task_id)
    assert (task["status"], task["result"], task["traceback"]) == ("SUCCESS", '"found"', None)
    assert task["metadata"] == METADATA


def test_the_end_time_has_a_time_zone() -> None:
    task_id = task_in("STARTED")
    store(task_id, "SUCCESS", None)
    ended = AsyncResult(task_id, app=app).date_done
    assert ended.tzinfo is not None
    assert abs(datetime.now(UTC) - ended) < timedelta(minutes=1)


def test_storing_a_state_of_an_unknown_task_creates_its_document() -> None:
    task_id = new_id()
    store(task_id, "SUCCESS", 1)
    assert ledger.find_task(task_id).keys() == ledger.new_document(task_id).keys()


REDELIVERED = [BackendStoreError("failed to store result"), Reject(OperationalError("Redis is away"), requeue=False)]


@pytest.mark.parametrize("error", REDELIVERED, ids=lambda error: type(error).__name__)
def test_an_error_in_storing_or_publishing_is_not_recorded_as_a_failure(error: Exception) -> None:
    task_id = task_in("STARTED")
    before = ledger.find_task(task_id)
    app.backend.mark_as_failure(task_id, error)
    assert ledger.find_task(task_id) == before


def test_a_task_that_rejects_its_message_with_a_reason_fails() -> None:
    task_id = task_in("STARTED")
    app.backend.mark_as_failure(task_id, Reject("not for me", requeue=False))
    assert ledger.find_task(task_id)["status"] == "FAILURE"


def test_a_retry_resets_the_count_of_crashes() -> None:
    task_id = task_in("STARTED", crashes=3)
    app.backend.mark_as_retry(task_id, Retry("later"))
    assert (ledger.find_task(task_id)["status"], ledger.find_task(task_id)["crashes"]) == ("RETRY", 0)


def test_cleanup_deletes_old_groups_but_no_tasks() -> None:
    old = ledger.now() - timedelta(days=400)
    task_id, old_group, new_group = task_in("SUCCESS", date_done=old), new_id(), new_id()
    for group in (old_group, new_group):
        app.backend.save_group(group, GroupResult(group, [AsyncResult(task_id, app=app)], app=app))
    app.backend.group_collection.update_one({"_id": old_group}, {"$set": {"date_done": old}})
    app.backend.cleanup()
    assert app.backend.restore_group(old_group) is None
    assert [task.id for task in app.backend.restore_group(new_group)] == [task_id]
    assert ledger.find_task(task_id)["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://me:hunter2@one:27018/?replicaSet=rs0", "mongodb://me:**@one:27018"),
        ("mongodb://me:hunter2@one:27017,two:27018/?replicaSet=rs0", "mongodb://me:**@one:27017,two:27018"),
        ("mongodb+srv://me:hunter2@one", "mongodb+srv://me:**@one"),
    ],
)
def test_the_uri_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch, uri: str, expected: str) -> None:
    monkeypatch.setenv("MONGODB_URI", uri)
    monkeypatch.setattr("worker_tasks.queue.backend.settings", Settings)
    assert app.backend.as_uri().startswith(expected)
    assert app.backend.as_uri(include_password=True) == uri


@pytest.mark.parametrize(
    "error",
    [
        pymongo.errors.AutoReconnect(),
        pymongo.errors.NetworkTimeout(),
        pymongo.errors.ServerSelectionTimeoutError(),
        pymongo.errors.NotPrimaryError(),
        pymongo.errors.WTimeoutError("late"),
        pymongo.errors.ExecutionTimeout("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_storing_an_outcome_is_retried_while_mongodb_is_away(error: Exception) -> None:
    assert app.backend.exception_safe_to_retry(error) is True


@pytest.mark.parametrize(
    "error",
    [
        pymongo.errors.OperationFailure("no"),
        pymongo.errors.DuplicateKeyError("there"),
        EncodeError("no"),
        InvalidDocument("no"),
        ValueError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_storing_an_outcome_that_mongodb_refuses_is_not_retried(error: Exception) -> None:
    assert app.backend.exception_safe_to_retry(error) is False


def test_the_application_uses_our_backend_and_retries_its_writes() -> None:
    assert isinstance(app.backend, MetadataBackend)
    assert app.backend.always_retry is True


def test_a_failure_stored_before_the_errors_moved_is_rebuilt() -> None:
    stored = {"exc_type": "LimitExceeded", "exc_message": ["Too long."], "exc_module": "worker_tasks.errors"}
    failure = app.backend.exception_to_python(stored)
    assert isinstance(failure, LimitExceeded)
    assert str(failure) == "Too long."

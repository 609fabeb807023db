"""The Celery application records a task document before it publishes a message, in every way of publishing."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bson import ObjectId
from celery import Celery, chain, group
from celery.result import AsyncResult
from kombu.exceptions import EncodeError
from pymongo.database import Database

from development.servers import Server
from tests.support import Process, eventually, wait_for_state
from tests.worker_tasks.support import METADATA, UNATTENDED, messages, new_id, task_in, waiting
from worker_tasks.infra.connections import Document, connections
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger
from worker_tasks.tasks import join_users_orders

pytestmark = pytest.mark.usefixtures("servers")


def test_a_plain_delay_joins_a_user_with_their_orders(worker: Process) -> None:
    connections().results.delete("user_order_result:u1")
    task = join_users_orders.delay("u1")
    assert task.get(timeout=20) == {"redis_key": "user_order_result:u1", "count": 1}
    value: Any = connections().results.get("user_order_result:u1")
    assert json.loads(value) == [
        {
            "_id": "u1",
            "name": "Alice",
            "email": "alice@example.com",
            "orders": [{"_id": "o101", "userId": "u1", "amount": 1200, "status": "PAID"}],
        }
    ]
    seconds: Any = connections().results.ttl("user_order_result:u1")
    assert 1 <= seconds <= 300


def test_a_plain_delay_has_a_task_document(worker: Process) -> None:
    task = wait_for_state(join_users_orders.delay("u1").id, "SUCCESS")
    assert (task["name"], task["args"], task["metadata"]) == ("worker_tasks.tasks.join_users_orders", ["u1"], {})
    assert json.loads(task["result"]) == {"redis_key": "user_order_result:u1", "count": 1}
    assert task["result_expires_at"] > task["date_done"]


@pytest.fixture
def publish_unrecorded(redis_server: Server) -> Iterator[Callable[[Any], str]]:
    """Publishes a join to the queue without a task document, as a foreign client does."""
    with Celery("foreign", broker=f"{redis_server.url}/0", set_as_current=False) as foreign:
        yield lambda user_id: foreign.send_task("worker_tasks.tasks.join_users_orders", [user_id]).id


@pytest.mark.parametrize(
    ("user_id", "status", "expected"),
    [("u1", "SUCCESS", "user_order_result:u1"), (None, "FAILURE", "must be text"), (2**70, "FAILURE", "cannot store")],
)
def test_a_task_published_by_a_foreign_client_runs_and_is_recorded(
    worker: Process, publish_unrecorded: Callable[[Any], str], user_id: Any, status: str, expected: str
) -> None:
    task_id = publish_unrecorded(user_id)
    task = eventually(lambda: connections().tasks.find_one({"_id": task_id, "date_done": {"$ne": None}}))
    assert (task["status"], task["metadata"]) == (status, {})
    assert expected in task["result"]


def test_a_join_applied_in_place_has_no_document(shop: Database[Document]) -> None:
    task_id = new_id()
    for _ in range(2):
        result = join_users_orders.apply(["u1"], task_id=task_id)
        assert result.get() == {"redis_key": "user_order_result:u1", "count": 1}
    assert connections().tasks.count_documents({"_id": task_id}) == 0


@pytest.mark.parametrize("task_id", [5, "x" * 256])
def test_an_invalid_task_id_is_refused_and_leaves_no_trace(task_id: Any) -> None:
    queued = messages()
    with pytest.raises(ValueError, match="task_id must be text of 1 to 255 characters"):
        app.send_task("tests.waiting", ["u1"], task_id=task_id, queue=UNATTENDED)
    assert connections().tasks.count_documents({"_id": task_id}) == 0
    assert messages() == queued


PUBLISH: list[Callable[[], AsyncResult]] = [
    lambda: waiting.delay("u1"),
    lambda: waiting.apply_async(["u1"]),
    lambda: waiting.apply_async(["u1"], countdown=1000),
    lambda: waiting.s("u1").apply_async(),
    lambda: app.send_task("tests.waiting", ["u1"], queue=UNATTENDED),
    lambda: app.send_task("tests.waiting", ["u1"], queue=app.amqp.queues.select_add(UNATTENDED)),
    lambda: group([waiting.s("u1")]).apply_async().children[0],
    lambda: chain(waiting.s("u1"), waiting.s("u2")).apply_async().parent,
]


@pytest.mark.parametrize("publish", PUBLISH)
def test_every_way_of_publishing_records_the_task(publish: Callable[[], AsyncResult]) -> None:
    task_id = publish().id
    assert messages().count(task_id) == 1
    task = ledger.find_task(task_id)
    assert (task["status"], task["name"], task["args"]) == ("PENDING", "tests.waiting", ["u1"])


def test_arguments_that_mongodb_cannot_store_are_refused_and_leave_no_trace() -> None:
    task_id, queued = new_id(), messages()
    with pytest.raises(EncodeError, match="MongoDB cannot store the task"):
        waiting.apply_async([2**70], task_id=task_id)
    assert connections().tasks.count_documents({"_id": task_id}) == 0
    assert messages() == queued


def test_a_task_that_cannot_be_encoded_as_a_message_is_recorded_as_failed() -> None:
    task_id, queued = new_id(), messages()
    with pytest.raises(EncodeError):
        waiting.apply_async([ObjectId()], task_id=task_id, metadata=METADATA)
    assert messages() == queued
    task = ledger.find_task(task_id)
    assert (task["status"], task["metadata"]) == ("FAILURE", METADATA)
    assert "EncodeError" in task["result"]


def test_tasks_of_celery_itself_have_no_document() -> None:
    task_id = app.send_task("celery.backend_cleanup", queue=UNATTENDED).id
    assert task_id in messages()
    assert connections().tasks.count_documents({"_id": task_id}) == 0


def test_publishing_a_retry_does_not_change_the_record() -> None:
    task_id = task_in("STARTED", attempt=1)
    before = ledger.find_task(task_id)
    app.send_task("tests.waiting", ["u1"], task_id=task_id, retries=1, queue=UNATTENDED)
    assert messages().count(task_id) == 1
    assert ledger.find_task(task_id) == before


def test_a_finished_task_republished_under_its_id_waits_again_with_its_metadata() -> None:
    task_id = task_in("SUCCESS", result='"old"')
    app.send_task("tests.waiting", ["u1"], task_id=task_id, queue=UNATTENDED, metadata={"other": 1})
    assert messages().count(task_id) == 1
    task = ledger.find_task(task_id)
    assert (task["status"], task["result"], task["metadata"]) == ("PENDING", "null", METADATA)

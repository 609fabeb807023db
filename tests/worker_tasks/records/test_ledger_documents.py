"""What a task document holds, how it is recorded, found and listed, and when it ends."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.exceptions import EncodeError
from pymongo.collection import Collection

from tests.worker_tasks.support import METADATA, new_id, task_in
from worker_tasks import release
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import TaskNotFound
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger, task_search
from worker_tasks.records.task_search import Cursor, TaskFilter

pytestmark = pytest.mark.usefixtures("servers")


def test_a_new_document_has_every_field_that_celery_stores() -> None:
    document = ledger.new_document("id")
    assert app.backend._get_result_meta(None, "PENDING", None, None).keys() <= document.keys()
    assert (document["status"], document["date_done"], document["result"]) == ("PENDING", None, "null")
    assert document["queued_at"].tzinfo is UTC


def test_a_document_stays_for_the_days_of_its_retention() -> None:
    document = ledger.new_document("id")
    assert document["expires_at"] - document["queued_at"] == timedelta(days=365)


def test_a_document_comes_back_as_it_was_recorded() -> None:
    document = ledger.new_document(
        new_id(), "a.task", ("u1", 2**63 - 1), {"ünïcödé": [None]}, queue="other", metadata=METADATA, requested_by="ann"
    )
    assert ledger.record(document) is True
    assert ledger.find_task(document["_id"]) == document


def test_an_unknown_id_is_said_to_be_unknown() -> None:
    with pytest.raises(TaskNotFound, match="no task with this id"):
        ledger.find_task(new_id())


@pytest.mark.parametrize("unstorable", [2**70, "\ud800", object(), datetime], ids=["70 bits", "half", "object", "type"])
def test_arguments_that_mongodb_can_not_store_record_nothing(unstorable: Any) -> None:
    task_id = new_id()
    with pytest.raises(EncodeError):
        ledger.record(ledger.new_document(task_id, "a.task", [unstorable]))
    assert connections().tasks.count_documents({"_id": task_id}) == 0


@pytest.mark.parametrize("status", ["PENDING", "STARTED", "RETRY"])
def test_a_task_that_has_not_ended_is_not_recorded_twice(status: str) -> None:
    task_id = task_in(status)
    was = ledger.find_task(task_id)
    assert ledger.record(ledger.new_document(task_id, "b.task", metadata={"other": 1})) is False
    assert ledger.find_task(task_id) == was


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_finished_task_submitted_again_waits_again_and_keeps_its_metadata(status: str) -> None:
    ended = ledger.now() - timedelta(days=30)
    task_id = task_in(
        status,
        result='"old"',
        traceback="old",
        date_done=ended,
        expires_at=ended,
        queued_at=ended,
        cancel_requested=True,
        crashes=3,
    )
    again = ledger.new_document(task_id, metadata={"other": 1})
    assert ledger.record(again) is True
    task = ledger.find_task(task_id)
    for field in ("status", "result", "traceback", "date_done", "expires_at", "queued_at", "cancel_requested"):
        assert task[field] == again[field], field
    assert (task["metadata"], task["version"]) == (METADATA, 2)
    assert task["timeline"][-1]["note"] == "submitted again"
    assert ledger.claim(task_id, "a.task", [], {}, "first@test") == ledger.Claimed(1, crashes=1)


def pages(limit: int) -> list[list[Document]]:
    """All task documents, as someone sees them who follows the cursor."""
    seen: list[list[Document]] = []
    while page := task_search.search(
        TaskFilter(), limit, Cursor(seen[-1][-1]["queued_at"], seen[-1][-1]["_id"]) if seen else None
    ):
        seen.append(page)
        assert len(seen) <= connections().tasks.count_documents({}), "the cursor does not move"
    return seen


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 50])
@pytest.mark.usefixtures("no_tasks")
def test_the_pages_of_the_list_lose_and_repeat_nothing_also_where_the_time_is_the_same(limit: int) -> None:
    newest = ledger.now()
    expected = []
    for ago in range(4):
        same_time = sorted(
            (task_in("PENDING", queued_at=newest - timedelta(seconds=ago)) for _ in range(5)), reverse=True
        )
        expected += same_time
    seen = pages(limit)
    assert [task["_id"] for page in seen for task in page] == expected
    assert {len(page) for page in seen[:-1]} <= {limit}


@pytest.mark.usefixtures("no_tasks")
def test_a_page_does_not_move_when_newer_tasks_come() -> None:
    now = ledger.now()
    older = [task_in("PENDING", queued_at=now - timedelta(seconds=ago)) for ago in range(4)]
    first = task_search.search(TaskFilter(), 2)
    task_in("PENDING", queued_at=now + timedelta(seconds=1))
    second = task_search.search(TaskFilter(), 2, Cursor(first[-1]["queued_at"], first[-1]["_id"]))
    assert [task["_id"] for task in first + second] == older


def test_documents_end_by_the_index_on_expires_at_alone() -> None:
    indexes = connections().tasks.index_information()
    ending = {name: index["expireAfterSeconds"] for name, index in indexes.items() if "expireAfterSeconds" in index}
    assert ending == {"expires_at_1": 0}


def test_making_the_indexes_again_changes_nothing() -> None:
    before = connections().tasks.index_information()
    release.ensure_indexes()
    assert connections().tasks.index_information() == before


@pytest.fixture
def profile(servers: None) -> Iterator[Collection[Document]]:
    """What MongoDB writes about each operation on the database of the tasks, for the length of a test."""
    database = connections().tasks.database
    database.command("profile", 2)
    yield database["system.profile"]
    database.command("profile", 0)
    database.drop_collection("system.profile")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: task_search.search(TaskFilter(), 50),
        lambda: task_search.search(TaskFilter(), 50, Cursor(ledger.now(), "id")),
        lambda: list(task_search.unchanged_since(ledger.now())),
        lambda: task_search.search(TaskFilter(labels=(("team", "blue"),)), 50),
        lambda: task_search.search(TaskFilter(status="FAILURE"), 50),
        lambda: task_search.search(TaskFilter(requested_by="Ann"), 50),
        lambda: task_search.search(TaskFilter(fingerprint="f"), 50, Cursor(ledger.now(), "id")),
    ],
    ids=["first page", "later page", "unchanged", "metadata", "state", "person", "join"],
)
def test_each_list_is_read_from_an_index_and_not_sorted(ask: Callable[[], Any], profile: Collection[Document]) -> None:
    ask()
    (entry,) = profile.find({"op": "query", "ns": connections().tasks.full_name})
    assert entry["planSummary"].startswith("IXSCAN")
    assert "hasSortStage" not in entry

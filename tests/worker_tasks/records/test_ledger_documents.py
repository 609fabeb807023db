"""The fields of task documents, recording and finding them, lists of them, and their retention."""

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


def test_a_new_document_has_all_fields_that_celery_stores() -> None:
    document = ledger.new_document("id")
    assert app.backend._get_result_meta(None, "PENDING", None, None).keys() <= document.keys()
    assert (document["status"], document["date_done"], document["result"]) == ("PENDING", None, "null")
    assert document["queued_at"].tzinfo is UTC


def test_a_document_expires_after_its_retention() -> None:
    document = ledger.new_document("id")
    assert document["expires_at"] - document["queued_at"] == timedelta(days=365)


def test_a_recorded_document_is_read_back_unchanged() -> None:
    document = ledger.new_document(
        new_id(), "a.task", ("u1", 2**63 - 1), {"ünïcödé": [None]}, queue="other", metadata=METADATA, requested_by="ann"
    )
    assert ledger.record(document) is True
    assert ledger.find_task(document["_id"]) == document


def test_finding_an_unknown_id_is_an_error() -> None:
    with pytest.raises(TaskNotFound, match="no task with this id"):
        ledger.find_task(new_id())


@pytest.mark.parametrize("word", ["accounts", "Deals", "users"])
def test_a_word_is_found_in_the_names_of_a_joins_collections(word: str) -> None:
    left = {"source": "crm", "database": "crm", "collection": "accounts"}
    others: list[Any] = [{"database": "sales", "collection": "deals"}, "users"]
    join = {"database": "crm", "from": left, "joins": [{"from": other} for other in others]}
    document = ledger.new_document(new_id(), "a.task") | {"join": join}
    ledger.record(document)
    assert document["_id"] in [task["_id"] for task in task_search.search(TaskFilter(words=(word,)), 200)]


@pytest.mark.parametrize("unstorable", [2**70, "\ud800", object(), datetime], ids=["70 bits", "half", "object", "type"])
def test_arguments_that_mongodb_cannot_store_record_nothing(unstorable: Any) -> None:
    task_id = new_id()
    with pytest.raises(EncodeError):
        ledger.record(ledger.new_document(task_id, "a.task", [unstorable]))
    assert connections().tasks.count_documents({"_id": task_id}) == 0


@pytest.mark.parametrize("status", ["PENDING", "STARTED", "RETRY"])
def test_an_unfinished_task_is_not_recorded_twice(status: str) -> None:
    task_id = task_in(status)
    before = ledger.find_task(task_id)
    assert ledger.record(ledger.new_document(task_id, "b.task", metadata={"other": 1})) is False
    assert ledger.find_task(task_id) == before


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_finished_task_submitted_again_waits_and_keeps_its_metadata(status: str) -> None:
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


def read_pages(limit: int) -> list[list[Document]]:
    """All task documents, page by page along the cursor."""
    pages: list[list[Document]] = []
    while page := task_search.search(
        TaskFilter(), limit, Cursor(pages[-1][-1]["queued_at"], pages[-1][-1]["_id"]) if pages else None
    ):
        pages.append(page)
        assert len(pages) <= connections().tasks.count_documents({}), "the cursor does not move"
    return pages


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 50])
@pytest.mark.usefixtures("no_tasks")
def test_pages_neither_lose_nor_repeat_tasks_even_with_equal_times(limit: int) -> None:
    newest = ledger.now()
    expected = []
    for ago in range(4):
        same_time = sorted(
            (task_in("PENDING", queued_at=newest - timedelta(seconds=ago)) for _ in range(5)), reverse=True
        )
        expected += same_time
    pages = read_pages(limit)
    # A task that another test submitted to a paused MongoDB may be recorded only now.
    assert [task["_id"] for page in pages for task in page if task["_id"] in expected] == expected
    assert {len(page) for page in pages[:-1]} <= {limit}


@pytest.mark.usefixtures("no_tasks")
def test_newer_tasks_do_not_shift_later_pages() -> None:
    now = ledger.now()
    older = [task_in("PENDING", queued_at=now - timedelta(seconds=ago)) for ago in range(4)]
    first = task_search.search(TaskFilter(), 2)
    task_in("PENDING", queued_at=now + timedelta(seconds=1))
    second = task_search.search(TaskFilter(), 2, Cursor(first[-1]["queued_at"], first[-1]["_id"]))
    assert [task["_id"] for task in first + second] == older


def test_only_the_index_on_expires_at_deletes_documents() -> None:
    indexes = connections().tasks.index_information()
    expiring = {name: index["expireAfterSeconds"] for name, index in indexes.items() if "expireAfterSeconds" in index}
    assert expiring == {"expires_at_1": 0}


def test_creating_the_indexes_again_changes_nothing() -> None:
    before = connections().tasks.index_information()
    release.ensure_indexes()
    assert connections().tasks.index_information() == before


@pytest.fixture
def profile(servers: None) -> Iterator[Collection[Document]]:
    """MongoDB's profile of all operations on the tasks database during a test."""
    database = connections().tasks.database
    database.command("profile", 2)
    yield database["system.profile"]
    database.command("profile", 0)
    database.drop_collection("system.profile")


@pytest.mark.parametrize(
    "query",
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
def test_an_index_serves_each_list_without_sorting(query: Callable[[], Any], profile: Collection[Document]) -> None:
    query()
    (entry,) = profile.find({"op": "query", "ns": connections().tasks.full_name})
    assert entry["planSummary"].startswith("IXSCAN")
    assert "hasSortStage" not in entry

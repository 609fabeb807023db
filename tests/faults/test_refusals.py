"""Redis is there and refuses, full or without a primary: the web says so, and still shows what can be read."""

import json

import pytest

from tests.faults.conftest import Submit
from tests.faults.test_web_answers import ask_for_everything, get, late, post_json, statuses
from tests.support import REFUSALS, publish, refusing
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import REDIS_REFUSALS
from worker_tasks.records import ledger
from worker_tasks.results import result_store

JOIN = {
    "database": "shop",
    "from": "orders",
    "joins": [{"from": "users", "on": [{"local": "userId", "foreign": "_id"}], "as": "user"}],
}


@pytest.fixture
def joined(servers: None) -> str:
    """The id of a task that has a result of 200 rows, of which nothing was worked out yet."""
    document = ledger.new_document("joined", "worker_tasks.tasks.run_join", [JOIN], join=JOIN)
    connections().tasks.delete_one({"_id": document["_id"]})
    summary = publish([{"_id": number} for number in range(200)], result_store.join_key("some"), document["_id"])
    done: Document = {"status": "SUCCESS", "result": json.dumps(summary.outcome), "date_done": ledger.now()}
    connections().tasks.insert_one(document | done | summary.fields)
    return document["_id"]


@pytest.mark.parametrize("word", REFUSALS)
def test_what_redis_refuses_to_take_is_answered_in_words_and_all_else_is_there(
    word: str, address: str, shop: object, submit_practice: Submit, joined: str
) -> None:
    task_id = submit_practice("waits")
    before = connections().tasks.count_documents({})
    with refusing(word):
        answers = ask_for_everything(address, task_id)
        looked = get(f"{address}/?database=shop&from=orders&joins-0-from=users")
        result = get(f"{address}/tasks/{joined}/result")
        whole = get(f"{address}/api/v1/tasks/{joined}/result.json")
        asked = post_json(f"{address}/api/v1/joins", {"join": JOIN})
    assert late(answers) == {}
    refused = {asked_for: status for asked_for, status in statuses(answers).items() if status != 200}
    # One that is full is ready: what is there can be read.
    assert refused == {"POST /create-task": 503} | ({} if word == "OOM" else {"/readyz": 503})
    title, reason = REDIS_REFUSALS[word]
    for refusal in (answers["POST /create-task"], asked):
        assert (refusal.status, json.loads(refusal.body)["title"]) == (503, title)
    assert ("no room" if word == "OOM" else reason) in answers["/readyz"].body
    assert connections().tasks.count_documents({}) == before
    assert (looked.status, result.status, whole.status) == (200, 200, 200)
    assert json.loads(whole.body)[199] == {"_id": 199}
    assert "can be read, but not sorted or searched: Redis" in result.body
    # And as soon as it takes something again:
    assert post_json(f"{address}/create-task", {"task_input": "after it"}).status == 200


def test_a_redis_that_lost_its_primary_shows_nothing_and_says_why(address: str, submit_practice: Submit) -> None:
    task_id = submit_practice("waits")
    with refusing("MASTERDOWN"):
        page, ready = get(f"{address}/tasks/{task_id}"), get(f"{address}/readyz")
    assert (page.status, ready.status) == (503, 503)
    assert "Redis has no primary" in page.body
    assert get(f"{address}/tasks/{task_id}").status == 200


def test_what_changes_a_task_while_redis_is_full_is_done_and_said_to_be(address: str, submit_practice: Submit) -> None:
    task_id = submit_practice("waits")
    with refusing("OOM"):
        edited = post_json(f"{address}/api/v1/tasks/{task_id}", {"metadata": {"seen": True}}, method="PATCH")
        cancelled = post_json(f"{address}/api/v1/tasks/{task_id}", {}, method="DELETE")
    assert (edited.status, cancelled.status) == (200, 202)
    task = ledger.find_task(task_id)
    assert (task["status"], task["metadata"]["seen"]) == ("REVOKED", True)

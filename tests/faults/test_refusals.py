"""If Redis is full or has no primary, pages say so, and still show the data that can be read."""

import json

import pytest

from tests.faults.conftest import Submit
from tests.faults.test_web_answers import ask_for_everything, get, late, post_json, statuses
from tests.support import REFUSALS, publish, refusing
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import REDIS_REFUSALS
from worker_tasks.records import ledger
from worker_tasks.results import summaries

JOIN = {
    "database": "shop",
    "from": "orders",
    "joins": [{"from": "users", "on": [{"local": "userId", "foreign": "_id"}], "as": "user"}],
}


@pytest.fixture
def joined(servers: None) -> str:
    """The id of a task with a result of 200 rows, without any artifacts."""
    document = ledger.new_document("joined", "worker_tasks.tasks.run_join", [JOIN], join=JOIN)
    connections().tasks.delete_one({"_id": document["_id"]})
    summary = publish([{"_id": number} for number in range(200)], summaries.join_key("some"), document["_id"])
    done: Document = {"status": "SUCCESS", "result": json.dumps(summary.outcome), "date_done": ledger.now()}
    connections().tasks.insert_one(document | done | summary.fields)
    return document["_id"]


@pytest.mark.parametrize("refusal_code", REFUSALS)
def test_writes_that_redis_refuses_get_a_reason_and_everything_else_works(
    refusal_code: str, address: str, shop: object, submit_practice: Submit, joined: str
) -> None:
    task_id = submit_practice("waits")
    before = connections().tasks.count_documents({})
    with refusing(refusal_code):
        answers = ask_for_everything(address, task_id)
        builder = get(f"{address}/?database=shop&from=orders&joins-0-from=users")
        result = get(f"{address}/tasks/{joined}/result")
        download = get(f"{address}/api/v1/tasks/{joined}/result.json")
        posted = post_json(f"{address}/api/v1/joins", {"join": JOIN})
    assert late(answers) == {}
    refused = {name: status for name, status in statuses(answers).items() if status != 200}
    # A full Redis still counts as ready, because its data can be read.
    assert refused == {"POST /create-task": 503} | ({} if refusal_code == "OOM" else {"/readyz": 503})
    title, reason = REDIS_REFUSALS[refusal_code]
    for refusal in (answers["POST /create-task"], posted):
        assert (refusal.status, json.loads(refusal.body)["title"]) == (503, title)
    assert ("no room" if refusal_code == "OOM" else reason) in answers["/readyz"].body
    assert connections().tasks.count_documents({}) == before
    assert (builder.status, result.status, download.status) == (200, 200, 200)
    assert json.loads(download.body)[199] == {"_id": 199}
    assert "can be read, but not sorted or searched: Redis" in result.body
    # Submissions work as soon as Redis accepts writes again.
    assert post_json(f"{address}/create-task", {"task_input": "after it"}).status == 200


def test_without_a_primary_pages_say_why_they_cannot_show_a_task(address: str, submit_practice: Submit) -> None:
    task_id = submit_practice("waits")
    with refusing("MASTERDOWN"):
        page, ready = get(f"{address}/tasks/{task_id}"), get(f"{address}/readyz")
    assert (page.status, ready.status) == (503, 503)
    assert "Redis has no primary" in page.body
    assert get(f"{address}/tasks/{task_id}").status == 200


def test_tasks_can_be_edited_and_cancelled_while_redis_is_full(address: str, submit_practice: Submit) -> None:
    task_id = submit_practice("waits")
    with refusing("OOM"):
        edited = post_json(f"{address}/api/v1/tasks/{task_id}", {"metadata": {"seen": True}}, method="PATCH")
        cancelled = post_json(f"{address}/api/v1/tasks/{task_id}", {}, method="DELETE")
    assert (edited.status, cancelled.status) == (200, 202)
    task = ledger.find_task(task_id)
    assert (task["status"], task["metadata"]["seen"]) == ("REVOKED", True)

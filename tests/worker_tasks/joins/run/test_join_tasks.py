"""A real worker runs joins from submission to result, in one part or several, alone or shared."""

import dataclasses
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import Timestamp
from celery import states
from pymongo.database import Database

from tests.support import Process, eventually, submit_join, wait_for_state
from tests.worker_tasks.support import METADATA, UNATTENDED, new_id
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput, SnapshotGone
from worker_tasks.joins.plan.planning import make_plan
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import lifecycle, outcomes, run_state
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.queue.celery_app import app
from worker_tasks.records import ledger, task_search
from worker_tasks.results import result_store, summaries
from worker_tasks.submission import RUN_JOIN, cancel, submit_again

ORDERS_OF_USERS = {
    "database": "big",
    "from": "users",
    "joins": [{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}],
}


def wait_for_end(task_id: str) -> Document:
    return wait_for_state(task_id, *ledger.FINAL_STATES, within=30)


def result_of(task: Document) -> list[dict[str, Any]]:
    assert task["status"] == states.SUCCESS, task["result"]
    found: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    rows: list[dict[str, Any]] = json.loads(found)
    return rows


def unique_join(**more: Any) -> dict[str, Any]:
    """A join that no other test submits."""
    return ORDERS_OF_USERS | {"match": {"name": {"$ne": new_id()}}} | more


def failure(task: Document) -> str:
    return " ".join(map(str, json.loads(task["result"])["exc_message"]))


def test_a_large_join_runs_in_parts_and_its_rows_are_in_order(big: Database[Document], worker: Process) -> None:
    task = wait_for_end(submit_join(unique_join(), metadata=METADATA))
    rows = result_of(task)
    assert [row["_id"] for row in rows] == list(range(big.users.count_documents({})))
    for row in rows:
        assert {order["_id"] for order in row["orders"]} == {order["_id"] for order in ORDERS[row["_id"]]}
    summary = result_store.find_result(json.loads(task["result"])["redis_key"])
    assert summary is not None
    assert (task["plan"]["parts"], len(summary.segments), summary.complete) == (4, 4, True)
    # The provenance of files names the snapshot that all parts read, and the index they used.
    assert (
        task["queued_at"] - timedelta(seconds=2)
        <= datetime.fromisoformat(task["plan"]["snapshot_at"])
        <= task["date_done"]
    )
    (step,) = task["plan"]["steps"]
    assert (step["collection"], step["way"], step["index"]) == ("orders", "lookup", "orders: userId")
    assert task["metadata"] == METADATA
    assert [event["note"] for event in task["timeline"] if event["note"]][-1] == "4 parts put together"


ORDERS: dict[int, list[Document]] = {}


@pytest.fixture(autouse=True, scope="module")
def known_orders(big: Database[Document]) -> None:
    for order in big.orders.find():
        ORDERS.setdefault(order["userId"], []).append(order)


def test_a_run_leaves_only_its_result_behind(worker: Process, big: Database[Document]) -> None:
    task = wait_for_end(submit_join(unique_join()))
    keys: Any = connections().results.keys(f"*{task['_id']}*")
    assert {key.decode().partition(":")[0] for key in keys} <= {"task_outcome", "task_live"}


def test_a_join_whose_snapshot_is_gone_runs_again_in_one_part(worker: Process, big: Database[Document]) -> None:
    spec = JoinSpec.model_validate_json(json.dumps(unique_join()))
    document = ledger.new_document(new_id(), RUN_JOIN, [spec.canonical()], join=spec.canonical())
    task_id = document["_id"]
    ledger.record(document)
    claimed = ledger.claim(task_id, RUN_JOIN, document["args"], {}, "a worker")
    assert isinstance(claimed, ledger.Claimed)
    # Simulates parts that waited for hours.
    plan = make_plan(spec, summaries.join_key(spec.fingerprint), task_id)
    plan = dataclasses.replace(plan, snapshots=[(None, Timestamp(1, 1))])
    assert lifecycle.start_run(task_id, claimed.attempt, plan, lambda run, number: None) is None
    outcome = lifecycle.work_on_part(lifecycle.PartJob(task_id, run_state.name_of(task_id, claimed.attempt), 0))
    assert outcome is not None
    assert isinstance(outcome.failure, SnapshotGone)
    outcomes.record_outcome(task_id, outcome)
    task = wait_for_end(task_id)
    assert len(result_of(task)) == big.users.count_documents({})
    assert task["plan"]["parts"] == 1
    assert any("run again in one part" in (event["note"] or "") for event in task["timeline"])


def test_rows_without_a_match_are_counted_and_listed(worker: Process, big: Database[Document]) -> None:
    big.lonely.insert_many([{"_id": number, "key": number} for number in range(-5, 20)])
    join = {"from": "users", "as": "user", "shape": "first", "on": [{"local": "key", "foreign": "_id"}]}
    task = wait_for_end(submit_join({"database": "big", "from": "lonely", "joins": [join]}))
    assert task["unmatched"] == {"user": 5}
    summary = result_store.find_result(json.loads(task["result"])["redis_key"])
    assert summary is not None
    unmatched = result_store.unmatched_rows(summary, "user")
    assert unmatched is not None
    assert sorted(row["key"] for _, row in unmatched) == [-5, -4, -3, -2, -1]
    for number, row in unmatched:
        assert result_store.read_rows(summary, number, 1) == [row]
    assert task["result_bytes"] == connections().results.strlen(json.loads(task["result"])["redis_key"])


def test_rows_without_a_match_are_counted_across_all_parts(worker: Process, big: Database[Document]) -> None:
    big.halves.insert_many([{"key": number} for number in range(0, 4_000, 2)])
    join = {"from": "halves", "as": "half", "on": [{"local": "_id", "foreign": "key"}]}
    task = wait_for_end(submit_join({"database": "big", "from": "users", "joins": [join]}))
    assert task["plan"]["parts"] > 1
    summary = result_store.find_result(json.loads(task["result"])["redis_key"])
    assert summary is not None
    assert summary.unmatched["half"].count == 2_000
    unmatched = result_store.unmatched_rows(summary, "half")
    assert unmatched is not None
    assert len(unmatched) == summaries.UNMATCHED_ROWS
    assert all(row["half"] == [] and row["_id"] % 2 for _, row in unmatched)


@pytest.mark.parametrize(("documents", "in_parts"), [(20, False), (3_000, True)], ids=["in one part", "in several"])
def test_an_empty_result_is_explained(
    worker: Process, big: Database[Document], documents: int, *, in_parts: bool
) -> None:
    texts = f"texts{documents}"
    big[texts].insert_many([{"_id": number, "key": str(number)} for number in range(documents)])
    join = {"from": "users", "as": "user", "kind": "inner", "on": [{"local": "key", "foreign": "_id"}]}
    join_of_texts = {"database": "big", "from": texts, "joins": [join]}
    task = wait_for_end(submit_join(join_of_texts))
    assert (result_of(task), task["plan"]["parts"] > 1) == ([], in_parts)
    assert f"{texts}.key holds text, users._id numbers: they never match." in task["explanation"][0]
    answered_at_once = ledger.find_task(submit_join(join_of_texts))
    assert (answered_at_once["shares"], answered_at_once["explanation"]) == (task["_id"], task["explanation"])


def test_the_checks_before_submission_are_kept_with_the_task(worker: Process, big: Database[Document]) -> None:
    spec = JoinSpec.model_validate_json(json.dumps(unique_join()))
    found = checks.check_join(spec)
    task = wait_for_end(submit_join(spec.canonical()))
    assert task["checks"]["expected"]["rows"] == found.expected.rows == big.users.count_documents({})
    assert "preview" not in task["checks"]


def test_a_join_that_sorts_all_rows_runs_in_one_part(worker: Process, big: Database[Document]) -> None:
    task = wait_for_end(submit_join(unique_join(sort=[["name", -1]], limit=2500)))
    rows = result_of(task)
    names = sorted((row["name"] for row in big.users.find()), reverse=True)
    assert [row["name"] for row in rows] == names[:2500]
    assert task["plan"]["parts"] == 1


def test_a_collection_with_ids_of_several_types_is_joined_in_one_part(worker: Process, big: Database[Document]) -> None:
    big.mixed.insert_many(
        [{"_id": number} for number in range(1500)] + [{"_id": f"m{number}"} for number in range(1500)]
    )
    join = {
        "database": "big",
        "from": "mixed",
        "joins": [{"from": "users", "kind": "left", "as": "user", "on": [{"local": "_id", "foreign": "_id"}]}],
    }
    task = wait_for_end(submit_join(join))
    assert len(result_of(task)) == 3000
    assert (task["plan"]["parts"], task["plan"]["note"]) == (1, "in one part: its _id values are of several types")


def test_the_chosen_join_method_is_kept_with_the_task(worker: Process, big: Database[Document]) -> None:
    plan = wait_for_end(submit_join(unique_join(limit=5)))["plan"]
    (step,) = plan["steps"]
    assert step["way"] == "lookup"
    assert plan["method"] == "lookup"
    assert 0 < plan["estimated_seconds"]["lookup"] <= plan["estimated_seconds"]["scan"]


def test_a_join_can_be_submitted_with_send_task(worker: Process, big: Database[Document]) -> None:
    task_id = app.send_task(RUN_JOIN, [unique_join(limit=3)], metadata=METADATA).id
    task = wait_for_end(task_id)
    assert len(result_of(task)) == 3
    assert task["metadata"] == METADATA


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"database": "tasks"}, "join.database", "not open for joins"),
        ({"database": "admin"}, "join.database", "not open for joins"),
        ({"from": "user"}, "join.from", "Did you mean users?"),
        ({"from": "system.views"}, "join.from", "MongoDB's own"),
        ({"match": {"$where": "sleep(1000)"}}, "join.match.$where", "not allowed"),
        ({"match": {"a": {"$expr": 1}}}, "join.match.a.$expr", "not allowed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_join_is_refused_and_not_recorded(
    big: Database[Document], change: Document, field: str, reason: str
) -> None:
    before = connections().tasks.count_documents({})
    with pytest.raises(InvalidInput) as caught:
        submit_join(ORDERS_OF_USERS | change)
    assert reason in caught.value.errors[field]
    assert connections().tasks.count_documents({}) == before


def test_a_joined_document_that_is_too_big_is_explained(worker: Process, big: Database[Document]) -> None:
    """One document cannot hold 20 MB of matches; flat rows can."""
    big.parents.insert_one({"_id": "parent"})
    big.children.insert_many([{"_id": number, "parent": "parent", "text": "x" * 10_000} for number in range(2100)])
    big.children.create_index("parent")
    join = {"from": "children", "as": "children", "on": [{"local": "_id", "foreign": "parent"}]}
    nested = {"database": "big", "from": "parents", "joins": [join]}
    task = wait_for_end(submit_join(nested))
    assert task["status"] == states.FAILURE
    assert "16 MB" in failure(task)
    assert "shape rows" in failure(task)
    flat = {"database": "big", "from": "parents", "joins": [join | {"shape": "rows"}]}
    assert len(result_of(wait_for_end(submit_join(flat)))) == 2100


# One run is shared by all tasks with the same join.


def test_a_live_result_answers_immediately(worker: Process, big: Database[Document]) -> None:
    join = unique_join(limit=10)
    first = wait_for_end(submit_join(join, metadata={"asked": "first"}))
    second = ledger.find_task(submit_join(dict(reversed(join.items())), metadata={"asked": "second"}))
    assert (second["status"], second["result"], second["attempt"]) == (states.SUCCESS, first["result"], 0)
    assert (first["metadata"], second["metadata"]) == ({"asked": "first"}, {"asked": "second"})
    assert second["shares"] == first["_id"]
    assert second["result_expires_at"] == first["result_expires_at"]


def test_fresh_asks_for_a_new_run(worker: Process, big: Database[Document]) -> None:
    join = unique_join(limit=10)
    wait_for_end(submit_join(join))
    again = wait_for_end(submit_join(join, fresh=True))
    assert (again["attempt"], again["shares"]) == (1, None)


def test_a_join_is_run_again_with_its_metadata(worker: Process, big: Database[Document]) -> None:
    first = wait_for_end(submit_join(unique_join(limit=10), metadata=METADATA))
    again = wait_for_end(submit_again(first["_id"]))
    assert (again["attempt"], again["join"], again["fingerprint"]) == (1, first["join"], first["fingerprint"])
    assert again["metadata"] == METADATA


@pytest.fixture
def aggregations(big: Database[Document]) -> Any:
    """A function that returns the comments of all aggregations on the users, from MongoDB's profiler."""
    big.command("profile", 2, filter={"ns": "big.users", "command.aggregate": {"$exists": True}})
    yield lambda: [entry["command"].get("comment", "") for entry in big["system.profile"].find({"op": "command"})]
    big.command("profile", 0)
    big.drop_collection("system.profile")


def test_a_hundred_tasks_with_the_same_join_run_one_aggregation(
    worker: Process, big: Database[Document], aggregations: Any
) -> None:
    join = unique_join(limit=3000)
    with ThreadPoolExecutor(20) as threads:
        task_ids = list(threads.map(lambda number: submit_join(join, metadata={"asker": number}), range(100)))
    tasks = [wait_for_end(task_id) for task_id in task_ids]
    assert Counter(task["status"] for task in tasks) == {states.SUCCESS: 100}
    assert len({task["result"] for task in tasks}) == 1
    assert sorted(task["metadata"]["asker"] for task in tasks) == list(range(100))
    assert sum(task["attempt"] for task in tasks) == 1
    joined = [comment for comment in aggregations() if re.fullmatch(r"dovetail:[^.]+\.1\.0\.[0-9a-f]+", comment)]
    assert len(joined) == 1


def leading(join: Document) -> str:
    """Submits a task that leads a join on a queue without workers. Returns its id."""
    fields = {"join": join, "fingerprint": new_id()}
    return app.send_task(RUN_JOIN, [join], queue=UNATTENDED, fields=fields | {"leads": fields["fingerprint"]}).id


def following(leader_id: str, metadata: Document) -> str:
    leader = ledger.find_task(leader_id)
    document = ledger.new_document(
        new_id(), RUN_JOIN, leader["args"], metadata=metadata, join=leader["join"], fingerprint=leader["fingerprint"]
    )
    ledger.record(document | {"shares": leader_id})
    return document["_id"]


def test_the_first_follower_of_a_cancelled_task_runs_the_join_for_the_others(
    worker: Process, big: Database[Document]
) -> None:
    leader_id = leading(unique_join(limit=7))
    first, second = (following(leader_id, {"asker": number}) for number in (1, 2))
    assert cancel(leader_id)
    assert ledger.find_task(leader_id)["status"] == states.REVOKED
    tasks = [wait_for_end(first), wait_for_end(second)]
    assert [len(result_of(task)) for task in tasks] == [7, 7]
    assert [task["attempt"] for task in tasks] == [1, 0]
    assert [task["metadata"] for task in tasks] == [{"asker": 1}, {"asker": 2}]


def test_a_cancelled_follower_changes_nothing_for_the_others(worker: Process, big: Database[Document]) -> None:
    leader_id = leading(unique_join(limit=7))
    first, second = (following(leader_id, {"asker": number}) for number in (1, 2))
    assert cancel(first)
    states_now = [ledger.find_task(task_id)["status"] for task_id in (leader_id, first, second)]
    assert states_now == [states.PENDING, states.REVOKED, states.PENDING]


def test_a_task_that_ended_no_longer_leads(worker: Process, big: Database[Document]) -> None:
    join = unique_join(limit=4)
    task = wait_for_end(submit_join(join))
    eventually(lambda: task_search.leader_of(task["fingerprint"]) is None)

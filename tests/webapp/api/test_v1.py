"""Joins are submitted, followed, found, changed and cancelled through the versioned API."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import states
from flask.testing import FlaskClient
from pymongo.database import Database
from werkzeug.test import TestResponse

from tests.support import Process, eventually, publish, wait_for_state
from tests.worker_tasks.support import UNATTENDED, new_id, task_in
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger, task_fields, task_search
from worker_tasks.results import result_store, summaries
from worker_tasks.results.formats import FORMATS
from worker_tasks.submission import RUN_JOIN
from worker_tasks.tasks import long_running_task

PAID = {
    "database": "shop",
    "from": "users",
    "match": {"_id": "u1"},
    "joins": [
        {
            "from": "orders",
            "as": "orders",
            "on": [{"local": "_id", "foreign": "userId"}],
            "match": {"status": "PAID"},
            "fields": ["amount"],
        }
    ],
}


NO_KEY = {"from": "orders", "as": "orders", "on": [{"local": "", "foreign": "userId"}]}


#: Methods that Flask adds to every route.
UNDESCRIBED = {"HEAD", "OPTIONS"}


def assert_problem(answer: TestResponse, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.get_json()
    assert problem["status"] == status
    return problem


def ask(client: FlaskClient, join: Any = PAID, **more: Any) -> str:
    answer = client.post("/api/v1/joins", json={"join": join, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/v1/tasks/{answer.get_json()['task_id']}"
    task_id: str = answer.get_json()["task_id"]
    return task_id


def test_a_join_is_submitted_followed_and_read(client: FlaskClient, worker: Process, shop: Database[Document]) -> None:
    task_id = ask(client, metadata={"reason": "audit"}, fresh=True)
    wait_for_state(task_id, *ledger.FINAL_STATES)
    task = client.get(f"/api/v1/tasks/{task_id}").get_json()
    assert (task["task_id"], task["status"], task["metadata"]) == (task_id, "SUCCESS", {"reason": "audit"})
    assert task["join"]["from"] == "users"
    assert task["plan"]["steps"][0]["way"] == "lookup"
    assert not {"leads", "version", "_id"} & task.keys()
    answer = client.get(task["links"]["result"]).get_json()
    assert answer["rows"] == [
        {"_id": "u1", "name": "Alice", "email": "alice@example.com", "orders": [{"amount": 1200}]}
    ]
    assert (answer["count"], answer["complete"], answer["columns"]) == (1, True, ["_id", "name", "email", "orders"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "join"),
        ({"join": PAID, "metadata": 5}, "metadata"),
        ({"join": PAID, "fresh": "yes"}, "fresh"),
        ({"join": PAID, "more": 1}, "more"),
        ({"join": PAID, "metadata": {"$a": 1}}, "metadata.$a"),
        ({"join": PAID | {"joins": [5]}}, "join.joins.0"),
        ({"join": PAID | {"database": "tasks"}}, "join.database"),
        ({"join": PAID | {"from": "usres"}}, "join.from"),
        ({"join": PAID | {"match": {"a": {"$where": "1"}}}}, "join.match.a.$where"),
        (
            {"join": PAID | {"joins": [{"from": "orders", "as": "o", "on": [{"local": "", "foreign": "a"}]}]}},
            "join.joins.0.on.0.local",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_join_is_refused_by_name_and_not_recorded(
    client: FlaskClient, shop: Database[Document], body: Document, field: str
) -> None:
    before = connections().tasks.count_documents({})
    problem = assert_problem(client.post("/api/v1/joins", json=body), 422)
    assert field in [error["field"] for error in problem["errors"]]
    assert connections().tasks.count_documents({}) == before


@pytest.mark.parametrize(
    ("data", "content_type"), [("{", "application/json"), ("[]", "application/json"), ("{}", "text/plain")]
)
def test_a_body_without_a_json_object_is_refused(client: FlaskClient, data: str, content_type: str) -> None:
    assert_problem(client.post("/api/v1/joins", data=data, content_type=content_type), 400)


@pytest.mark.parametrize("method", ["get", "delete", "patch"])
def test_an_unknown_task_is_not_found(client: FlaskClient, servers: None, method: str) -> None:
    more: Any = {"json": {"metadata": {}}} if method == "patch" else {}
    assert_problem(getattr(client, method)(f"/api/v1/tasks/{new_id()}", **more), 404)
    assert_problem(client.get(f"/api/v1/tasks/{new_id()}/result"), 404)
    assert_problem(client.get(f"/api/v1/tasks/{new_id()}/result.csv"), 404)


def test_an_unknown_url_is_a_problem_document(client: FlaskClient) -> None:
    assert_problem(client.get("/api/v1/nothing"), 404)


def test_a_waiting_task_is_cancelled_once(client: FlaskClient, servers: None) -> None:
    task_id = task_in(states.PENDING)
    answer = client.delete(f"/api/v1/tasks/{task_id}")
    assert (answer.status_code, answer.get_json()["status"]) == (202, "REVOKED")
    assert "it is REVOKED" in assert_problem(client.delete(f"/api/v1/tasks/{task_id}"), 409)["detail"]


def test_metadata_is_set_and_deleted_in_every_state(client: FlaskClient, servers: None) -> None:
    for status in (states.PENDING, states.STARTED, states.SUCCESS, states.FAILURE, states.REVOKED):
        task_id = task_in(status)
        answer = client.patch(f"/api/v1/tasks/{task_id}", json={"metadata": {"reason": None, "seen": True}})
        assert answer.get_json()["metadata"] == {"ticket": 4711, "seen": True}
        assert ledger.find_task(task_id)["status"] == status


def test_changes_of_metadata_and_of_state_do_not_overwrite_each_other(client: FlaskClient, worker: Process) -> None:
    task_id = long_running_task.apply_async(["x"], metadata={"first": 0}).id
    number = 0
    while ledger.find_task(task_id)["status"] not in ledger.FINAL_STATES:
        number += 1
        assert (
            client.patch(f"/api/v1/tasks/{task_id}", json={"metadata": {f"key{number % 40}": number}}).status_code
            == 200
        )
    task = ledger.find_task(task_id)
    assert task["status"] == states.SUCCESS
    assert task["metadata"]["first"] == 0
    assert len(task["metadata"]) == min(number, 40) + 1


def test_invalid_metadata_changes_nothing(client: FlaskClient, servers: None) -> None:
    task_id = task_in(states.SUCCESS)
    before = ledger.find_task(task_id)
    many = {f"key{number}": 1 for number in range(49)}
    assert_problem(client.patch(f"/api/v1/tasks/{task_id}", json={"metadata": many}), 422)
    assert_problem(client.patch(f"/api/v1/tasks/{task_id}", json={"metadata": {"a.b": 1}}), 422)
    assert_problem(client.patch(f"/api/v1/tasks/{task_id}", json={"other": {}}), 422)
    assert ledger.find_task(task_id) == before


@pytest.fixture
def found(servers: None) -> Iterator[dict[str, str]]:
    """The ids of three tasks by name, and the value of their common metadata key ``mark``."""
    mark = new_id()
    ids = {"mark": mark}
    tasks: list[tuple[str, str, Document]] = [
        ("audit", states.SUCCESS, {"reason": "the Audit of 2026", "ticket": 4711}),
        ("refund", states.FAILURE, {"reason": "a refund (a+b)", "ticket": "4711"}),
        ("waiting", states.PENDING, {"reason": "later", "ratio": 0.5, "done": True}),
    ]
    for number, (name, status, metadata) in enumerate(tasks):
        document = ledger.new_document(
            f"{mark}-{number}", RUN_JOIN, [PAID], metadata=metadata | {"mark": mark}, join=PAID
        )
        connections().tasks.insert_one(document | {"status": status})
        ids[name] = document["_id"]
    yield ids
    connections().tasks.delete_many({"metadata.mark": mark})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=SUCCESS", ["audit"]),
        ("status=QUEUED", ["waiting"]),
        ("metadata.ticket=4711", ["refund", "audit"]),
        ("metadata.ratio=0.5", ["waiting"]),
        ("metadata.done=true", ["waiting"]),
        ("metadata.reason=later", ["waiting"]),
        ("metadata.reason=late", []),
        ("q=audit", ["audit"]),
        ("q=(a%2Bb)", ["refund"]),
        ("q=.*", []),
        ("q=orders", ["waiting", "refund", "audit"]),
        ("q=refund&status=SUCCESS", []),
    ],
)
def test_tasks_are_found(client: FlaskClient, found: dict[str, str], query: str, names: list[str]) -> None:
    answer = client.get(f"/api/v1/tasks?metadata.mark={found['mark']}&{query}")
    assert [task["task_id"] for task in answer.get_json()] == [found[name] for name in names]


def test_found_tasks_come_in_pages(client: FlaskClient, found: dict[str, str]) -> None:
    answer = client.get(f"/api/v1/tasks?metadata.mark={found['mark']}&limit=2")
    assert [task["task_id"] for task in answer.get_json()] == [found["waiting"], found["refund"]]
    address = answer.headers["Link"].removeprefix("<").removesuffix('>; rel="next"')
    rest = client.get(address)
    assert [task["task_id"] for task in rest.get_json()] == [found["audit"]]
    assert "Link" not in rest.headers


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=DONE", "status"),
        ("metadata.$where=1", "metadata.$where"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("state=SUCCESS", "state"),
    ],
)
def test_an_invalid_search_is_refused(client: FlaskClient, servers: None, query: str, field: str) -> None:
    problem = assert_problem(client.get(f"/api/v1/tasks?{query}"), 422)
    assert [error["field"] for error in problem["errors"]] == [field]


def finished_with(rows: list[Document], parts: int = 1, **fields: Any) -> str:
    """The id of a join task whose result holds these rows."""
    task_id = new_id()
    summary = publish(rows, f"join_result:{task_id}", task_id, 60, parts=parts)
    connections().tasks.insert_one(
        ledger.new_document(task_id, RUN_JOIN, [PAID], queue=UNATTENDED, join=PAID)
        | {"status": states.SUCCESS, "result": json.dumps(summary.outcome), "result_expires_at": summary.expires_at}
        | fields
    )
    return task_id


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("offset", "limit"), [(0, 50), (49, 2), (50, 1), (51, 49), (99, 3), (100, 1000), (119, 5), (500, 5)]
)
def test_any_range_of_rows_is_read(client: FlaskClient, servers: None, parts: int, offset: int, limit: int) -> None:
    rows = [{"_id": number} for number in range(120)]
    task_id = finished_with(rows, parts)
    answer = client.get(f"/api/v1/tasks/{task_id}/result?offset={offset}&limit={limit}").get_json()
    assert (answer["rows"], answer["offset"], answer["count"]) == (rows[offset : offset + limit], offset, 120)


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "limit=0", "limit=1001"])
def test_an_invalid_range_of_rows_is_refused(client: FlaskClient, servers: None, query: str) -> None:
    assert_problem(client.get(f"/api/v1/tasks/{finished_with([])}/result?{query}"), 422)


def test_every_task_of_a_shared_run_reads_its_rows(client: FlaskClient, servers: None) -> None:
    runner = finished_with([{"_id": 1}])
    sharer = new_id()
    task = ledger.find_task(runner)
    connections().tasks.insert_one(task | {"_id": sharer, "shares": runner})
    assert client.get(f"/api/v1/tasks/{sharer}/result").get_json()["rows"] == [{"_id": 1}]
    assert client.get(f"/tasks/{sharer}/result").status_code == 200


def test_a_task_without_a_result_is_a_conflict(client: FlaskClient, servers: None) -> None:
    for status in (states.FAILURE, states.REVOKED, states.PENDING):
        assert_problem(client.get(f"/api/v1/tasks/{task_in(status)}/result"), 409)
    assert_problem(client.get(f"/api/v1/tasks/{task_in(states.FAILURE)}/result.csv"), 409)


def test_an_expired_and_a_replaced_result_are_gone(client: FlaskClient, servers: None) -> None:
    task_id = finished_with([{"_id": 1}])
    newer = new_id()
    publish([{"_id": 2}], f"join_result:{task_id}", new_id(), 60)
    publish([{"_id": 3}], f"join_result:{task_id}", newer, 60)
    for address in ("result", "result.json", "result.csv", "result.ndjson"):
        problem = assert_problem(client.get(f"/api/v1/tasks/{task_id}/{address}"), 410)
        assert newer in problem["detail"]
    summary = result_store.find_result(f"join_result:{task_id}")
    assert summary is not None
    connections().results.delete(summary.key, summaries.summary_key(summary.key))
    task_fields.set_expiry(task_id, ledger.now() + timedelta(seconds=2))
    for address in ("result", "result.json"):
        problem = assert_problem(client.get(f"/api/v1/tasks/{task_id}/{address}"), 410)
        assert problem["detail"] == "The result expired. Ask for the join again."


def test_a_lost_result_is_reported_as_lost(client: FlaskClient, servers: None) -> None:
    task_id = finished_with([{"_id": 1}])
    for key in connections().results.scan_iter(f"*{task_id}"):
        connections().results.delete(key)
    for address in ("result", "result.json", "result.csv", "result.ndjson"):
        problem = assert_problem(client.get(f"/api/v1/tasks/{task_id}/{address}"), 410)
        assert problem["detail"] == "Redis lost this result before it expired. Ask for the join again."
    task_fields.set_expiry(task_id, ledger.now(), discarded=True)
    problem = assert_problem(client.get(f"/api/v1/tasks/{task_id}/result"), 410)
    assert problem["detail"] == "This result was discarded by hand. Ask for the join again."


def test_a_partial_result_is_read_and_marked_as_partial(client: FlaskClient, servers: None) -> None:
    task_id = new_id()
    summary = publish([{"_id": 1}], summaries.partial_key(task_id), task_id, 60, complete=False)
    document = ledger.new_document(task_id, RUN_JOIN, [PAID], join=PAID)
    fields = {"status": states.REVOKED, "partial": summary.outcome, "result_expires_at": summary.expires_at}
    connections().tasks.insert_one(document | fields)
    answer = client.get(f"/api/v1/tasks/{task_id}/result").get_json()
    assert (answer["rows"], answer["complete"]) == ([{"_id": 1}], False)
    assert "partial" in client.get(f"/api/v1/tasks/{task_id}/result.json").headers["Content-Disposition"]
    assert "This result is partial" in client.get(f"/tasks/{task_id}/result").text
    assert "Read the partial result" in client.get(f"/tasks/{task_id}").text


def test_the_first_rows_are_read_while_the_join_runs(client: FlaskClient, worker: Process) -> None:
    # MongoDB has to compare texts by the collation of the left side, so the join is a lookup, which takes seconds.
    tagged = connections().joins.big.create_collection("marked", collation={"locale": "en"})
    tagged.insert_many([{"_id": number, "tags": [number]} for number in range(600)])
    connections().joins.big.marks.insert_many([{"_id": number, "marks": [number % 600]} for number in range(12_000)])
    join = {"from": "marks", "as": "marks", "on": [{"local": "tags", "foreign": "marks"}]}
    task_id = ask(client, {"database": "big", "from": "marked", "joins": [join]})

    def first_rows() -> Any:
        answer = client.get(f"/api/v1/tasks/{task_id}/result")
        return answer.status_code == 200 and answer.get_json()["rows"] and answer.get_json()

    seen = eventually(first_rows)
    assert (seen["complete"], seen["rows"][0]["_id"]) == (False, 0)
    task = client.get(f"/api/v1/tasks/{task_id}").get_json()
    assert task["status"] == "STARTED"
    assert task["progress"]["total"] == 600
    assert client.delete(f"/api/v1/tasks/{task_id}").status_code == 202
    assert wait_for_state(task_id, *ledger.FINAL_STATES)["status"] == states.REVOKED


def test_the_openapi_document_describes_each_way_to_write_a_join(client: FlaskClient) -> None:
    schemas = client.get("/api/v1/openapi.json").get_json()["components"]["schemas"]
    join = schemas["JoinSpec"]
    assert "source" not in join["properties"]
    assert join["required"] == ["from", "joins"]
    plain, with_source = join["properties"]["from"]["anyOf"]
    assert plain == {"type": "string"}
    assert with_source["properties"].keys() == {"source", "database", "collection"}
    assert len(join["properties"]["expand"]["anyOf"]) == 3
    assert {"into", "from"} <= schemas["Join"]["properties"].keys()
    assert not {"source", "database"} & schemas["Join"]["properties"].keys()
    assert schemas["KeyPair"]["properties"].keys() == {"local", "foreign", "cast", "fold"}


def test_the_openapi_document_describes_every_route(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").get_json()
    rules = {
        str(rule).replace("<task_id>", "{task_id}")
        for rule in client.application.url_map.iter_rules()
        if rule.endpoint.startswith("api_v1.") and not str(rule).endswith("openapi.json")
    }
    files = {rule for rule in rules if "<any" in rule}
    expected = rules - files | {f"/api/v1/tasks/{{task_id}}/result.{name}" for name in FORMATS}
    assert set(described["paths"]) == expected
    methods: dict[str, set[str]] = {}
    for rule in client.application.url_map.iter_rules():
        if (path := str(rule).replace("<task_id>", "{task_id}")) in described["paths"]:
            methods.setdefault(path, set()).update(rule.methods or set())
    for path, allowed in methods.items():
        assert set(described["paths"][path]) - {"parameters"} == {each.lower() for each in allowed - UNDESCRIBED}, path
    text = json.dumps(described)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in described["components"]["schemas"], reference


def test_a_join_is_checked_before_it_runs(client: FlaskClient, shop: Database[Document], no_tasks: None) -> None:
    on = [{"local": "productId", "foreign": "_id"}]
    join = {"database": "shop", "from": "reviews", "joins": [{"from": "products", "as": "product", "on": on}]}
    found = client.post("/api/v1/joins/check", json={"join": join}).get_json()
    assert found["findings"][0]["level"] == "stop"
    assert found["findings"][0]["cure"] == {"join": 0, "pair": 0, "field": "cast", "value": "objectId"}
    assert (found["expected"]["rows"], found["expected"]["rates"]) == (600, [0.0])
    assert len(found["preview"]) == 5
    assert ".aggregate([" in found["pipeline"]
    assert task_search.search(task_search.TaskFilter(), 1) == []

"""Joins run with the role ``read`` on their databases: planned, checked, run in parts, and killed."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import states

from development.servers import Server
from tests.faults.conftest import StartWorker
from tests.faults.support import LABELS, TAGGED, has_written_rows, slow_join, submit_to
from tests.mongodb import Client, restricted_replica_set, uri_as, variables
from tests.support import eventually, wait_for_state
from tests.worker_tasks.joins.preflight.check_support import join_with
from worker_tasks import submission
from worker_tasks.infra.sources import find_source, tasks_with_operations
from worker_tasks.joins.preflight.checks import check_join
from worker_tasks.joins.preflight.sampling import collections_of
from worker_tasks.joins.spec.spec import parse

pytestmark = pytest.mark.timeout(120)

USERS = 2_500


@pytest.fixture(scope="module")
def restricted(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A replica set on which one user may read the database big and write to tasks, and another may only read big."""
    read: dict[str, Any] = {"role": "read", "db": "big"}
    users: dict[str, list[Any]] = {"least": [read, {"role": "readWrite", "db": "tasks"}], "reader": [read]}
    with restricted_replica_set(tmp_path_factory.mktemp("restricted"), **users) as server:
        with Client(uri_as("root", server)) as client:
            client.big.users.insert_many([{"_id": number} for number in range(USERS)])
            client.big.orders.insert_many([{"_id": number, "userId": number // 2} for number in range(2 * USERS)])
            client.big.orders.create_index("userId")
            client.big.tagged.insert_many([{"_id": number, "tags": [number, -number]} for number in range(TAGGED)])
            labels = [{"_id": number, "labels": [number % TAGGED, "x"]} for number in range(LABELS)]
            client.big.labels.insert_many(labels)
            client.big.create_collection("paid", viewOn="orders", pipeline=[])
            client.big.create_collection("series", timeseries={"timeField": "at"})
        yield server


def test_a_join_runs_in_parts_and_is_killed(restricted: Server, start_worker: StartWorker, queue: str) -> None:
    with variables(MONGODB_URI=uri_as("least", restricted), JOIN_DATABASES="big"):
        start_worker()
        both = {"database": "big", "from": "users", "joins": [join_with("orders", "_id", "userId")]}
        task = wait_for_state(submit_to(both, queue), *states.READY_STATES)
        assert (task["status"], task["plan"]["parts"]) == (states.SUCCESS, 2), task["traceback"]
        assert f'"count": {USERS}' in task["result"]
        slow = submit_to(slow_join(), queue)
        eventually(lambda: has_written_rows(slow))
        submission.cancel(slow)
        task = wait_for_state(slow, *states.READY_STATES)
        assert (task["status"], task["left_in_mongodb"]) == (states.REVOKED, 0)
        assert slow not in tasks_with_operations()


def test_a_join_of_a_named_source_is_checked(restricted: Server) -> None:
    with variables(SOURCE_CRM_URI=uri_as("reader", restricted), SOURCE_CRM_DATABASES="big"):
        listed = {each.name: each.count for each in collections_of("big", "crm")}
        assert listed == {
            "labels": LABELS,
            "orders": 5_000,
            "paid": None,
            "series": 0,
            "tagged": TAGGED,
            "users": USERS,
        }
        left = {"source": "crm", "database": "big", "collection": "users"}
        checks = check_join(parse({"from": left, "joins": [join_with("orders", "_id", "userId")]}))
        assert (checks.expected.rows, checks.expected.rates) == (USERS, [1.0])
        assert len(checks.preview) == 5


def test_all_parts_of_a_named_source_can_read_one_snapshot(restricted: Server) -> None:
    with variables(SOURCE_CRM_URI=uri_as("reader", restricted), SOURCE_CRM_DATABASES="big"):
        source = find_source("crm")
        with source.session(snapshot=True) as session:
            assert source.database("big").users.find_one({"_id": 1}, session=session) == {"_id": 1}
            with Client(uri_as("root", restricted)) as client:
                client.big.users.update_one({"_id": 1}, {"$set": {"changed": True}})
            assert source.database("big").users.find_one({"_id": 1}, session=session) == {"_id": 1}

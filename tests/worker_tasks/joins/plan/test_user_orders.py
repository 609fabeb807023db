"""The original join accepts valid user ids, uses them as plain values, and returns the right rows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from tests.support import Process, wait_for_state
from tests.worker_tasks.support import METADATA
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan import user_orders
from worker_tasks.results import result_store, summaries
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders


@pytest.mark.parametrize("user_id", ["u1", "$name", '{"$ne": null}', " u1 ", "ünïcödé 🙂", "a.b", "u" * 200])
def test_any_text_can_be_a_user_id(user_id: str) -> None:
    assert user_orders.user_id_error(user_id) is None


@pytest.mark.parametrize(
    ("user_id", "message"),
    [
        (None, "must be text"),
        (1, "must be text"),
        (["u1"], "must be text"),
        ({"$ne": None}, "must be text"),
        ("", "must not be empty"),
        (" \t\n", "must not be empty"),
        ("u" * 201, "has 201 characters; at most 200"),
        ("nul\0", "valid Unicode without NUL"),
        ("\ud800", "valid Unicode without NUL"),
    ],
)
def test_an_invalid_user_id_is_refused_with_the_reason(user_id: Any, message: str) -> None:
    assert message in str(user_orders.user_id_error(user_id))
    with pytest.raises(InvalidInput, match=f"user_id: .*{message}"):
        user_orders.plan(user_id)


def run(user_id: str) -> summaries.Summary:
    """Runs the join in the worker and returns its published result."""
    task = wait_for_state(submit(join_users_orders, user_id), "SUCCESS", "FAILURE")
    summary = result_store.find_result(user_orders.result_key(user_id))
    assert summary is not None, task["result"]
    return summary


@pytest.fixture
def strange_users(shop: Database[Document]) -> Iterator[list[str]]:
    """Users with ids that look like operators or patterns, each with one order."""
    user_ids = ["$name", "$$ROOT", '{"$ne": null}', "^u", " u1 "]
    shop.users.insert_many([{"_id": user_id, "name": user_id} for user_id in user_ids])
    shop.orders.insert_many([{"_id": f"strange {user_id}", "userId": user_id} for user_id in user_ids])
    yield user_ids
    shop.users.delete_many({"_id": {"$in": user_ids}})
    shop.orders.delete_many({"userId": {"$in": user_ids}})


def test_a_user_id_is_always_a_plain_value(strange_users: list[str], worker: Process) -> None:
    for user_id in strange_users:
        summary = run(user_id)
        assert result_store.read_rows(summary, 0, 1) == [
            {"_id": user_id, "name": user_id, "orders": [{"_id": f"strange {user_id}", "userId": user_id}]}
        ]


@pytest.mark.parametrize("user_id", ["$name", '{"$ne": null}', "^u", " u1 ", "U1"])
def test_an_unused_user_id_finds_no_user(shop: Database[Document], user_id: str, worker: Process) -> None:
    assert run(user_id).count == 0


def test_even_an_operator_object_would_be_a_plain_value(shop: Database[Document]) -> None:
    operator: Any = {"$ne": None}
    assert list(shop.users.aggregate(user_orders.pipeline(operator))) == []


def test_the_join_contains_exactly_the_orders_of_the_user(shop: Database[Document], worker: Process) -> None:
    buyer = shop.orders.aggregate([{"$sortByCount": "$userId"}, {"$limit": 1}]).next()
    summary = run(buyer["_id"])
    (user,) = result_store.read_rows(summary, 0, 1) or []
    bought = {order["_id"] for order in shop.orders.find({"userId": buyer["_id"]})}
    assert {order["_id"] for order in user["orders"]} == bought
    assert len(user["orders"]) == buyer["count"] > 1


def test_a_date_beyond_the_range_of_python_is_joined(shop: Database[Document], worker: Process) -> None:
    year_10000 = 253_402_300_800_000
    shop.orders.insert_one({"_id": "far", "userId": "u399", "at": DatetimeMS(year_10000)})
    try:
        (user,) = result_store.read_rows(run("u399"), 0, 1) or []
    finally:
        shop.orders.delete_one({"_id": "far"})
    assert user["orders"] == [{"_id": "far", "userId": "u399", "at": {"$date": {"$numberLong": str(year_10000)}}}]


def test_a_user_without_orders_has_an_empty_list_of_them(shop: Database[Document], worker: Process) -> None:
    (user,) = result_store.read_rows(run("u400"), 0, 1) or []
    assert (user["_id"], user["orders"]) == ("u400", [])


def test_an_unknown_user_is_a_success_without_rows(worker: Process) -> None:
    task = wait_for_state(submit(join_users_orders, "nobody", metadata=METADATA), "SUCCESS", "FAILURE")
    assert (task["status"], task["metadata"]) == ("SUCCESS", METADATA)
    assert json.loads(task["result"]) == {"redis_key": "user_order_result:nobody", "count": 0}
    assert connections().results.get("user_order_result:nobody") == b"[]"

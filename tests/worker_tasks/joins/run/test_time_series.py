"""Joins of time-series collections, on either side."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import states
from pymongo.database import Database

from tests.support import Process, submit_join, wait_for_state
from tests.worker_tasks.joins.preflight.check_support import join_with
from worker_tasks.infra.connections import Document, connections


@pytest.fixture(scope="module")
def series(big: Database[Document]) -> Iterator[Database[Document]]:
    """Forty readings of four sensors, three of which are known."""
    big.create_collection("readings", timeseries={"timeField": "at", "metaField": "sensor"})
    start = datetime(2024, 1, 1, tzinfo=UTC)
    big.readings.insert_many([{"at": start + timedelta(minutes=n), "sensor": {"id": n % 4}} for n in range(40)])
    big.sensors.insert_many([{"_id": number} for number in range(3)])
    yield big
    big.readings.drop()
    big.sensors.drop()


@pytest.mark.parametrize(
    ("left", "join", "rows", "unmatched"),
    [
        ("readings", join_with("sensors", "sensor.id", "_id", shape="count"), 40, 10),
        ("readings", join_with("sensors", "sensor.id", "_id", kind="inner", shape="rows"), 30, 0),
        ("sensors", join_with("readings", "_id", "sensor.id", shape="count"), 3, 0),
        ("sensors", join_with("readings", "_id", "sensor.id", kind="inner", shape="rows"), 30, 0),
    ],
)
def test_a_time_series_is_joined(
    series: Database[Document], worker: Process, left: str, join: Document, rows: int, unmatched: int
) -> None:
    task_id = submit_join({"database": "big", "from": left, "joins": [join]}, fresh=True)
    task = wait_for_state(task_id, *states.READY_STATES)
    assert task["status"] == states.SUCCESS, task["traceback"]
    value: Any = connections().results.get(json.loads(task["result"])["redis_key"])
    found = [row["found"] for row in json.loads(value)]
    assert (len(found), found.count(0)) == (rows, unmatched)

"""The sample flights, joined through the API: what comes out is known from counting otherwise."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support import wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger

HOURS = ("origin", "year", "month", "day", "hour")


def asked(left: str, other: str, kind: str, *keys: str | tuple[str, str]) -> dict[str, Any]:
    pairs = [(key, key) if isinstance(key, str) else key for key in keys]
    on = [{"local": local, "foreign": foreign} for local, foreign in pairs]
    brings = {"as": "match", "shape": "rows"} if kind == "inner" else {}
    return {"database": "flights", "from": left, "joins": [{"from": other, "kind": kind, "on": on, **brings}]}


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("worker", "flights")]


@pytest.mark.parametrize(
    ("join", "count"),
    [
        (asked("flights", "planes", "inner", "tailnum"), 284_170),
        (asked("flights", "planes", "anti", "tailnum"), 52_606),
        (asked("flights", "weather", "inner", *HOURS), 335_220),
        (asked("airports", "flights", "anti", ("faa", "dest")), 1_357),
        # A plain $lookup says 490,368: it joins the three airports without a time zone with each other.
        (asked("airports", "airports", "inner", "tzone"), 490_359),
    ],
    ids=[
        "flights and planes",
        "flights without planes",
        "flights and weather",
        "airports without flights",
        "time zones",
    ],
)
def test_the_rows_are_as_many_as_they_should_be(client: FlaskClient, join: dict[str, Any], count: int) -> None:
    assert joined(client, join) == count


def test_two_large_sides_are_joined_in_seconds_without_an_index(client: FlaskClient) -> None:
    weather = connections().joins.flights.weather
    kept = weather.index_information()
    weather.drop_indexes()
    try:
        assert joined(client, asked("flights", "weather", "inner", *HOURS), fresh=True) == 335_220
    finally:
        for name, index in kept.items():
            if name != "_id_":
                weather.create_index(index["key"], name=name)


def joined(client: FlaskClient, join: dict[str, Any], *, fresh: bool = False) -> int:
    """The number of rows that a join has, asked for and read through the API."""
    answer = client.post("/api/v1/joins", json={"join": join, "fresh": fresh})
    task_id = answer.get_json()["task_id"]
    wait_for_state(task_id, *ledger.FINAL_STATES, within=120)
    count: int = client.get(f"/api/v1/tasks/{task_id}/result?limit=1").get_json()["count"]
    return count

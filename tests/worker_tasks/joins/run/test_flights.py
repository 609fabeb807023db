"""The sample flights joined through the API. The expected counts come from independent queries."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support import wait_for_state
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger

HOURS = ("origin", "year", "month", "day", "hour")


def make_join(left: str, other: str, kind: str, *keys: str | tuple[str, str]) -> dict[str, Any]:
    pairs = [(key, key) if isinstance(key, str) else key for key in keys]
    on = [{"local": local, "foreign": foreign} for local, foreign in pairs]
    embeds = {"as": "match", "shape": "rows"} if kind == "inner" else {}
    return {"database": "flights", "from": left, "joins": [{"from": other, "kind": kind, "on": on, **embeds}]}


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("worker", "flights")]


@pytest.mark.parametrize(
    ("join", "count"),
    [
        (make_join("flights", "planes", "inner", "tailnum"), 284_170),
        (make_join("flights", "planes", "anti", "tailnum"), 52_606),
        (make_join("flights", "weather", "inner", *HOURS), 335_220),
        (make_join("airports", "flights", "anti", ("faa", "dest")), 1_357),
        # A plain $lookup returns 490,368 rows, because it joins the three airports without a time zone with each other.
        (make_join("airports", "airports", "inner", "tzone"), 490_359),
    ],
    ids=[
        "flights and planes",
        "flights without planes",
        "flights and weather",
        "airports without flights",
        "time zones",
    ],
)
def test_a_join_has_the_expected_number_of_rows(client: FlaskClient, join: dict[str, Any], count: int) -> None:
    assert count_rows(client, join) == count


def test_two_large_sides_are_joined_in_seconds_without_an_index(client: FlaskClient) -> None:
    weather = connections().joins.flights.weather
    indexes = weather.index_information()
    weather.drop_indexes()
    try:
        assert count_rows(client, make_join("flights", "weather", "inner", *HOURS), fresh=True) == 335_220
    finally:
        for name, index in indexes.items():
            if name != "_id_":
                weather.create_index(index["key"], name=name)


def count_rows(client: FlaskClient, join: dict[str, Any], *, fresh: bool = False) -> int:
    """Submits a join through the API and returns the number of rows of its result."""
    answer = client.post("/api/v1/joins", json={"join": join, "fresh": fresh})
    task_id = answer.get_json()["task_id"]
    wait_for_state(task_id, *ledger.FINAL_STATES, within=120)
    count: int = client.get(f"/api/v1/tasks/{task_id}/result?limit=1").get_json()["count"]
    return count

"""Saved joins: kept, listed, run with values, deleted; and those that are there from the start."""

import json
import re

import pytest
from celery import states
from flask.testing import FlaskClient

from tests.support import Process, submit_form, wait_for_state
from webapp.ready_joins import READY
from worker_tasks import saved_joins

DRAFT = {
    "database": "shop",
    "source": "users",
    "filters-0-field": "city",
    "filters-0-value": "{city}",
    "joins-0-source": "orders",
    "joins-0-on-0-local": "_id",
    "joins-0-on-0-foreign": "userId",
    "joins-0-shape": "count",
}

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture
def saved(client: FlaskClient) -> str:
    """Where a saved join is."""
    names = {"saved_name": "Orders of a city", "saved_description": "How many each has."}
    answer = submit_form(client, "/", {**DRAFT, **names, "do": "save"}, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    return answer.headers["Location"]


def test_a_saved_join_is_listed_and_asks_for_its_values(client: FlaskClient, saved: str) -> None:
    assert "Orders of a city" in client.get("/saved").text
    page = client.get(saved).text
    assert "How many each has." in page
    assert re.search(r'<label for="value-city">City</label>', page)
    assert "city: text" in page
    assert "city is {city}" in page
    assert "rows with their orders, where _id = userId" in page


def test_it_is_run_with_the_values_that_are_given(client: FlaskClient, saved: str, worker: Process) -> None:
    answer = submit_form(client, saved, {"value-city": "Madrid", "note": "a try"})
    assert answer.status_code == 303
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert task["join"]["match"] == {"city": "Madrid"}
    assert task["metadata"] == {"note": "a try", "saved_join": "Orders of a city"}
    assert json.loads(task["result"])["count"] > 10
    assert "<h1>Orders of a city</h1>" in client.get(answer.headers["Location"]).text


@pytest.mark.parametrize(("typed", "words"), [("", "Give a value."), ("x" * 1001, "at most 1,000 characters")])
def test_a_value_that_is_missing_or_wrong_is_said(client: FlaskClient, saved: str, typed: str, words: str) -> None:
    answer = submit_form(client, saved, {"value-city": typed, "note": "still here"}, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert words in answer.text
    assert "still here" in answer.text


def test_it_is_opened_in_the_builder_as_it_was_saved(client: FlaskClient, saved: str) -> None:
    address = re.search(r'href="(/\?[^"]+)"', client.get(saved).text)
    assert address
    page = client.get(address[1].replace("&amp;", "&")).text
    assert re.search(r'name="filters-0-value"[^>]* value="{city}"', page)


def test_it_is_deleted(client: FlaskClient, saved: str) -> None:
    assert submit_form(client, saved, {}).status_code == 422
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get(saved).text)
    assert token
    assert client.post(f"{saved}/deletion", data={"csrf_token": token[1]}).status_code == 303
    assert client.get(saved, headers={"Accept": "text/html"}).status_code == 404


@pytest.mark.parametrize(("name", "words"), [("", "Give the saved join a name"), ("n" * 101, "at most 100 characters")])
def test_a_join_is_not_saved_without_a_name(client: FlaskClient, name: str, words: str) -> None:
    before = len(saved_joins.newest())
    answer = submit_form(client, "/", {**DRAFT, "saved_name": name, "do": "save"}, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert words in answer.text
    assert len(saved_joins.newest()) == before


def test_a_join_that_is_none_is_not_saved(client: FlaskClient) -> None:
    wrong = DRAFT | {"joins-0-name": "$x", "saved_name": "wrong", "do": "save"}
    assert submit_form(client, "/", wrong, headers={"Accept": "text/html"}).status_code == 422


@pytest.mark.parametrize(
    "ready", [join for join in READY if "database=shop" in join["draft"]], ids=lambda join: join["_id"]
)
def test_what_is_there_from_the_start_can_be_run(client: FlaskClient, ready: dict[str, str], worker: Process) -> None:
    answer = submit_form(client, f"/saved/{ready['_id']}", {"value-status": "PAID"})
    assert answer.status_code == 303
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert json.loads(task["result"])["count"] > 0


def test_all_that_is_there_from_the_start_names_itself(client: FlaskClient) -> None:
    page = client.get("/saved").text
    for join in READY:
        assert join["name"] in page
    assert len({join["_id"] for join in READY}) == len(READY)

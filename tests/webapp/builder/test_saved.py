"""Joins and samples are saved, listed, run with values, and deleted."""

import json
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from celery import states
from flask.testing import FlaskClient

from development.servers import Server
from tests.support import Process, paused, submit_form, wait_for_state
from webapp.builder.drafts import MAX_QUERY_LENGTH
from webapp.builder.samples import SAMPLE_JOINS
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.saved import saved_joins
from worker_tasks.joins.spec import parameters

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
    """The URL of a saved join."""
    names = {"saved_name": "Orders of a city", "saved_description": "How many each has."}
    answer = submit_form(client, "/", {**DRAFT, **names, "do": "save"}, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    return answer.headers["Location"]


def save(client: FlaskClient, **more: str) -> str:
    """Saves the draft with further fields. Returns the URL of the saved join."""
    fields = {**DRAFT, **{name.replace("__", "-"): value for name, value in more.items()}}
    answer = submit_form(client, "/", {**fields, "saved_name": "more", "do": "save"}, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    return answer.headers["Location"]


def join_at(saved: str) -> Document:
    """The join saved under this URL."""
    return saved_joins.read_join(saved_joins.find_saved_join(saved.rpartition("/")[2]))


def in_builder(client: FlaskClient, saved: str) -> dict[str, str]:
    """The form data with which the builder opens a saved join."""
    address = re.search(r'href="/\?([^"]+)"', client.get(saved).text)
    assert address
    return dict(parse_qsl(unescape(address[1])))


def test_a_saved_join_is_stored_with_its_parameters(client: FlaskClient, saved: str) -> None:
    document = saved_joins.find_saved_join(saved.rpartition("/")[2])
    assert document.keys() == {"_id", "name", "description", "join", "saved_at"}
    assert document["join"]["match"] == {"city": {"$parameter": "city", "type": "auto"}}
    assert parameters.validate(document["join"]).joins[0].shape == "count"


@pytest.mark.parametrize(
    ("row", "typed", "condition", "hint"),
    [
        ({"field": "joinedAt", "operator": "gte"}, "2024-01-31", {"$gte": {"$date": "2024-01-31T00:00:00Z"}}, "a date"),
        ({"field": "city", "operator": "in"}, "Madrid, Oslo", {"$in": ["Madrid", "Oslo"]}, "city: text"),
        ({"field": "city", "operator": "contains"}, "a.b", {"$regex": "a.b", "$options": "i"}, "city: text"),
        ({"field": "name", "operator": "starts"}, "Al", {"$regex": "^Al"}, "name: text"),
        ({"field": "age", "operator": "lt", "type": "number"}, "40", {"$lt": 40}, "age: a number"),
        ({"field": "name", "type": "bool"}, "True", True, "name: true or false"),
    ],
)
def test_each_kind_of_condition_asks_for_its_value(
    client: FlaskClient, row: dict[str, str], typed: str, condition: Any, hint: str
) -> None:
    saved = save(client, **{f"filters__0__{name}": value for name, value in row.items()}, filters__0__value="{it}")
    assert hint in client.get(saved).text
    written = in_builder(client, saved)
    assert written["filters-0-value"] == "{it}"
    assert {name: written.get(f"filters-0-{name}", "") for name in row} == row
    assert "filters-0-type" not in written or "type" in row or row["operator"] == "eq"
    answer = submit_form(client, saved, {"value-it": typed})
    assert answer.status_code == 303
    match = wait_for_document(answer.headers["Location"])["join"]["match"]
    assert match == {row["field"]: condition}


def wait_for_document(location: str) -> Document:
    found = connections().tasks.find_one({"_id": location.rpartition("/")[2]})
    assert found
    return found


def test_a_parameter_that_rows_cannot_express_opens_as_json(client: FlaskClient) -> None:
    raw = {"$or": [{"name": {"$parameter": "who", "type": "string"}}, {"email": None}]}
    saved = save(client, raw=json.dumps(raw))
    assert re.search(r'<label for="value-who">Who</label>', client.get(saved).text)
    written = in_builder(client, saved)
    assert json.loads(written["raw"]) == raw
    again = submit_form(client, "/", {**written, "saved_name": "again", "do": "save"}, headers={"Accept": "text/html"})
    assert join_at(again.headers["Location"]) == join_at(saved)
    answer = submit_form(client, saved, {"value-who": "Ann", "value-city": "Oslo"})
    match = wait_for_document(answer.headers["Location"])["join"]["match"]
    assert match == {"city": "Oslo", "$or": [{"name": "Ann"}, {"email": None}]}


def test_parameters_with_the_same_name_share_one_input(client: FlaskClient) -> None:
    saved = save(client, filters__1__field="name", filters__1__operator="ne", filters__1__value="{city}")
    assert client.get(saved).text.count('name="value-') == 1
    answer = submit_form(client, saved, {"value-city": "Oslo", "value-unknown": "x"})
    match = wait_for_document(answer.headers["Location"])["join"]["match"]
    assert match == {"city": "Oslo", "name": {"$ne": "Oslo"}}


def test_typed_values_stay_while_redis_is_away(client: FlaskClient, saved: str, redis_server: Server) -> None:
    page = client.get(saved).text
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
    assert token
    with paused(redis_server):
        answer = client.post(saved, data={"csrf_token": token[1], "value-city": "Oslo", "note": "urgent"})
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text
    assert 'value="Oslo"' in answer.text
    assert "urgent" in answer.text


#: The same join as an older version saved it, as form data of the builder.
OLD = {"_id": "older", "name": "Orders of a city, older", "description": "", "draft": urlencode(DRAFT)}


@pytest.fixture
def older(client: FlaskClient) -> str:
    """The URL of a join that an older version saved and no release has converted."""
    collection = connections().tasks.database[saved_joins.COLLECTION]
    collection.replace_one({"_id": OLD["_id"]}, OLD, upsert=True)
    return "/saved/older"


def test_a_join_of_an_older_version_is_listed_opened_run_and_deleted(
    client: FlaskClient, older: str, worker: Process
) -> None:
    assert "Orders of a city, older" in client.get("/saved").text
    page = client.get(older).text
    assert re.search(r'<label for="value-city">City</label>', page)
    assert "city: text" in page
    assert in_builder(client, older).items() >= DRAFT.items()
    answer = submit_form(client, older, {"value-city": "Madrid"})
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert task["join"]["match"] == {"city": "Madrid"}
    delete(client, older)


def test_a_saved_join_that_is_no_longer_valid_can_be_deleted(client: FlaskClient, older: str) -> None:
    collection = connections().tasks.database[saved_joins.COLLECTION]
    collection.update_one({"_id": OLD["_id"]}, {"$set": {"join": {"database": "shop", "from": "users"}}})
    assert "Orders of a city, older" in client.get("/saved").text
    answer = client.get(older)
    assert answer.status_code == 200
    assert "This join can no longer be read." in answer.text
    assert "join.joins" in answer.text
    assert "Run the join" not in answer.text
    assert client.get("/?saved=older", headers={"Accept": "text/html"}).status_code == 422
    delete(client, older)


def test_a_saved_join_too_long_for_a_url_still_opens(client: FlaskClient, older: str) -> None:
    rows = {f"filters-{number}-field": f"field{number}" for number in range(1, 45)}
    rows |= {f"filters-{number}-value": "x" * 100 for number in range(1, 45)}
    draft = urlencode({**DRAFT, **rows})
    assert len(draft) < MAX_QUERY_LENGTH
    connections().tasks.database[saved_joins.COLLECTION].update_one({"_id": OLD["_id"]}, {"$set": {"draft": draft}})
    assert in_builder(client, older) == {"saved": "older"}
    page = client.get("/?saved=older").text
    assert "x" * 100 in page
    assert re.search(r'name="filters-0-value"[^>]* value="{city}"', page)
    delete(client, older)


def delete(client: FlaskClient, saved: str) -> None:
    """Deletes a saved join with the form on its page."""
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get(saved).text)
    assert token
    assert client.post(f"{saved}/deletion", data={"csrf_token": token[1]}).status_code == 303
    assert client.get(saved, headers={"Accept": "text/html"}).status_code == 404


def test_a_saved_join_is_listed_and_has_inputs_for_its_values(client: FlaskClient, saved: str) -> None:
    assert "Orders of a city" in client.get("/saved").text
    page = client.get(saved).text
    assert "How many each has." in page
    assert re.search(r'<label for="value-city">City</label>', page)
    assert "city: text" in page
    assert "city is {city}" in page
    assert "rows with their orders, where _id = userId" in page


def test_a_saved_join_runs_with_the_submitted_values(client: FlaskClient, saved: str, worker: Process) -> None:
    answer = submit_form(client, saved, {"value-city": "Madrid", "note": "a try"})
    assert answer.status_code == 303
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert task["join"]["match"] == {"city": "Madrid"}
    assert task["metadata"] == {"note": "a try", "saved_join": "Orders of a city"}
    assert json.loads(task["result"])["count"] > 10
    assert "<h1>Orders of a city</h1>" in client.get(answer.headers["Location"]).text


@pytest.mark.parametrize(("typed", "words"), [("", "Give a value."), ("x" * 1001, "at most 1,000 characters")])
def test_a_missing_or_invalid_value_is_reported(client: FlaskClient, saved: str, typed: str, words: str) -> None:
    answer = submit_form(client, saved, {"value-city": typed, "note": "still here"}, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert words in answer.text
    assert "still here" in answer.text


def test_a_saved_join_opens_in_the_builder_unchanged(client: FlaskClient, saved: str) -> None:
    address = re.search(r'href="(/\?[^"]+)"', client.get(saved).text)
    assert address
    page = client.get(address[1].replace("&amp;", "&")).text
    assert re.search(r'name="filters-0-value"[^>]* value="{city}"', page)


def test_a_saved_join_is_deleted(client: FlaskClient, saved: str) -> None:
    assert submit_form(client, saved, {}).status_code == 422
    delete(client, saved)


@pytest.mark.parametrize(("name", "words"), [("", "Give the saved join a name"), ("n" * 101, "at most 100 characters")])
def test_a_join_is_not_saved_without_a_name(client: FlaskClient, name: str, words: str) -> None:
    before = len(saved_joins.newest())
    answer = submit_form(client, "/", {**DRAFT, "saved_name": name, "do": "save"}, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert words in answer.text
    assert len(saved_joins.newest()) == before


def test_an_invalid_join_is_not_saved(client: FlaskClient) -> None:
    wrong = DRAFT | {"joins-0-name": "$x", "saved_name": "wrong", "do": "save"}
    assert submit_form(client, "/", wrong, headers={"Accept": "text/html"}).status_code == 422


@pytest.mark.parametrize(
    "ready", [join for join in SAMPLE_JOINS if join["join"]["database"] == "shop"], ids=lambda join: join["_id"]
)
def test_each_sample_can_be_run(client: FlaskClient, ready: dict[str, str], worker: Process) -> None:
    answer = submit_form(client, f"/saved/{ready['_id']}", {"value-status": "PAID"})
    assert answer.status_code == 303
    task = wait_for_state(answer.headers["Location"].rpartition("/")[2], states.SUCCESS)
    assert json.loads(task["result"])["count"] > 0


def test_the_samples_are_listed_under_distinct_ids(client: FlaskClient) -> None:
    page = client.get("/saved").text
    for join in SAMPLE_JOINS:
        assert join["name"] in page
    assert len({join["_id"] for join in SAMPLE_JOINS}) == len(SAMPLE_JOINS)

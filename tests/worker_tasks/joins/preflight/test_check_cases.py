"""Checks of joins with unusual keys and collections: they agree with the run."""

import base64
import os
import uuid
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson import Binary, DBRef, Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from tests.mongodb import variables
from worker_tasks import submission
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.preflight.checks import Checks, check_join
from worker_tasks.joins.preflight.findings import Cure, Level
from worker_tasks.joins.preflight.sampling import sample_collection
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import parse

NAME = "check_cases"


@pytest.fixture
def database(servers: None) -> Iterator[Database[Document]]:
    yield connections().joins[NAME]
    connections().joins.drop_database(NAME)
    # The samples of its collections.
    connections().results.flushdb()


def checked(left: str, *joins: Document, **more: Any) -> Checks:
    return check_join(parse({"database": NAME, "from": left, "joins": list(joins), **more}))


def join_of(other: Any, local: str, foreign: str, **more: Any) -> Document:
    pair = {name: more.pop(name) for name in ("cast", "fold") if name in more}
    return {"from": other, "as": "found", "on": [{"local": local, "foreign": foreign, **pair}], **more}


def problems(found: Checks) -> list[str]:
    return [finding.text for finding in found.findings if finding.level in {Level.STOP, Level.WARNING}]


def test_texts_are_compared_by_the_collation_of_the_left_side(database: Database[Document]) -> None:
    database.create_collection("ci", collation={"locale": "en", "strength": 2})
    database.ci.insert_many([{"_id": 1, "e": "Ann@x.com"}, {"_id": 2, "e": "bob@X.com"}, {"_id": 3}])
    database.other.insert_many([{"_id": 1, "e": "ann@x.com"}, {"_id": 2, "e": "BOB@x.com"}])
    found = checked("ci", join_of("other", "e", "e"))
    assert found.expected.rates == [0.6667]
    assert [len(row["found"]) for row in found.preview] == [1, 1, 0]
    assert problems(found) == []
    assert any("Only MongoDB compares texts by the collation of ci." in finding.text for finding in found.findings)
    chain = checked("ci", join_of("other", "e", "e"), join_of("other", "found.e", "e") | {"as": "again"})
    assert chain.expected.rates == [0.6667, 0.6667]


def test_nan_matches_nothing_and_is_named(database: Database[Document]) -> None:
    for name in ("n1", "n2"):
        database[name].insert_many([*({"k": float("nan")} for _ in range(2)), {"k": Decimal128("NaN")}, {"k": 1}])
    found = checked("n1", join_of("n2", "k", "k", kind="inner", shape="rows"))
    assert "3 rows have NaN as key in n1.k; NaN matches nothing." in problems(found)
    assert (found.expected.rows, len(found.preview)) == (1, 1)


def test_texts_that_are_not_utf_8_get_replacement_characters(database: Database[Document]) -> None:
    database.texts.insert_one({"_id": 1, "n": "ok"})
    database.texts.insert_one(RawBSONDocument(base64.b64decode("GgAAABBfaWQAAgAAAAJuAAUAAABKb3PpAAA=")))
    database.one.insert_one({"_id": 0})
    found = checked("texts", join_of("one", "_id", "_id", shape="count"), sort=[["_id", 1]])
    assert [row["n"] for row in found.preview] == ["ok", "Jos\ufffd"]
    assert sample_collection(Side(None, NAME, "texts")).sampled == 2


def test_a_view_without_ids_can_be_either_side(database: Database[Document]) -> None:
    database.base.insert_many([{"x": number % 3 or None, "y": number} for number in range(9)])
    for name in ("v1", "v2"):
        database.create_collection(name, viewOn="base", pipeline=[{"$project": {"_id": 0}}])
    found = checked("v1", join_of("v2", "x", "x", kind="inner", shape="rows"))
    assert (found.expected.rows, found.expected.rates) == (18, [0.6667])
    assert len(found.preview) == 5


def test_whole_numbers_become_digits(database: Database[Document]) -> None:
    phones = [4791234567.0, 4799999999.0, 12345.0, Int64(4790000000)]
    database.phones.insert_many([{"_id": number, "phone": phone} for number, phone in enumerate(phones)])
    database.calls.insert_many([{"_id": number, "tel": str(int(phone))} for number, phone in enumerate(phones)])
    found = checked("phones", join_of("calls", "phone", "tel"))
    (finding,) = [finding for finding in found.findings if finding.cure and finding.cure.field == "cast"]
    assert finding.text.endswith("Converted to string, 100 % find a match.")
    assert finding.cure == Cure(0, 0, "cast", "string")
    cast = checked("phones", join_of("calls", "phone", "tel", cast="string"))
    assert (cast.expected.rates, problems(cast)) == ([1.0], [])


def test_a_conversion_that_adds_no_match_is_not_offered(database: Database[Document]) -> None:
    database.left.insert_many([{"_id": number, "k": number + 0.5} for number in range(4)])
    database.texts.insert_many([{"_id": str(number)} for number in range(4)])
    found = checked("left", join_of("texts", "k", "_id"))
    assert [finding.cure for finding in found.findings if finding.cure] == []
    assert problems(found) == ["left.k holds numbers, texts._id text: they never match."]


@pytest.mark.parametrize("path", ["ref.$id", "refs.0.$id"])
def test_a_dbref_can_be_a_key(database: Database[Document], path: str) -> None:
    reference = DBRef("people", 5)
    database.refs.insert_many([{"_id": number, "ref": reference, "refs": [reference]} for number in range(3)])
    database.people.insert_one({"_id": 5, "n": "x"})
    found = checked("refs", join_of("people", path, "_id", shape="count"))
    assert (found.expected.rates, problems(found)) == ([1.0], [])
    back = checked("people", join_of("refs", "_id", path, shape="count"))
    assert (back.expected.rates, problems(back)) == ([1.0], [])
    assert back.preview == [{"_id": 5, "n": "x", "found": 3}]


@pytest.mark.parametrize("cast", ["uuid", "uuidJavaLegacy", "uuidCsharpLegacy", "uuidPythonLegacy"])
def test_the_conversion_to_the_stored_form_of_uuids_is_offered(database: Database[Document], cast: str) -> None:
    forms = {"uuid": 4, "uuidJavaLegacy": 5, "uuidCsharpLegacy": 6, "uuidPythonLegacy": 3}
    ids = [uuid.UUID(int=(number + 1) * 0x0123456789ABCDEF0123456789ABCDE) for number in range(4)]
    database.texts.insert_many([{"_id": number, "user": str(each)} for number, each in enumerate(ids)])
    database.users.insert_many([{"_id": Binary.from_uuid(each, forms[cast])} for each in ids])
    for left, other, local, foreign in (("texts", "users", "user", "_id"), ("users", "texts", "_id", "user")):
        found = checked(left, join_of(other, local, foreign))
        assert Cure(0, 0, "cast", cast) in [finding.cure for finding in found.findings]
        cast_found = checked(left, join_of(other, local, foreign, cast=cast))
        assert (cast_found.expected.rates, problems(cast_found)) == ([1.0], [])


def test_uuids_of_drivers_of_different_ages_are_reported(database: Database[Document]) -> None:
    ids = [uuid.UUID(int=(number + 1) * 0x0123456789ABCDEF0123456789ABCDE) for number in range(4)]
    database.new.insert_many([{"_id": Binary.from_uuid(each)} for each in ids])
    database.old.insert_many([{"_id": Binary.from_uuid(each, 5)} for each in ids])
    found = checked("new", join_of("old", "_id", "_id"))
    (finding,) = [finding for finding in found.findings if "store UUIDs" in finding.text]
    assert finding.text == (
        "new._id and old._id store UUIDs in different ways. Converted to uuidJavaLegacy, 100 % find a match."
    )
    assert finding.cure == Cure(0, 0, "cast", "uuidJavaLegacy")


ORDERS: list[Document] = [
    {"_id": 1, "items": [{"sku": "a"}, {"sku": "b"}, {"sku": "x"}]},
    {"_id": 2, "items": [{"sku": "a"}]},
    {"_id": 3, "items": []},
]


def test_expanded_lists_are_reported_with_the_factor(database: Database[Document]) -> None:
    database.orders.insert_many(ORDERS)
    database.products.insert_many([{"_id": "a"}, {"_id": "b"}])
    products = join_of("products", "items.sku", "_id", shape="first")
    found = checked("orders", products, expand="items")
    assert (found.expected.rows, found.expected.rates) == (4, [0.75])
    assert problems(found) == [
        "Each document of orders appears 2.0 times on average; a sum of its own fields counts them that often."
    ]
    assert [row["items"]["sku"] for row in found.preview] == ["a", "b", "x", "a"]
    assert found.pipeline.count(".aggregate(") == 2


def test_matches_inside_the_elements_of_a_list_are_counted(database: Database[Document]) -> None:
    database.orders.insert_many(ORDERS)
    database.products.insert_many([{"_id": "a"}, {"_id": "b"}])
    found = checked("orders", join_of("products", "items.sku", "_id", shape="count", into="items"))
    assert (found.expected.rows, found.expected.rates, problems(found)) == (3, [0.75], [])
    assert any(
        finding.text == "75 % of orders.items find a match in products by items.sku = _id."
        for finding in found.findings
    )
    assert found.preview[1] == {"_id": 2, "items": [{"sku": "a", "found": 1}]}


def test_one_collection_without_joins_is_checked(database: Database[Document]) -> None:
    database.alone.insert_many([{"_id": number, "k": number % 2} for number in range(20)])
    found = checked("alone", match={"k": 1}, sort=[["_id", -1]], fields=["_id"])
    assert (found.expected.rows, found.expected.rates) == (10, [])
    assert [row["_id"] for row in found.preview] == [19, 17, 15, 13, 11]
    assert [finding.text for finding in found.findings] == ["Your filter keeps 10 of 20 alone."]
    assert found.expected.seconds is not None


def test_rows_are_cut_by_a_brought_field_that_the_join_does_not_keep(database: Database[Document]) -> None:
    database.pa.insert_many([{"_id": number, "k": number} for number in range(6)])
    database.pb.insert_many([{"_id": number, "name": f"p{number}", "price": number} for number in range(6)])
    first = join_of("pb", "k", "_id", shape="first", fields=["name"])
    found = checked("pa", first, sort=[["found.price", -1]], limit=2)
    assert ([row["_id"] for row in found.preview], found.is_sample) == ([5, 4], False)


def test_the_first_match_is_the_one_with_the_least_element(database: Database[Document]) -> None:
    database.fa.insert_one({"_id": 0})
    database.fb.insert_many([{"_id": "0-0", "k": 0, "p": [5, 1]}, {"_id": "0-1", "k": 0, "p": 3}])
    found = checked("fa", join_of("fb", "_id", "k", shape="first", sort=[["p", 1]]))
    assert found.preview[0]["found"]["_id"] == "0-0"


def test_sides_on_other_servers_and_databases_are_checked(database: Database[Document]) -> None:
    database.flights.insert_many([{"_id": number, "owner": number % 3} for number in range(9)])
    connections().joins[f"{NAME}_crm"].accounts.insert_many([{"_id": 0}, {"_id": 1}])
    try:
        with variables(SOURCE_CRM_URI=os.environ["MONGODB_URI"], SOURCE_CRM_DATABASES=f"{NAME}_crm"):
            accounts = {"source": "crm", "database": f"{NAME}_crm", "collection": "accounts"}
            found = checked("flights", join_of(accounts, "owner", "_id"))
    finally:
        connections().joins.drop_database(f"{NAME}_crm")
    assert found.expected.rates == [0.6667]
    notes = [finding.text for finding in found.findings]
    assert "flights and accounts are on different servers: they are not read at the same instant." in notes


def test_a_large_side_that_must_be_converted_is_sampled(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_tasks.joins.preflight.others.MAX_KEYS", 50)
    monkeypatch.setattr("worker_tasks.joins.preflight.others.MAX_DOCUMENTS", 50)
    database.big.insert_many([{"_id": number, "k": f"K{number}"} for number in range(100)])
    database.small.insert_many([{"_id": number, "k": f"k{number * 10}"} for number in range(10)])
    found = checked("small", join_of("big", "k", "k", fold="case"))
    assert (found.expected.rates, found.expected.rows, found.is_sample) == ([None], None, True)
    assert any(
        finding.text == "At least 50 % of small find a match in big: only a sample of big was compared."
        for finding in found.findings
    )
    assert bson.encode({"preview": found.preview})


def test_rows_with_too_many_matches_show_the_first_ones(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_tasks.joins.preflight.others.MAX_DOCUMENTS", 50)
    database.hubs.insert_many([{"_id": number} for number in range(3)])
    database.spokes.insert_many([{"_id": number, "hub": [number % 3], "end": number % 2} for number in range(120)])
    database.ends.insert_one({"_id": 0})
    spokes = join_of("spokes", "_id", "hub", sort=[["_id", -1]])
    found = checked("hubs", spokes, join_of("ends", "found.end", "_id") | {"as": "ends"})
    assert found.expected.rates == [1.0, 1.0]
    assert [[spoke["_id"] for spoke in row["found"]] for row in found.preview] == [
        list(range(117 + number, 104 + number, -3)) for number in range(3)
    ]
    assert not found.is_sample
    counted = checked("hubs", join_of("spokes", "_id", "hub", shape="count"))
    assert [row["found"] for row in counted.preview] == [40, 40, 40]


def test_matches_inside_matches_are_refused_by_name(servers: None) -> None:
    nested = join_of("orders", "found._id", "_id", into="found") | {"as": "again"}
    joins = [join_of("orders", "_id", "userId"), nested]
    with pytest.raises(InvalidInput) as refusal:
        submission.admit(parse({"database": "shop", "from": "users", "joins": joins}))
    assert list(refusal.value.errors) == ["join.joins.1.into"]

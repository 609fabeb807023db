"""Keys are suggested by the names of fields, by unique indexes, and by trying values of a sample."""

import uuid
from collections.abc import Iterator

import pytest
from bson import Binary, Int64, ObjectId
from pymongo.database import Database

from tests.support import eventually
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.preflight.sampling import sample_collection
from worker_tasks.joins.preflight.suggestions import (
    MAX_SUGGESTED,
    LeftField,
    Pair,
    Suggestion,
    suggest_keys,
)
from worker_tasks.joins.spec.casts import Cast
from worker_tasks.joins.spec.folds import Fold
from worker_tasks.joins.spec.sides import Side

NAME = "suggestions"


def oid(number: int) -> ObjectId:
    return ObjectId(f"{number:024x}")


@pytest.fixture(scope="module", autouse=True)
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins[NAME]
    database.users.insert_many([{"_id": f"u{number}", "email": f"{number}@example.com"} for number in range(40)])
    # Three of four orders refer to an existing user.
    buyers = [number if number % 4 else number + 1000 for number in range(40)]
    database.orders.insert_many([{"_id": f"o{number}", "userId": f"u{buyer}"} for number, buyer in enumerate(buyers)])
    yield database
    connections().joins.drop_database(NAME)


def fields_of(collection: str, prefix: str = "") -> list[LeftField]:
    side = Side(None, NAME, collection)
    return [LeftField(prefix + field.path, side, field) for field in sample_collection(side).fields]


def suggested(left: str, other: str) -> list[Suggestion]:
    """The suggestions after all of them were tried. On a busy machine, the first attempt may run out of time."""

    def attempt() -> tuple[list[Suggestion]] | None:
        suggestions = suggest_keys(fields_of(left), Side(None, NAME, other))
        if all(suggestion.rate is not None for suggestion in suggestions if len(suggestion.pairs) == 1):
            return (suggestions,)
        connections().results.delete(f"key_suggestions:{NAME}.{left}:.{NAME}.{other}")
        return None

    (suggestions,) = eventually(attempt)
    return suggestions


def test_a_field_named_after_the_other_collection_is_suggested_with_its_id() -> None:
    first = suggested("orders", "users")[0]
    assert first.pairs == (Pair("userId", "_id"),)


def test_an_id_is_suggested_with_the_field_named_after_its_collection() -> None:
    first = suggested("users", "orders")[0]
    assert first.pairs == (Pair("_id", "userId"),)


def test_the_rate_is_the_share_of_values_on_the_other_side() -> None:
    assert suggested("orders", "users")[0].rate == pytest.approx(0.75)
    assert suggested("users", "orders")[0].rate == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("collection", "local"),
    [("categories", "categoryId"), ("stores", "store_id"), ("tables", "table")],
)
def test_plurals_and_spellings_of_names_are_recognised(
    database: Database[Document], collection: str, local: str
) -> None:
    database[collection].insert_many([{"_id": f"{collection}{number}"} for number in range(10)])
    left = f"left_of_{collection}"
    database[left].insert_many([{"_id": f"l{number}", local: f"{collection}{number}"} for number in range(10)])
    assert suggested(left, collection)[0] == Suggestion((Pair(local, "_id"),), 1.0)


def test_equal_names_are_suggested(database: Database[Document]) -> None:
    database.invoices.insert_many([{"_id": f"i{number}", "number": f"N{number}"} for number in range(20)])
    database.payments.insert_many([{"_id": f"p{number}", "number": f"N{number + 10}"} for number in range(20)])
    assert suggested("invoices", "payments")[0] == Suggestion((Pair("number", "number"),), 0.5)


def test_fields_that_are_unique_together_are_suggested_together(database: Database[Document]) -> None:
    terms = [{"_id": f"t{number}", "school": number % 5, "period": number // 5} for number in range(20)]
    database.terms.insert_many(terms)
    database.terms.create_index([("school", 1), ("period", 1)], unique=True)
    database.marks.insert_many(
        [{"_id": f"m{number}", "school": number % 5, "period": number % 4} for number in range(20)]
    )
    first = suggested("marks", "terms")[0]
    assert first.pairs == (Pair("school", "school"), Pair("period", "period"))
    assert first.rate is None


def test_a_compound_key_is_not_suggested_if_the_left_side_lacks_a_field(
    database: Database[Document],
) -> None:
    database.seats.insert_many([{"_id": f"s{number}", "row": number % 5, "place": number // 5} for number in range(20)])
    database.seats.create_index([("row", 1), ("place", 1)], unique=True)
    database.guests.insert_many([{"_id": f"g{number}", "row": number % 5} for number in range(20)])
    found = suggested("guests", "seats")
    assert found
    assert all(len(suggestion.pairs) == 1 for suggestion in found)


def test_a_conversion_is_suggested_if_types_differ(database: Database[Document]) -> None:
    database.products.insert_many([{"_id": oid(number)} for number in range(10)])
    database.reviews.insert_many([{"_id": f"r{number}", "productId": str(oid(number))} for number in range(20)])
    assert suggested("reviews", "products")[0] == Suggestion((Pair("productId", "_id", "objectId"),), 0.5)


def test_numbers_are_converted_to_text_if_the_other_side_has_text(database: Database[Document]) -> None:
    database.shops.insert_many([{"_id": str(number)} for number in range(10)])
    database.sales.insert_many([{"_id": f"sale{number}", "shopId": number} for number in range(10)])
    assert suggested("sales", "shops")[0] == Suggestion((Pair("shopId", "_id", "string"),), 1.0)


def test_no_conversion_is_suggested_between_number_types(database: Database[Document]) -> None:
    database.cars.insert_many([{"_id": Int64(number)} for number in range(10)])
    database.trips.insert_many([{"_id": f"trip{number}", "carId": float(number)} for number in range(10)])
    assert suggested("trips", "cars")[0] == Suggestion((Pair("carId", "_id"),), 1.0)


def test_two_ids_are_not_suggested_because_of_their_names_alone(database: Database[Document]) -> None:
    database.apples.insert_many([{"_id": ObjectId()} for _ in range(20)])
    database.pears.insert_many([{"_id": ObjectId()} for _ in range(20)])
    assert suggested("apples", "pears") == []


def test_an_indexed_field_with_the_same_values_is_suggested_despite_its_name(database: Database[Document]) -> None:
    database.parcels.insert_many([{"_id": f"p{number}", "tracking": f"T{number}"} for number in range(20)])
    database.parcels.create_index("tracking")
    database.scans.insert_many([{"_id": f"s{number}", "barcode": f"T{number}"} for number in range(20)])
    assert suggested("scans", "parcels") == [Suggestion((Pair("barcode", "tracking"),), 1.0)]


def test_nested_fields_are_suggested_by_their_paths(database: Database[Document]) -> None:
    database.parts.insert_many([{"_id": f"part{number}"} for number in range(10)])
    carts = [{"_id": f"c{number}", "lines": [{"partId": f"part{number}"}, {"partId": "none"}]} for number in range(10)]
    database.carts.insert_many(carts)
    first = suggested("carts", "parts")[0]
    assert first.pairs == (Pair("lines.partId", "_id"),)
    assert first.rate == pytest.approx(10 / 11)


def test_a_field_of_an_earlier_join_is_suggested_by_its_path_in_the_row(database: Database[Document]) -> None:
    database.towns.insert_many([{"_id": f"town{number}"} for number in range(10)])
    database.streets.insert_many([{"_id": f"street{number}", "townId": f"town{number}"} for number in range(10)])
    left = [*fields_of("users"), *fields_of("streets", "street.")]
    assert suggest_keys(left, Side(None, NAME, "towns"))[0] == Suggestion((Pair("street.townId", "_id"),), 1.0)


def test_only_the_best_are_suggested_and_the_best_comes_first(database: Database[Document]) -> None:
    names = [f"field{number}" for number in range(8)]
    database.wide.insert_many([dict.fromkeys(names, f"v{number}") for number in range(10)])
    database.tall.insert_many([dict.fromkeys(names, f"v{number}" if number < 5 else number) for number in range(10)])
    database.tall.create_index("field6")
    found = suggested("wide", "tall")
    assert len(found) == MAX_SUGGESTED
    assert found[0].pairs == (Pair("field6", "field6"),)


def test_suggestions_are_cached_for_a_while(database: Database[Document]) -> None:
    database.pens.insert_many([{"_id": f"pen{number}"} for number in range(4)])
    database.caps.insert_many([{"_id": f"cap{number}", "penId": f"pen{number}"} for number in range(4)])
    first = suggested("caps", "pens")
    database.pens.delete_many({})
    assert suggested("caps", "pens") == first == [Suggestion((Pair("penId", "_id"),), 1.0)]
    (key,) = connections().results.keys(f'key_suggestions:*{NAME}*"caps"*"pens"*')
    assert 0 < connections().results.ttl(key) <= 120


@pytest.mark.parametrize(
    ("other", "fold"), [("BERLIN {}", "case"), (" berlin   {} ", "blanks"), (" Berlin {}", "both"), ("berlin {}", None)]
)
def test_texts_are_folded_if_case_or_blanks_prevent_matches(
    database: Database[Document], other: str, fold: Fold | None
) -> None:
    name = f"towns_{fold}"
    database[f"left_{name}"].insert_many([{"_id": number, "town": f"berlin {number}"} for number in range(10)])
    database[name].insert_many([{"_id": f"t{number}", "town": other.format(number)} for number in range(10)])
    assert suggested(f"left_{name}", name)[0] == Suggestion((Pair("town", "town", None, fold),), 1.0)


@pytest.mark.parametrize(("cast", "form"), [("uuid", 4), ("uuidJavaLegacy", 5), ("uuidPythonLegacy", 3)])
def test_texts_are_converted_to_the_stored_form_of_uuids(database: Database[Document], cast: Cast, form: int) -> None:
    ids = [uuid.UUID(int=(number + 1) * 0x0123456789ABCDEF0123456789ABCDE) for number in range(10)]
    database[f"{cast}s"].insert_many([{"_id": Binary.from_uuid(each, form)} for each in ids])
    database[f"texts_of_{cast}"].insert_many(
        [{"_id": number, f"{cast}Id": str(each)} for number, each in enumerate(ids)]
    )
    assert suggested(f"texts_of_{cast}", f"{cast}s")[0] == Suggestion((Pair(f"{cast}Id", "_id", cast),), 1.0)

"""The table of casts: its names, when each cast is suggested, and estimates for sampled values."""

from typing import Any, get_args

import pytest
from bson import Binary, Decimal128, Int64, ObjectId

from worker_tasks.infra.connections import connections
from worker_tasks.joins.spec.bson_types import BSON_TYPES
from worker_tasks.joins.spec.casts import CASTS, UUID_REPRESENTATIONS, Cast, cast_to

OID = ObjectId("65a000000000000000000001")


def test_the_literal_type_lists_every_row() -> None:
    assert tuple(CASTS) == get_args(Cast)


@pytest.mark.parametrize("cast", CASTS)
def test_casts_are_suggested_between_distinct_known_types(cast: str) -> None:
    conversion = CASTS[cast]
    assert cast in BSON_TYPES.keys() | UUID_REPRESENTATIONS.keys()
    assert conversion.suggested_from <= BSON_TYPES.keys()
    assert conversion.suggested_to <= BSON_TYPES.keys()
    assert not conversion.suggested_from & conversion.suggested_to


def test_no_two_casts_are_suggested_for_the_same_types() -> None:
    for local in BSON_TYPES:
        for foreign in BSON_TYPES:
            casts = [each for each in CASTS.values() if local in each.suggested_from and foreign in each.suggested_to]
            assert len(casts) <= 1, (local, foreign)


@pytest.mark.parametrize(
    ("local", "foreign", "cast"),
    [
        ("string", "objectId", "objectId"),
        ("objectId", "string", "string"),
        ("int", "string", "string"),
        ("string", "int", "long"),
        ("string", "double", "double"),
        ("string", "decimal", "double"),
        ("string", "date", "date"),
        ("string", "binData", "uuid"),
        ("date", "objectId", None),
        ("object", "string", None),
        ("int", "objectId", None),
    ],
)
def test_the_suggested_cast_depends_on_both_types(local: str, foreign: str, cast: Cast | None) -> None:
    assert cast_to(local, foreign) == cast


@pytest.mark.parametrize(
    ("cast", "value"),
    [
        *(("string", value) for value in ("x", 1, 1.0, 2.5, Int64(3), Decimal128("1.5"), OID)),
        *(("int", "12"), ("long", "-12"), ("double", "-1.5"), ("objectId", str(OID))),
    ],
)
def test_an_estimate_equals_mongodbs_conversion(servers: None, cast: str, value: Any) -> None:
    converted = {"$convert": {"input": {"$literal": value}, "to": cast}}
    database: Any = connections().joins.casts
    (document,) = database.aggregate([{"$documents": [{}]}, {"$project": {"converted": converted}}])
    estimate = CASTS[cast].estimate
    assert estimate is not None
    assert estimate(value) == document["converted"]


@pytest.mark.parametrize(
    ("cast", "value"),
    [("int", "x"), ("double", "1e"), ("objectId", "x"), ("objectId", 1), ("uuid", "00-11"), ("uuid", 1)],
)
def test_a_value_that_cannot_be_converted_has_no_estimate(cast: str, value: Any) -> None:
    estimate = CASTS[cast].estimate
    assert estimate is not None
    assert estimate(value) is None


def test_the_estimate_for_a_decimal_is_a_number() -> None:
    assert CASTS["double"].estimate is not None
    assert CASTS["double"].estimate(Decimal128("1.5")) == 1.5


def test_a_cast_to_a_date_has_no_estimate() -> None:
    assert CASTS["date"].estimate is None


@pytest.mark.parametrize(
    ("cast", "stored"),
    [
        ("uuid", Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4)),
        ("uuidPythonLegacy", Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 3)),
        ("uuidCsharpLegacy", Binary(bytes.fromhex("33221100554477668899aabbccddeeff"), 3)),
        ("uuidJavaLegacy", Binary(bytes.fromhex("7766554433221100ffeeddccbbaa9988"), 3)),
    ],
)
@pytest.mark.parametrize("text", ["00112233-4455-6677-8899-AABBCCDDEEFF", "00112233445566778899aabbccddeeff"])
def test_a_text_becomes_the_uuid_that_each_kind_of_driver_stored(cast: str, stored: Binary, text: str) -> None:
    estimate = CASTS[cast].estimate
    assert estimate is not None
    assert estimate(text) == stored

"""Two values have the same canonical key exactly if MongoDB's ``$lookup`` matches them."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from bson import SON, Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from tests.worker_tasks.joins.matching.bson_strategies import numbers, server_property, stored, values
from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.canonical_keys import SEPARATOR, canonical

UUID_1 = UUID("12345678-1234-5678-1234-567812345678")


@server_property
@given(st.lists(values, min_size=2, max_size=60) | st.lists(numbers, min_size=2, max_size=60))
def test_keys_are_equal_exactly_if_lookup_matches(scratch: Database[Document], drawn: list[Any]) -> None:
    # Inside a document, null, NaN and lists are compared like any other value.
    documents = stored(scratch.equality, [{"k": {"w": value}} for value in drawn])
    lookup = {"from": "equality", "localField": "k", "foreignField": "k", "as": "matches"}
    matched = {
        row["_id"]: {match["_id"] for match in row["matches"]}
        for row in scratch.equality.aggregate([{"$lookup": lookup}])
    }
    nested = {document["_id"]: canonical(document["k"]) for document in documents}
    plain = {document["_id"]: canonical(document["k"]["w"]) for document in documents}
    for number, matches in matched.items():
        assert {other for other, key in nested.items() if key == nested[number]} == matches
        if plain[number] is not None:
            assert {other for other, key in plain.items() if key == plain[number]} == matches
    assert not any(SEPARATOR in key for key in [*nested.values(), *plain.values()] if key is not None)


@pytest.mark.parametrize("nothing", [None, float("nan"), Decimal128("NaN"), Decimal128("-NaN"), Decimal128("sNaN")])
def test_null_and_nan_have_no_key(nothing: Any) -> None:
    assert canonical(nothing) is None
    assert canonical([nothing]) == canonical([nothing])
    assert canonical([nothing]) is not None


def test_null_and_nan_differ_inside_documents() -> None:
    assert canonical({"a": None}) != canonical({"a": float("nan")})
    assert canonical([float("nan")]) == canonical([Decimal128("NaN")])


@pytest.mark.parametrize(
    "same",
    [
        [1, 1.0, Int64(1), Decimal128("1"), Decimal128("1.00"), Decimal128("10E-1")],
        [0, 0.0, -0.0, Decimal128("-0"), Decimal128("0E+10")],
        [0.5, Decimal128("0.5"), Decimal128("0.50")],
        [float("inf"), Decimal128("Infinity")],
        [1000, Decimal128("1E+3"), 1e3],
        [datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), DatetimeMS(1704067200000)],  # noqa: DTZ001 - in UTC
        [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))],
        [UUID_1, Binary.from_uuid(UUID_1)],
        [b"ab", Binary(b"ab")],
        [{"a": 1, "b": 2}, SON([("a", 1.0), ("b", 2)])],
        [DBRef("u", 1), {"$ref": "u", "$id": 1}],
    ],
)
def test_equal_values_share_a_key(same: list[Any]) -> None:
    assert len({canonical(value) for value in same}) == 1


def test_different_values_have_different_keys() -> None:
    oid = ObjectId("65a000000000000000000001")
    different = [
        *[0.1, Decimal128("0.1"), 1, "1", True, "true", oid, str(oid), "abc", "ABC", b"abc", Binary(b"abc", 5)],
        *[{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {"b": 1}, [1, 2], [2, 1], [[1, 2]], [1], [], {}, ""],
        *[datetime(2024, 1, 1), 1704067200000, "2024-01-01T00:00:00.000Z"],  # noqa: DTZ001 - in UTC
        *[Regex("a"), Regex("a", 2), Code("a"), Code("a", {}), Code("a", {"b": 1}), Timestamp(1, 2), Timestamp(2, 1)],
        *[MinKey(), MaxKey(), 2**53 + 1, float(2**53), Binary.from_uuid(UUID_1), Binary(UUID_1.bytes, 3), str(UUID_1)],
        *[
            "\x1f",
            "\x1e1",
            "\x1e",
            "\x1e0",
            "\x1e\x1f",
            ["a", "b"],
            ["a:b"],
            ["1:a"],
            ["ab"],
            {"a": "b"},
            {"a": {"b": 1}},
        ],
    ]
    assert len({canonical(value) for value in different}) == len(different)


def test_a_value_that_bson_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="complex"):
        canonical(1j)

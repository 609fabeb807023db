"""Rows are relaxed Extended JSON that loses no value and no type."""

import json
import math
import struct
from typing import Any
from uuid import UUID, uuid4

import bson
import pytest
from bson import Binary, Code, DBRef, Int64, ObjectId, json_util
from bson.binary import OLD_UUID_SUBTYPE, UUID_SUBTYPE
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_tasks.joins.matching.bson_strategies import values
from worker_tasks.joins.reading import encoding
from worker_tasks.joins.reading.encoding import LineEncoder, may_hold_non_finite
from worker_tasks.joins.spec.extended_json import extended, finite

UUID_1 = UUID("12345678-1234-5678-1234-567812345678")
#: The name of a number that is not finite, by the sign bit and whether the fraction is zero.
NAMES = {(0, True): "Infinity", (1, True): "-Infinity", (0, False): "NaN", (1, False): "NaN"}
fractions = st.integers(0, 2**52 - 1) | st.sampled_from([0, 1, 1954, 2**51, 2**51 + 1954, 2**52 - 1])


def encoded(*documents: bytes) -> list[Any]:
    return [json.loads(line) for lines in LineEncoder({}).encode(b"".join(documents)) for line in lines]


def document_with_double(bits: int, name: str = "x") -> bytes:
    """BSON with a double of this bit pattern, which Python would not keep."""
    body = b"\x01" + name.encode() + b"\0" + struct.pack("<Q", bits) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


@given(st.sampled_from([0, 1]), fractions, st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=4))
def test_every_bit_pattern_of_nan_and_infinity_is_kept(sign: int, fraction: int, name: str) -> None:
    piece = document_with_double(sign << 63 | 0x7FF << 52 | fraction, name)
    assert encoded(bson.encode({"before": 1}), piece) == [
        {"before": 1},
        {name: {"$numberDouble": NAMES[sign, fraction == 0]}},
    ]


@given(st.recursive(values | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text("ab$"), inner)))
def test_a_slice_with_a_number_that_is_not_finite_is_recognised(value: Any) -> None:
    def holds(inner: Any) -> bool:
        if isinstance(inner, dict | list):
            return any(map(holds, inner.values() if isinstance(inner, dict) else inner))
        return isinstance(inner, float) and not math.isfinite(inner)

    piece = bson.encode({"value": value})
    assert may_hold_non_finite(piece) or not holds(value)


@pytest.mark.parametrize(
    "value", [-1, Int64(-1), Int64(-(2**60)), "\x7f\xff\xf0", b"\xff" * 50, ObjectId("ff" * 12), 1e308, [0, -7]]
)
def test_other_values_do_not_slow_a_slice_down(value: Any) -> None:
    assert not may_hold_non_finite(bson.encode({"value": value}))


def test_a_slice_of_nothing_but_exponents_is_searched_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_EXPONENTS", 10)
    assert may_hold_non_finite(bson.encode({"value": b"\xff" * 50}))


@pytest.mark.parametrize("near", [1.5, math.nan])
@pytest.mark.parametrize(
    ("stored", "as_json"),
    [
        (Code("function(){}"), {"$code": "function(){}"}),
        (Code("f", {"a": 5, "n": math.inf}), {"$code": "f", "$scope": {"a": 5, "n": {"$numberDouble": "Infinity"}}}),
        (Code("f", {}), {"$code": "f", "$scope": {}}),
        (Binary(UUID_1.bytes, UUID_SUBTYPE), {"$uuid": str(UUID_1)}),
        (Binary(b"short", UUID_SUBTYPE), {"$binary": {"base64": "c2hvcnQ=", "subType": "04"}}),
        (
            Binary(UUID_1.bytes, OLD_UUID_SUBTYPE),
            {"$binary": {"base64": "EjRWeBI0VngSNFZ4EjRWeA==", "subType": "03"}},
        ),
        (Int64(2**60), 2**60),
        (DBRef("users", ObjectId("0" * 24)), {"$ref": "users", "$id": {"$oid": "0" * 24}}),
        (DBRef("users", math.nan), {"$ref": "users", "$id": {"$numberDouble": "NaN"}}),
        ({"$date": "not a date"}, {"$date": "not a date"}),
    ],
    ids=str,
)
def test_values_keep_their_types_whether_or_not_a_nan_is_near(near: float, stored: Any, as_json: Any) -> None:
    ((row,),) = [encoded(bson.encode({"near": near, "value": [stored, {"in": stored}]}))]
    assert row["value"] == [as_json, {"in": as_json}]


@given(st.lists(values, max_size=5))
def test_json_util_reads_every_row_back(drawn: list[Any]) -> None:
    document = bson.decode(bson.encode({"drawn": drawn}))
    (row,) = encoded(bson.encode(document))
    options = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=False, datetime_conversion=4)
    again = json_util.loads(json.dumps(row), json_options=options)
    assert encoded(bson.encode(again)) == [row]


def test_any_uuid_is_written_as_one() -> None:
    uuid = uuid4()
    assert extended(Binary.from_uuid(uuid)) == {"$uuid": str(uuid)}


def test_finite_values_are_unchanged() -> None:
    value = {"a": [1, 2.5, None, "x", {"b": True}]}
    assert finite(value) == value

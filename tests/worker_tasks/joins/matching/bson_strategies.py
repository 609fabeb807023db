"""Hypothesis strategies for BSON values, and what the property tests share."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import bson
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)

#: Each example asks the server about many documents, so a few examples go a long way.
server_property = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

NOTABLE = [0, 1, -1, 2, 10, 1000, 2**31 - 1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**62 + 1, 2**63 - 1, -(2**63)]
FRACTIONS = [
    "0.5",
    "-0.5",
    "0.1",
    "5.7",
    "1E-7",
    "1E-310",
    "1E-400",
    "1E+40",
    "9007199254740993.5",
    "NaN",
    "Inf",
    "-Inf",
]
OBJECT_IDS = [ObjectId("65a000000000000000000001"), ObjectId("f5a000000000000000000001")]

ints = st.sampled_from(NOTABLE) | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
floats = st.floats() | st.integers(-3, 3).map(float) | ints.map(float) | st.sampled_from(FRACTIONS).map(float)
decimals = st.one_of(
    ints.map(lambda number: Decimal128(str(number))),
    st.sampled_from(FRACTIONS).map(Decimal128),
    st.builds(
        lambda sign, digits, exponent: Decimal128(Decimal((sign, tuple(map(int, str(digits))), exponent))),
        st.integers(0, 1),
        st.integers(0, 10**34 - 1),
        st.integers(-6176, 6111) | st.integers(-40, 10),
    ),
)
numbers = st.one_of(ints, ints.map(Int64), floats, decimals)
texts = st.one_of(
    st.text(st.sampled_from("aAbz 1.\x00\x1e\x1f:ßé"), max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from([str(each) for each in OBJECT_IDS]),
)
names = st.sampled_from(["a", "b", "ab", "é", "1"])
dates = st.one_of(
    st.datetimes().map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
    st.sampled_from([datetime(2024, 1, 1), datetime(1970, 1, 1), datetime(1950, 1, 1)]),  # noqa: DTZ001 - in UTC
)
binaries = st.builds(Binary, st.binary(max_size=3), st.sampled_from([0, 2, 5, 0x80])) | st.builds(
    Binary, st.binary(min_size=16, max_size=16), st.sampled_from([0, 3, 4])
)
patterns = st.text(st.sampled_from("abc.é"), max_size=3)
others = st.one_of(
    st.booleans(),
    st.none(),
    st.sampled_from(OBJECT_IDS),
    dates,
    binaries,
    st.builds(Regex, patterns, st.sampled_from([0, 2, 8, 10])),
    st.builds(Code, patterns),
    st.builds(Code, patterns, st.just({}) | st.just({"a": 1})),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.sampled_from([MinKey(), MaxKey()]),
    st.builds(DBRef, st.sampled_from(["u", "v"]), st.integers(0, 2), st.none() | st.just("d")),
)
scalars = numbers | texts | others
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)

#: Few values in documents of many shapes, so that paths lead somewhere and values match.
leaves = st.sampled_from([1, 2, 3.0, "x", True, [1, 2], [[1, 2]], [], {}])
paths = st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=4).map(".".join)
named_paths = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(".".join)


def shapes(names: Sequence[str], leaves: st.SearchStrategy[Any] = leaves) -> st.SearchStrategy[dict[str, Any]]:
    inner = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=3),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2)


def stored(collection: Collection[Document], documents: Iterable[Document]) -> list[Document]:
    """Replaces the collection's content; returns the documents with their numbers as they are read back."""
    numbered = [{"_id": number, **document} for number, document in enumerate(documents)]
    collection.delete_many({})
    collection.insert_many(numbered)
    return [bson.decode(bson.encode(document), CODEC) for document in numbered]

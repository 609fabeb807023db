"""Casts agree with MongoDB's ``$convert``, except where ``conversions`` decides otherwise."""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId
from bson.binary import UuidRepresentation
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from tests.worker_tasks.joins.matching.bson_strategies import CODEC, numbers, server_property, stored, values
from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.canonical_keys import canonical
from worker_tasks.joins.matching.conversions import convert
from worker_tasks.joins.spec.folds import Fold

UUID_1 = UUID("12345678-1234-5678-1234-567812345678")
YEARS = range(-62_167_219_200_000, 253_402_300_800_000)

number_texts = st.from_regex(
    r"[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
) | st.sampled_from(
    ["inf", "-Infinity", "nan", "0x10", " 5", "5 ", "+-5", "1_0", "5\x00", "٣", "2147483648", "-9223372036854775808"]
)
iso_texts = st.from_regex(
    r" ?[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{1,7})?)?)?"
    r" ?(Z|UTC|[+-][01][0-9](:?[0-5][0-9])?)?",
    fullmatch=True,
) | st.from_regex(r"[0-9]{4}[01][0-9][0-3][0-9]", fullmatch=True)
loose_texts = st.from_regex(
    r"[0-9]{4}(-1?[0-9])?(-?[0-3]?[0-9])?([Tt ]{1,2}[0-2]?[0-9]:[0-6]?[0-9](:[0-6]?[0-9](\.[0-9]{0,7})?)?)?"
    r" ?([Zz]|utc|GMT|[+-][0-2]?[0-9](:?[0-6][0-9])?)?",
    fullmatch=True,
)


def converted_by_server(scratch: Database[Document], drawn: list[Any], cast: str) -> list[tuple[Any, Any]]:
    """Returns the values with their conversions."""
    documents = stored(scratch.conversions, [{"v": value} for value in drawn])
    conversion = {"$convert": {"input": "$v", "to": cast, "onError": None, "onNull": None}}
    stages: list[Document] = [{"$sort": {"_id": 1}}, {"$project": {"v": conversion}}]
    rows = scratch.conversions.with_options(codec_options=CODEC).aggregate(stages)
    return [(document["v"], row["v"]) for document, row in zip(documents, rows, strict=True)]


def is_decided(value: Any, cast: str) -> bool:
    """Whether a conversion differs from MongoDB's on purpose."""
    if isinstance(value, float | Decimal128):
        number = value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)
        return cast == "string" or (
            cast in {"int", "long"} and number.is_finite() and number != number.to_integral_value()
        )
    return isinstance(value, bool) and cast in {"int", "long"}


@pytest.mark.parametrize("cast", ["string", "int", "long", "double", "objectId", "date"])
@server_property
@given(st.lists(values | numbers | number_texts, min_size=1, max_size=60))
def test_casts_agree_with_the_server(scratch: Database[Document], cast: str, drawn: list[Any]) -> None:
    if cast == "string":
        # The server refuses dates outside these years even where it is told to ignore errors.
        drawn = [each for each in drawn if not isinstance(each, DatetimeMS) or int(each) in YEARS] or [1]
    for value, expected in converted_by_server(scratch, drawn, cast):
        ours = convert(value, cast)
        if is_decided(value, cast) or (cast == "date" and isinstance(value, str) and ours is None):
            continue
        assert canonical(ours) == canonical(expected), value


@server_property
@given(st.lists(iso_texts, min_size=1, max_size=60))
def test_iso_dates_agree_with_the_server(scratch: Database[Document], drawn: list[str]) -> None:
    for text, expected in converted_by_server(scratch, drawn, "date"):
        assert canonical(convert(text, "date")) == canonical(expected), text


@server_property
@given(st.lists(loose_texts, min_size=1, max_size=60))
def test_dates_are_never_read_differently_from_the_server(scratch: Database[Document], drawn: list[str]) -> None:
    for text, expected in converted_by_server(scratch, drawn, "date"):
        assert canonical(convert(text, "date")) in {None, canonical(expected)}, text


@pytest.mark.parametrize("cast", ["int", "long"])
@pytest.mark.parametrize("value", [5.7, -0.5, True, False, "5.7", "5.0", Decimal128("5.9"), math.inf, math.nan, "x"])
def test_what_is_no_whole_number_matches_nothing(value: Any, cast: str) -> None:
    assert convert(value, cast) is None


@pytest.mark.parametrize("cast", ["int", "long"])
@pytest.mark.parametrize("value", [5, Int64(5), 5.0, "5", "+5", "05", Decimal128("5"), Decimal128("5.00")])
def test_whole_numbers_of_all_kinds_are_integers(value: Any, cast: str) -> None:
    assert convert(value, cast) == 5


def test_integers_stay_in_their_range() -> None:
    assert convert(2.0**31, "int") is None
    assert convert(2.0**31, "long") == 2**31
    assert convert(2.0**63, "long") is None
    assert convert("9" * 5000, "long") is None
    assert convert(Decimal128("1E+6000"), "long") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4791230000.0, "4791230000"),
        (1e22, "10000000000000000000000"),
        (-0.0, "0"),
        (5.7, "5.7"),
        (1234567.8, "1234567.8"),
        (0.30000000000000004, "0.30000000000000004"),
        (math.inf, "Infinity"),
        (Decimal128("1E+3"), "1000"),
        (Decimal128("5.0"), "5"),
        (Decimal128("-Infinity"), "-Infinity"),
        (Decimal128("5.70"), "5.70"),
    ],
)
def test_numbers_as_text(value: Any, text: str) -> None:
    assert convert(value, "string") == text


@pytest.mark.parametrize("value", [math.nan, Decimal128("NaN"), DatetimeMS(2**60), None, [1], {"a": 1}, b"x"])
def test_values_without_a_text(value: Any) -> None:
    assert convert(value, "string") is None


@pytest.mark.parametrize("text", ["1e-310", "-4.9e-324", "1e-400", "1e400"])
def test_numbers_beyond_the_range_of_doubles(text: str) -> None:
    assert convert(text, "double") is convert(Decimal128(text), "double") is None
    assert convert("0.0e-400", "double") == 0


@pytest.mark.parametrize("text", ["March 20 2018", "20.03.2018", "yesterday", "2018-02-30", ""])
def test_dates_in_other_forms_match_nothing(text: str) -> None:
    assert convert(text, "date") is None


LEGACY = {
    "uuidJavaLegacy": UuidRepresentation.JAVA_LEGACY,
    "uuidCsharpLegacy": UuidRepresentation.CSHARP_LEGACY,
    "uuidPythonLegacy": UuidRepresentation.PYTHON_LEGACY,
}


@pytest.mark.parametrize("cast", ["uuid", *LEGACY])
@pytest.mark.parametrize(
    "value",
    [
        str(UUID_1),
        str(UUID_1).upper(),
        UUID_1.hex,
        f"{{{UUID_1}}}",
        f"{{{UUID_1.hex}}}",
        UUID_1,
        Binary.from_uuid(UUID_1),
    ],
)
def test_uuids_in_all_forms(value: Any, cast: str) -> None:
    assert convert(value, cast) == UUID_1
    assert canonical(convert(value, cast)) == canonical(Binary.from_uuid(UUID_1))


@pytest.mark.parametrize("written", LEGACY)
@pytest.mark.parametrize("cast", ["uuid", *LEGACY])
def test_old_uuids_need_their_byte_order(cast: str, written: str) -> None:
    old = Binary.from_uuid(UUID_1, LEGACY[written])
    assert (convert(old, cast) == UUID_1) == (cast == written)


@pytest.mark.parametrize(
    "value",
    [
        *[f"{{{UUID_1}", f"{UUID_1}}}", "1234", "12345678123456781234567812345678-", 5, b"x", Binary(b"x", 4), None],
        *[Binary(UUID_1.bytes, 3), Binary(UUID_1.bytes, 0), ObjectId()],
    ],
)
def test_what_is_no_uuid_matches_nothing(value: Any) -> None:
    assert convert(value, "uuid") is None


@pytest.mark.parametrize(
    ("fold", "text"),
    [(None, " Straße\t 1 "), ("case", " strasse\t 1 "), ("blanks", "Straße 1"), ("both", "strasse 1")],
)
def test_folds(fold: Fold | None, text: str) -> None:
    assert convert(" Straße\t 1 ", None, fold) == text
    assert convert(5, None, fold) == 5
    assert convert(ObjectId("65A000000000000000000001"), "string", fold) == "65a000000000000000000001"


def test_dates_are_read_in_utc() -> None:
    assert convert("2018-03-20T12:00:00+02:00", "date") == DatetimeMS(datetime(2018, 3, 20, 10))  # noqa: DTZ001 - in UTC

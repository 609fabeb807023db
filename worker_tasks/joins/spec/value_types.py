"""The types that a condition's value is written as, one row each: how they are named, read and asked for. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: The BSON type of most values of a path in a collection; None where it is not known.
TypeOf = Callable[[str, str], str | None]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(text: str) -> int | float:
    stripped = _digits(text)
    return int(stripped) if re.fullmatch(r"[+-]?\d+", stripped) else float(stripped)


def _decimal(text: str) -> dict[str, str]:
    return {"$numberDecimal": _digits(text)}


def _digits(text: str) -> str:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"“{text}” is no number.")
    return text.strip()


def _date(text: str) -> dict[str, str]:
    stripped = text.strip()
    try:
        instant = datetime.fromisoformat(stripped)
    except ValueError:
        raise ValueError(f"“{stripped}” is no date: write it as 2013-01-31 or 2013-01-31T18:30, in UTC.") from None
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    written = instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
    return {"$date": written.replace("+00:00", "Z")}


def _object_id(text: str) -> dict[str, str]:
    if not re.fullmatch(r"[0-9a-fA-F]{24}", text.strip()):
        raise ValueError(f"“{text}” is no ObjectId: that has 24 hexadecimal digits.")
    return {"$oid": text.strip().lower()}


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in {"true", "false"}:
        raise ValueError("Give true or false.")
    return word == "true"


@dataclass(frozen=True, kw_only=True)
class ValueType:
    """A type that a value can be written as.

    ``label`` is its word in the list of choices, ``hint`` says what to type, ``example`` is a text that can be read,
    ``input_mode`` picks the keys that a phone shows. ``read`` makes Extended JSON of a text, or raises a ValueError
    that says what is wrong; ``wrapper`` is the key of that, where it is an object. Fields of the types in
    ``bson_types`` are compared with values of this type, if no other is chosen.
    """

    name: str
    label: str
    hint: str
    example: str
    read: Callable[[str], Any]
    wrapper: str | None = None
    bson_types: frozenset[str] = frozenset()
    input_mode: str = "text"

    def read_list(self, text: str) -> list[Any]:
        """The values of a text with commas between them; see ``read``."""
        return [self.read(part.strip()) for part in text.split(",") if part.strip()]


TEXT = ValueType(name="string", label="text", hint="text", example="x", read=str)

VALUE_TYPES: dict[str, ValueType] = {
    value_type.name: value_type
    for value_type in (
        TEXT,
        ValueType(
            name="number",
            label="number",
            hint="a number",
            example="1",
            read=_number,
            bson_types=frozenset({"int", "long", "double"}),
            input_mode="decimal",
        ),
        ValueType(
            name="decimal",
            label="decimal",
            hint="a number",
            example="1",
            read=_decimal,
            wrapper="$numberDecimal",
            bson_types=frozenset({"decimal"}),
            input_mode="decimal",
        ),
        ValueType(
            name="date",
            label="date, UTC",
            hint="a date, such as 2013-01-31",
            example="2013-01-01",
            read=_date,
            wrapper="$date",
            bson_types=frozenset({"date"}),
        ),
        ValueType(
            name="objectId",
            label="ObjectId",
            hint="an ObjectId, 24 hexadecimal digits",
            example="0" * 24,
            read=_object_id,
            wrapper="$oid",
            bson_types=frozenset({"objectId"}),
        ),
        ValueType(
            name="bool",
            label="true or false",
            hint="true or false",
            example="true",
            read=_bool,
            bson_types=frozenset({"bool"}),
        ),
    )
}

#: The types whose values are objects in Extended JSON, by the key of these.
BY_WRAPPER = {each.wrapper: each for each in VALUE_TYPES.values() if each.wrapper is not None}

_BY_BSON_TYPE = {bson_type: each for each in VALUE_TYPES.values() for bson_type in each.bson_types}


def value_type(chosen: str | None, bson_type: str | None = None) -> ValueType:
    """The type that was chosen, or else the one that fits a field of this BSON type; text where neither is known."""
    return VALUE_TYPES.get(chosen, TEXT) if chosen else _BY_BSON_TYPE.get(bson_type or "", TEXT)

"""The types of a condition's value, one row each: their names, their parsing and their form inputs. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.typed_numbers import numeric_text

#: Looks up the most frequent BSON type of a field: takes a collection and a path, returns None if unknown.
TypeOf = Callable[[Side, str], str | None]


def _number(text: str) -> int | float:
    number = numeric_text(text)
    return int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)


def _decimal(text: str) -> dict[str, str]:
    return {"$numberDecimal": numeric_text(text)}


def _date(text: str) -> dict[str, str]:
    stripped = text.strip()
    try:
        instant = datetime.fromisoformat(stripped)
    except ValueError:
        raise ValueError(f"“{stripped}” is not a date: write it as 2013-01-31 or 2013-01-31T18:30, in UTC.") from None
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
    """A type that a value can have.

    ``label`` is its text in the list of choices, ``hint`` the help beside an input, ``example`` a valid text, and
    ``input_mode`` the HTML attribute that selects a phone's keyboard. ``read`` parses a text into Extended JSON, or
    raises a ValueError with a message for people. ``wrapper`` is the key of that Extended JSON, if it is an object.
    ``bson_types`` are the types of fields whose conditions have this type by default.
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
        """Parses a comma-separated list of values; see ``read``."""
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

#: The types whose values are objects in Extended JSON, by the key of that object.
BY_WRAPPER = {each.wrapper: each for each in VALUE_TYPES.values() if each.wrapper is not None}

_BY_BSON_TYPE = {bson_type: each for each in VALUE_TYPES.values() for bson_type in each.bson_types}


def value_type(chosen: str | None, bson_type: str | None = None) -> ValueType:
    """The chosen type, or else the default for a field of this BSON type. Text if neither is known."""
    return VALUE_TYPES.get(chosen, TEXT) if chosen else _BY_BSON_TYPE.get(bson_type or "", TEXT)

"""The conversions of a left key, one row each: when to suggest it, and an estimate of its result. Pure."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bson import Binary, ObjectId, UuidRepresentation

from worker_tasks.joins.spec.bson_types import NUMBERS

#: Repeats the names in the table, because type checkers cannot compute a type. A test compares the two.
Cast = Literal[
    "string",
    "int",
    "long",
    "double",
    "objectId",
    "date",
    "uuid",
    "uuidJavaLegacy",
    "uuidCsharpLegacy",
    "uuidPythonLegacy",
]

#: The binary form that each conversion to a UUID produces. The old drivers stored the subtype 3, Java and C# in an
#: order of bytes of their own.
UUID_REPRESENTATIONS: dict[str, int] = {
    "uuid": UuidRepresentation.STANDARD,
    "uuidJavaLegacy": UuidRepresentation.JAVA_LEGACY,
    "uuidCsharpLegacy": UuidRepresentation.CSHARP_LEGACY,
    "uuidPythonLegacy": UuidRepresentation.PYTHON_LEGACY,
}

_HEXADECIMAL_ID = re.compile(r"[0-9a-fA-F]{24}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)([0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")


def _as_object_id(value: Any) -> ObjectId | None:
    return ObjectId(value) if isinstance(value, str) and _HEXADECIMAL_ID.fullmatch(value) else None


def _as_text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _as_number(value: Any) -> float | None:
    text = str(value)
    return float(text) if _NUMBER.fullmatch(text) else None


def uuid_from_text(text: str, cast: str) -> Binary | None:
    """The UUID that a text spells, in the binary form of this cast; None for any other text."""
    representation = UUID_REPRESENTATIONS[cast]
    return Binary.from_uuid(uuid.UUID(text), representation) if _UUID.fullmatch(text) else None


def _as_uuid(cast: str) -> Callable[[Any], Binary | None]:
    return lambda value: uuid_from_text(value, cast) if isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A BSON type that a left key can be converted to.

    ``name`` is its alias in MongoDB's ``$convert``, unless it is a UUID; ``label`` its text in a list of choices,
    ``type_name`` the usual spelling of the type. It is suggested for a left key of a type in ``suggested_from`` if the
    other key has a type in ``suggested_to``. ``estimate`` imitates ``$convert`` roughly, to try a conversion on a
    sample. It returns None for
    a value that cannot be converted, and is itself None if only MongoDB can tell.
    """

    name: Cast
    label: str
    type_name: str
    suggested_from: frozenset[str] = frozenset({"string"})
    suggested_to: frozenset[str] = frozenset()
    estimate: Callable[[Any], Any] | None = None


CASTS: dict[str, Conversion] = {
    conversion.name: conversion
    for conversion in (
        Conversion(
            name="string",
            label="text",
            type_name="string",
            suggested_from=NUMBERS | {"objectId", "bool"},
            suggested_to=frozenset({"string"}),
            estimate=_as_text,
        ),
        Conversion(name="int", label="int", type_name="int", estimate=_as_number),
        Conversion(
            name="long",
            label="long",
            type_name="long",
            suggested_to=frozenset({"int", "long"}),
            estimate=_as_number,
        ),
        Conversion(
            name="double",
            label="double",
            type_name="double",
            suggested_to=frozenset({"double", "decimal"}),
            estimate=_as_number,
        ),
        Conversion(
            name="objectId",
            label="ObjectId",
            type_name="ObjectId",
            suggested_to=frozenset({"objectId"}),
            estimate=_as_object_id,
        ),
        Conversion(name="date", label="date", type_name="date", suggested_to=frozenset({"date"})),
        Conversion(
            name="uuid",
            label="UUID",
            type_name="UUID",
            suggested_to=frozenset({"binData"}),
            estimate=_as_uuid("uuid"),
        ),
        Conversion(
            name="uuidJavaLegacy",
            label="old UUID of Java",
            type_name="old UUID of Java",
            estimate=_as_uuid("uuidJavaLegacy"),
        ),
        Conversion(
            name="uuidCsharpLegacy",
            label="old UUID of C#",
            type_name="old UUID of C#",
            estimate=_as_uuid("uuidCsharpLegacy"),
        ),
        Conversion(
            name="uuidPythonLegacy",
            label="old UUID of Python",
            type_name="old UUID of Python",
            estimate=_as_uuid("uuidPythonLegacy"),
        ),
    )
}


def cast_to(local: str, foreign: str) -> Cast | None:
    """The conversion to suggest for keys of these two BSON types, or None."""
    suggested = (each for each in CASTS.values() if local in each.suggested_from and foreign in each.suggested_to)
    return next((each.name for each in suggested), None)

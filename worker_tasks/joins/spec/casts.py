"""The conversions of a left key, one row each, and when to suggest it. Pure."""

from dataclasses import dataclass
from typing import Literal

from bson import UuidRepresentation

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


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A BSON type that a left key can be converted to.

    ``name`` is its alias in MongoDB's ``$convert``, unless it is a UUID; ``label`` its text in a list of choices,
    ``type_name`` the usual spelling of the type. It is suggested for a left key of a type in ``suggested_from`` if the
    other key has a type in ``suggested_to``.
    """

    name: Cast
    label: str
    type_name: str
    suggested_from: frozenset[str] = frozenset({"string"})
    suggested_to: frozenset[str] = frozenset()


CASTS: dict[str, Conversion] = {
    conversion.name: conversion
    for conversion in (
        Conversion(
            name="string",
            label="text",
            type_name="string",
            suggested_from=NUMBERS | {"objectId", "bool"},
            suggested_to=frozenset({"string"}),
        ),
        Conversion(name="int", label="int", type_name="int"),
        Conversion(
            name="long",
            label="long",
            type_name="long",
            suggested_to=frozenset({"int", "long"}),
        ),
        Conversion(
            name="double",
            label="double",
            type_name="double",
            suggested_to=frozenset({"double", "decimal"}),
        ),
        Conversion(
            name="objectId",
            label="ObjectId",
            type_name="ObjectId",
            suggested_to=frozenset({"objectId"}),
        ),
        Conversion(name="date", label="date", type_name="date", suggested_to=frozenset({"date"})),
        Conversion(
            name="uuid",
            label="UUID",
            type_name="UUID",
            suggested_to=frozenset({"binData"}),
        ),
        Conversion(
            name="uuidJavaLegacy",
            label="old UUID of Java",
            type_name="old UUID of Java",
            suggested_to=frozenset({"binData"}),
        ),
        Conversion(
            name="uuidCsharpLegacy",
            label="old UUID of C#",
            type_name="old UUID of C#",
            suggested_to=frozenset({"binData"}),
        ),
        Conversion(
            name="uuidPythonLegacy",
            label="old UUID of Python",
            type_name="old UUID of Python",
            suggested_to=frozenset({"binData"}),
        ),
    )
}


def casts_to(local: str, foreign: str) -> list[Cast]:
    """The conversions to try for keys of these two BSON types, the likeliest first.

    A conversion to a UUID applies to both sides.
    """
    if (local, foreign) == ("binData", "string"):
        local, foreign = foreign, local
    return [each.name for each in CASTS.values() if local in each.suggested_from and foreign in each.suggested_to]

"""The conversions of a left key, one row each: when to suggest it, and an estimate of its result. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bson import ObjectId

from worker_tasks.joins.spec.bson_types import NUMBERS

#: Repeats the names in the table, because type checkers cannot compute a type. A test compares the two.
Cast = Literal["string", "int", "long", "double", "objectId", "date"]

_HEXADECIMAL_ID = re.compile(r"[0-9a-fA-F]{24}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def _as_object_id(value: Any) -> ObjectId | None:
    return ObjectId(value) if isinstance(value, str) and _HEXADECIMAL_ID.fullmatch(value) else None


def _as_text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _as_number(value: Any) -> float | None:
    text = str(value)
    return float(text) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A BSON type that a left key can be converted to.

    ``name`` is its alias in MongoDB's ``$convert``, ``label`` its text in a list of choices, ``type_name`` the usual
    spelling of the type. It is suggested for a left key of a type in ``suggested_from`` if the other key has a type in
    ``suggested_to``. ``estimate`` imitates ``$convert`` roughly, to try a conversion on a sample. It returns None for
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
    )
}


def cast_to(local: str, foreign: str) -> Cast | None:
    """The conversion to suggest for keys of these two BSON types, or None."""
    suggested = (each for each in CASTS.values() if local in each.suggested_from and foreign in each.suggested_to)
    return next((each.name for each in suggested), None)

"""The BSON types, one row each: the Python types that hold them, and their names for people. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

#: The bracket of all number types, because MongoDB matches equal numbers whatever their types.
NUMBER = "number"
#: Any type that is not in the table.
OTHER = "other"


@dataclass(frozen=True)
class BsonType:
    """One BSON type.

    ``name`` is its alias in MongoDB's ``$type``. ``label`` names one value for people, ``plural`` several. ``python``
    lists the types to which pymongo decodes it.
    """

    name: str
    label: str
    plural: str
    python: tuple[type, ...] = ()
    is_number: bool = False


BSON_TYPES: dict[str, BsonType] = {
    bson_type.name: bson_type
    for bson_type in (
        BsonType("string", "text", "text", (str,)),
        BsonType("bool", "true or false", "true or false", (bool,)),
        BsonType("int", "int", "numbers", (int,), is_number=True),
        BsonType("long", "long", "numbers", (Int64,), is_number=True),
        BsonType("double", "double", "numbers", (float,), is_number=True),
        BsonType("decimal", "decimal", "numbers", (Decimal128,), is_number=True),
        BsonType(NUMBER, "number", "numbers"),
        BsonType("objectId", "ObjectId", "ObjectIds", (ObjectId,)),
        BsonType("date", "date", "dates", (datetime, DatetimeMS)),
        BsonType("object", "document", "documents", (dict,)),
        BsonType("array", "list", "lists", (list,)),
        BsonType("null", "null", "null", (type(None),)),
        BsonType("binData", "binary", "binary data", (Binary, bytes)),
        BsonType("regex", "regex", "regex", (Regex,)),
        BsonType("timestamp", "timestamp", "timestamps", (Timestamp,)),
        BsonType("minKey", "minKey", "minKey"),
        BsonType("maxKey", "maxKey", "maxKey"),
    )
}

NUMBERS = frozenset(name for name, bson_type in BSON_TYPES.items() if bson_type.is_number)

_BY_PYTHON = {python: name for name, bson_type in BSON_TYPES.items() for python in bson_type.python}


def type_of(value: Any) -> str:
    """The name of a value's BSON type, or ``other`` if the table lacks it."""
    return _BY_PYTHON.get(type(value), OTHER)


def type_bracket(type_name: str) -> str:
    """The group of types whose values can be equal: one group for all numbers, otherwise the type itself."""
    return NUMBER if type_name in NUMBERS else type_name


def type_label(type_name: str) -> str:
    """The name of one value of this type, for people."""
    bson_type = BSON_TYPES.get(type_name)
    return type_name if bson_type is None else bson_type.label


def type_label_plural(type_name: str) -> str:
    """The name of several values of this type, for people."""
    bson_type = BSON_TYPES.get(type_name)
    return type_name if bson_type is None else bson_type.plural

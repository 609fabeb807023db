"""The BSON types, one row each: which values they hold, which of them match, how people call them. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

#: Stands for all types of numbers: a number matches an equal one of any type.
NUMBER = "number"
#: Stands for all types that are not in the table.
OTHER = "other"


@dataclass(frozen=True)
class BsonType:
    """``name`` is the one that MongoDB's ``$type`` takes, ``words`` what people call one value, ``plural`` several.

    ``python`` holds the types that pymongo decodes it to.
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
    """The name of a value's BSON type; ``other`` where it is a rare one."""
    return _BY_PYTHON.get(type(value), OTHER)


def type_bracket(type_name: str) -> str:
    """The name that types share whose values can match."""
    return NUMBER if type_name in NUMBERS else type_name


def type_label(type_name: str) -> str:
    """What people call one value of this type."""
    found = BSON_TYPES.get(type_name)
    return type_name if found is None else found.label


def type_label_plural(type_name: str) -> str:
    """What people call several values of this type."""
    found = BSON_TYPES.get(type_name)
    return type_name if found is None else found.plural

"""An aggregation as it is typed into mongosh or pasted into Compass. Pure."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

INDENT = "  "
#: Characters of a value that stays on one line.
LINE_LENGTH = 100
#: Whole numbers beyond this one are rounded by JavaScript.
MAX_EXACT = 2**53


def aggregate(database: str, collection: str, pipeline: list[dict[str, Any]]) -> str:
    """``db.getSiblingDB("shop").getCollection("users").aggregate([…])``: what is sent, all of it."""
    source = f"db.getSiblingDB({json.dumps(database)}).getCollection({json.dumps(collection)})"
    return f"{source}.aggregate({text_of(pipeline)}, {{ allowDiskUse: true }})"


def create_index(collection: str, paths: list[str]) -> str:
    """The command that makes an index on these fields."""
    keys = ", ".join(f"{path!r}: 1" for path in paths)
    is_plain = collection.isascii() and collection.isidentifier()
    named = f"db.{collection}" if is_plain else f"db.getCollection({json.dumps(collection)})"
    return f"{named}.createIndex({{{keys}}})"


def text_of(value: Any, indent: str = "") -> str:
    """A value of BSON as JavaScript."""
    flat = _flat(value)
    if not isinstance(value, dict | list) or len(flat) + len(indent) <= LINE_LENGTH:
        return flat
    inner = indent + INDENT
    if isinstance(value, list):
        parts = [text_of(each, inner) for each in value]
        opening, closing = "[", "]"
    else:
        parts = [f"{_name(name)}: {text_of(each, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    lines = ",\n".join(f"{inner}{part}" for part in parts)
    return f"{opening}\n{lines}\n{indent}{closing}"


def _flat(value: Any) -> str:
    match value:
        case dict():
            return (
                "{ " + ", ".join(f"{_name(name)}: {_flat(each)}" for name, each in value.items()) + " }"
                if value
                else "{}"
            )
        case list() | tuple():
            return f"[{', '.join(map(_flat, value))}]"
        case ObjectId():
            return f'ObjectId("{value}")'
        case datetime():
            # pymongo's are in UTC, also where they do not say so.
            value = value.replace(tzinfo=UTC) if value.tzinfo is None else value
            return f'ISODate("{value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}")'
        case DatetimeMS():
            return f"new Date({int(value)})"
        case Decimal128():
            return f'NumberDecimal("{value}")'
        case bool():
            return json.dumps(value)
        case int() if isinstance(value, Int64) or abs(value) > MAX_EXACT:
            return f'NumberLong("{value}")'
        case Binary() | bytes():
            return f'BinData({getattr(value, "subtype", 0)}, "{_base64(value)}")'
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _name(name: str) -> str:
    bare = name.removeprefix("$").replace("_", "a")
    return name if bare.isascii() and bare.isidentifier() else json.dumps(name, ensure_ascii=False)

"""Aggregations and index commands as text for mongosh or Compass. Pure."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

INDENT = "  "
#: A value with more characters than this takes several lines.
LINE_LENGTH = 100
#: JavaScript rounds whole numbers beyond this one.
MAX_EXACT = 2**53


def aggregate(database: str, collection: str, pipeline: list[dict[str, Any]]) -> str:
    """The complete command: ``db.getSiblingDB("shop").getCollection("users").aggregate([…])``."""
    source = f"db.getSiblingDB({json.dumps(database)}).getCollection({json.dumps(collection)})"
    return f"{source}.aggregate({to_javascript(pipeline)}, {{ allowDiskUse: true }})"


def create_index(collection: str, paths: list[str]) -> str:
    """The command that creates an index on these fields."""
    keys = ", ".join(f"{path!r}: 1" for path in paths)
    is_plain = collection.isascii() and collection.isidentifier()
    source = f"db.{collection}" if is_plain else f"db.getCollection({json.dumps(collection)})"
    return f"{source}.createIndex({{{keys}}})"


def to_javascript(value: Any, indent: str = "") -> str:
    """A BSON value as JavaScript, broken into lines indented from ``indent`` if it is long."""
    line = _on_one_line(value)
    if not isinstance(value, dict | list) or len(line) + len(indent) <= LINE_LENGTH:
        return line
    inner = indent + INDENT
    if isinstance(value, list):
        parts = [to_javascript(each, inner) for each in value]
        opening, closing = "[", "]"
    else:
        parts = [f"{_property_name(name)}: {to_javascript(each, inner)}" for name, each in value.items()]
        opening, closing = "{", "}"
    lines = ",\n".join(f"{inner}{part}" for part in parts)
    return f"{opening}\n{lines}\n{indent}{closing}"


def _on_one_line(value: Any) -> str:
    match value:
        case dict():
            fields = ", ".join(f"{_property_name(name)}: {_on_one_line(each)}" for name, each in value.items())
            return f"{{ {fields} }}" if value else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_on_one_line, value))}]"
        case ObjectId():
            return f'ObjectId("{value}")'
        case datetime():
            # pymongo decodes dates in UTC; naive ones are in UTC as well.
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


def _property_name(name: str) -> str:
    # JavaScript allows a leading $, and a _ anywhere, even before a digit.
    identifier = name.removeprefix("$").replace("_", "a")
    return name if identifier.isascii() and identifier.isidentifier() else json.dumps(name, ensure_ascii=False)

"""Values of MongoDB's types in a result: their forms in relaxed Extended JSON, checked strictly. Pure: no I/O.

A document may hold ``{"$date": "yesterday"}`` as data. Only objects of an exact form stand for a value of a type; all
others are documents.
"""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

#: Regular expressions, which Python and DuckDB take alike.
OID = "[0-9a-f]{24}"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
INTEGER = "-?[0-9]{1,19}"
NUMBER = r"NaN|-?Infinity|[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
INSTANT = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?"
    "(Z|[+-][01][0-9]:?[0-5][0-9])"
)
#: The binary values that are UUIDs: 16 bytes of subtype 4, or of the older subtype 3, whose byte order is unknown.
UUID_BASE64 = "[A-Za-z0-9+/]{22}=="
UUID_SUBTYPES, OLD_UUID_SUBTYPES = ("4", "04"), ("3", "03")
_UUID_GROUPS = (8, 12, 16, 20)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_instant(content: Any) -> bool:
    """Whether the content of a ``$date`` is a text that names an instant."""
    if not isinstance(content, str) or not re.fullmatch(INSTANT, content):
        return False
    try:
        datetime.fromisoformat(content)
    except ValueError:
        return False
    return True


def plain_value(value: Any) -> Any:
    """The text of an object that stands for a value of MongoDB's types; any other value itself."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((wrapper, content),) = value.items()
    text = _PLAIN[wrapper](content) if wrapper in _PLAIN else None
    return value if text is None else text


def is_typed(value: Any) -> bool:
    """Whether a value is an object that stands for a value of MongoDB's types."""
    return plain_value(value) is not value


def is_one_value(document: dict[str, Any]) -> bool:
    """Whether an object has the shape of Extended JSON, so that its keys are not fields to show one by one."""
    if document.keys() == {"$code", "$scope"}:
        return True
    return len(document) == 1 and next(iter(document)).startswith("$")


def _matching(pattern: str) -> Callable[[Any], str | None]:
    return lambda content: content if isinstance(content, str) and re.fullmatch(pattern, content) else None


def _date_text(content: Any) -> str | None:
    if is_instant(content):
        return _in_utc(content)
    # Before 1970 and after 9999, dates are milliseconds.
    if isinstance(content, dict) and content.keys() == {"$numberLong"}:
        content = content["$numberLong"]
        if not isinstance(content, str) or not re.fullmatch(INTEGER, content):
            return None
    elif isinstance(content, bool) or not isinstance(content, int):
        return None
    try:
        return _iso(_EPOCH + timedelta(milliseconds=int(content)))
    except OverflowError:
        return None


def _in_utc(text: str) -> str:
    if text.endswith("Z"):
        return text
    try:
        return _iso(datetime.fromisoformat(text).astimezone(UTC))
    except OverflowError:
        return text


def _iso(instant: datetime) -> str:
    text = instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _uuid_text(content: Any) -> str | None:
    if not isinstance(content, dict) or content.keys() != {"base64", "subType"}:
        return None
    text, subtype = content["base64"], content["subType"]
    if not isinstance(text, str) or not re.fullmatch(UUID_BASE64, text):
        return None
    if subtype not in {*UUID_SUBTYPES, *OLD_UUID_SUBTYPES}:
        return None
    digits = base64.b64decode(text).hex()
    if subtype in OLD_UUID_SUBTYPES:
        return digits
    borders = (0, *_UUID_GROUPS, len(digits))
    return "-".join(digits[start:end] for start, end in pairwise(borders))


_PLAIN: Mapping[str, Callable[[Any], str | None]] = {
    "$date": _date_text,
    "$oid": _matching(OID),
    "$uuid": _matching(UUID),
    "$binary": _uuid_text,
    "$numberDecimal": _matching(NUMBER),
    "$numberDouble": _matching(NUMBER),
    "$numberLong": _matching(INTEGER),
    "$symbol": lambda content: content if isinstance(content, str) else None,
}

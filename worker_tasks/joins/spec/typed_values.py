"""Values beyond plain JSON, as MongoDB Extended JSON v2 writes them, canonical or relaxed. Pure.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

from typing import Any

from bson import json_util
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.json_util import JSONMode, JSONOptions

#: The longest text inside a typed value: a binary value of about 3 KB.
MAX_TEXT = 4_096

#: The key of each typed value, and the form of its content in words.
FORMS = {
    "$oid": "write 24 hexadecimal digits",
    "$date": 'write an instant such as "2013-01-31T18:30:00Z", or {"$numberLong": "…"}: milliseconds since 1970',
    "$numberDecimal": 'write a decimal number as text, such as "1.50"',
    "$numberLong": 'write a whole number of at most 64 bits as text, such as "42"',
    "$numberInt": 'write a whole number as text, such as "42"',
    "$numberDouble": 'write a number as text, such as "1.5", "NaN" or "-Infinity"',
    "$uuid": 'write 32 hexadecimal digits, such as "00112233-4455-6677-8899-aabbccddeeff"',
    "$binary": 'write {"base64": "…", "subType": "04"}, where subType has two hexadecimal digits',
}

# Dates that Python cannot hold stay milliseconds.
_OPTIONS = JSONOptions(json_mode=JSONMode.RELAXED, datetime_conversion=DatetimeConversion.DATETIME_AUTO, tz_aware=True)
_MILLISECONDS = "$numberLong"
_WHOLE_NUMBERS = frozenset({"$numberLong", "$numberInt"})


def is_typed(value: Any) -> bool:
    """Whether a JSON value is an object that stands for one value."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in FORMS


def to_bson(value: dict[str, Any]) -> Any:
    """The BSON value that a typed value stands for.

    Raises:
        ValueError: the content is malformed; the message is for people.
    """
    ((name, content),) = value.items()
    try:
        return _parse(name, content)
    except (BSONError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        raise ValueError(f"is no {name}: {FORMS[name]}.") from None


def _parse(name: str, content: Any) -> Any:
    if name == "$date" and is_typed(content):
        if _MILLISECONDS not in content:
            raise ValueError
        content = _parse(_MILLISECONDS, content[_MILLISECONDS])
    _require_short(content)
    parsed = json_util.object_hook({name: content}, _OPTIONS)
    if isinstance(parsed, dict):
        raise TypeError
    if name in _WHOLE_NUMBERS and not -(2**63) <= parsed < 2**63:
        raise OverflowError
    return parsed


def _require_short(content: Any) -> None:
    texts = content.values() if isinstance(content, dict) else [content]
    if any(isinstance(text, str) and len(text) > MAX_TEXT for text in texts):
        raise ValueError

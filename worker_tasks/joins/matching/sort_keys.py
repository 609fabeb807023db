"""Sort keys: byte strings whose ascending order is the order of MongoDB's ``$sort``.

No sort key is the beginning of another one, so that the keys of several paths can simply be joined.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from bson import SON, Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from worker_tasks.joins.matching.canonical_keys import milliseconds
from worker_tasks.joins.matching.paths import Part, as_document, path_parts

_EMPTY = object()
_END = b"\x00"
_COMPLEMENT = bytes(range(255, -1, -1))

# The order of the types. An empty list precedes null. The end of a document or list precedes every element.
_TYPES = [bytes([number]) for number in range(1, 17)]
_MIN, _EMPTY_LIST, _NULL, _NUMBER, _TEXT, _DOCUMENT, _LIST, _BINARY, *_REST = _TYPES
_OBJECT_ID, _BOOL, _DATE, _TIMESTAMP, _REGEX, _CODE, _SCOPED_CODE, _MAX = _REST

_NAN, _NEGATIVE_INFINITY, _NEGATIVE, _ZERO, _POSITIVE, _INFINITY = [bytes([number]) for number in range(6)]
# Two digits in a byte. No digit is 0, which ends a number.
_PACKED = str.maketrans("0123456789", "123456789a")
_EXPONENT_BIAS = 0x8000

_OLD_BINARY, _UUID = 2, 4
_FLAGS = {re.IGNORECASE: "i", re.LOCALE: "l", re.MULTILINE: "m", re.DOTALL: "s", re.UNICODE: "u", re.VERBOSE: "x"}


def sort_key(document: Mapping[str, Any], path: str, direction: int) -> bytes:
    """The key that sorts a document by a path.

    A list counts as its least element in ascending order and as its greatest in descending order.

    Args:
        direction: 1 for ascending, -1 for descending.
    """
    return sort_key_reader(path, direction)(document)


def sort_key_reader(path: str, direction: int) -> Callable[[Mapping[str, Any]], bytes]:
    """``sort_key`` for this path and direction."""
    parts = path_parts(path)

    def ascending(document: Mapping[str, Any]) -> bytes:
        return min(map(_encoded, _reached(document, parts, 0)))

    def descending(document: Mapping[str, Any]) -> bytes:
        return max(map(_encoded, _reached(document, parts, 0))).translate(_COMPLEMENT)

    return ascending if direction == 1 else descending


def _reached(value: Any, parts: tuple[Part, ...], index: int, *, by_place: bool = False) -> Iterator[Any]:
    """The values that a path reaches, at least one; null where there is none."""
    if index == len(parts):
        if not isinstance(value, list):
            yield value
        elif by_place and value:
            # A list inside a list, addressed by its place, counts as a whole.
            yield value
        else:
            yield from value or [_EMPTY]
    elif isinstance(value, list):
        place = parts[index].place
        if place is not None and place < len(value):
            yield from _reached(value[place], parts, index + 1, by_place=True)
            return
        for element in value or [None]:
            yield from _inside(element, parts, index)
    else:
        yield from _inside(value, parts, index)


def _inside(value: Any, parts: tuple[Part, ...], index: int) -> Iterator[Any]:
    document = as_document(value)
    if document is None:
        yield None
    else:
        yield from _reached(document.get(parts[index].name), parts, index + 1)


def _encoded(value: Any) -> bytes:
    if value is _EMPTY:
        return _EMPTY_LIST
    kind = type(value)
    encoder = _ENCODERS.get(kind) or next((_ENCODERS[base] for base in kind.__mro__ if base in _ENCODERS), None)
    if encoder is None:
        raise TypeError(f"BSON has no type for {kind.__name__}")
    return encoder(value)


def _text_bytes(text: str) -> bytes:
    return text.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def _int(value: int) -> bytes:
    return _number(value < 0, str(abs(value)), None) if value else _NUMBER + _ZERO


def _float(value: float) -> bytes:
    return _int(int(value)) if value.is_integer() else _decimal(Decimal(value))


def _decimal(value: Decimal) -> bytes:
    if value.is_nan():
        return _NUMBER + _NAN
    if value.is_infinite():
        return _NUMBER + (_NEGATIVE_INFINITY if value < 0 else _INFINITY)
    if not value:
        return _NUMBER + _ZERO
    digits = f"{value.copy_abs():E}".partition("E")[0].replace(".", "")
    return _number(value < 0, digits, value.adjusted())


def _number(negative: bool, digits: str, exponent: int | None) -> bytes:
    """A number other than zero by its exponent and digits, which compare like texts."""
    if exponent is None:
        exponent = len(digits) - 1
    packed = digits.rstrip("0").translate(_PACKED)
    packed += "00" if len(packed) % 2 == 0 else "0"
    size = (exponent + _EXPONENT_BIAS).to_bytes(2) + bytes.fromhex(packed)
    return _NUMBER + (_NEGATIVE + size.translate(_COMPLEMENT) if negative else _POSITIVE + size)


def _binary(value: bytes, subtype: int) -> bytes:
    if subtype == _OLD_BINARY:  # stored with its length in front
        value = len(value).to_bytes(4, "little") + value
    return _BINARY + len(value).to_bytes(4) + bytes([subtype]) + value


def _signed(value: int) -> bytes:
    return (value + 2**63).to_bytes(8)


def _regex(value: Regex[Any]) -> bytes:
    flags = "".join(letter for flag, letter in _FLAGS.items() if value.flags & flag)
    return _REGEX + _text_bytes(value.pattern) + _text_bytes(flags)


def _code(value: Code) -> bytes:
    if value.scope is None:
        return _CODE + _text_bytes(value)
    return _SCOPED_CODE + _text_bytes(value) + _document(value.scope)


def _document(value: Mapping[str, Any]) -> bytes:
    """MongoDB compares documents field by field: first the types, then the names, then the values."""
    fields = []
    for name, inner in value.items():
        key = _encoded(inner)
        fields.append(key[:1] + name.encode() + _END + key[1:])
    return _DOCUMENT + b"".join(fields) + _END


def _list(value: list[Any]) -> bytes:
    return _LIST + b"".join(map(_encoded, value)) + _END


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    MinKey: lambda _: _MIN,
    type(None): lambda _: _NULL,
    int: _int,
    Int64: _int,
    float: _float,
    Decimal128: lambda value: _decimal(value.to_decimal()),
    str: lambda value: _TEXT + _text_bytes(value),
    dict: _document,
    SON: _document,
    DBRef: lambda value: _document(value.as_doc()),
    list: _list,
    bytes: lambda value: _binary(value, 0),
    Binary: lambda value: _binary(value, value.subtype),
    UUID: lambda value: _binary(value.bytes, _UUID),
    ObjectId: lambda value: _OBJECT_ID + value.binary,
    bool: lambda value: _BOOL + bytes([value]),
    datetime: lambda value: _DATE + _signed(milliseconds(value)),
    DatetimeMS: lambda value: _DATE + _signed(int(value)),
    Timestamp: lambda value: _TIMESTAMP + value.time.to_bytes(4) + value.inc.to_bytes(4),
    Regex: _regex,
    Code: _code,
    MaxKey: lambda _: _MAX,
}

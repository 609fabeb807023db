"""Canonical keys: one string per BSON value, equal exactly when MongoDB's ``$eq`` treats the values as equal.

A key starts with a tag of its kind, so that values of different kinds never share a key. Everything of variable length
inside a document or list is preceded by its length.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from bson import SON, Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

#: Separates the keys of several pairs; no canonical key contains it.
SEPARATOR = "\x1f"
#: Stands at the start of a key whose text contained a separator.
ESCAPE = "\x1e"

#: The key of a whole number consists of this tag and its digits.
NUMBER_TAG = "n"
LIST_TAG = "["

_NULL = "0"
_NAN = "N"
_NOTHING = frozenset({_NULL, _NAN})
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive datetimes are in UTC here
_AWARE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Decimal128 has 34 digits and exponents of up to 6144.
_EXACT = Context(prec=34, Emin=-10_000, Emax=10_000)
_UUID_SUBTYPE = 4


def canonical(value: Any) -> str | None:
    """The key of a value; None for null and NaN, which match nothing.

    Inside documents and lists, null and NaN are ordinary values.

    Raises:
        TypeError: BSON has no such type.
    """
    kind = type(value)
    key = (_ENCODERS.get(kind) or _inherited(kind))(value)
    if SEPARATOR in key:
        return ESCAPE + key.replace(ESCAPE, f"{ESCAPE}0").replace(SEPARATOR, f"{ESCAPE}1")
    return None if key in _NOTHING else key


def milliseconds(value: datetime) -> int:
    """The milliseconds since 1970. A datetime without a time zone is in UTC."""
    since = value - (_EPOCH if value.tzinfo is None else _AWARE_EPOCH)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def plain_digits(number: Decimal) -> str | None:
    """The digits of a whole number without an exponent; None for a number with a fraction."""
    if not number:
        return "0"
    normal = _EXACT.normalize(number)
    return f"{normal:f}" if normal == normal.to_integral_value() else None


def _encoded(value: Any) -> str:
    kind = type(value)
    return (_ENCODERS.get(kind) or _inherited(kind))(value)


def _inherited(kind: type) -> Callable[[Any], str]:
    encoder = next((_ENCODERS[base] for base in kind.__mro__ if base in _ENCODERS), None)
    if encoder is None:
        raise TypeError(f"BSON has no type for {kind.__name__}")
    return encoder


def _null(_: None) -> str:
    return _NULL


def _text(value: str) -> str:
    return "s" + value


def _bool(value: bool) -> str:
    return "?1" if value else "?0"


def _int(value: int) -> str:
    return f"n{value:d}"


def _float(value: float) -> str:
    if value.is_integer():
        return f"n{int(value)}"
    return f"n{value!r}" if value == value else _NAN  # noqa: PLR0124 - False for NaN alone


def _decimal(value: Decimal128) -> str:
    number = value.to_decimal()
    if number.is_nan():
        return _NAN
    if number.is_infinite():
        return _float(float(number))
    if (digits := plain_digits(number)) is not None:
        return f"n{digits}"
    # A double with exactly this value has the same key; no other double does.
    as_float = float(number)
    return f"n{as_float!r}" if Decimal(as_float) == number else f"d{_EXACT.normalize(number)}"


def _object_id(value: ObjectId) -> str:
    return f"o{value}"


def _datetime(value: datetime) -> str:
    return f"t{milliseconds(value)}"


def _datetime_ms(value: DatetimeMS) -> str:
    return f"t{int(value)}"


def _timestamp(value: Timestamp) -> str:
    return f"T{value.time}.{value.inc}"


def _bytes(value: bytes) -> str:
    return f"b0.{value.hex()}"


def _binary(value: Binary) -> str:
    return f"b{value.subtype}.{value.hex()}"


def _uuid(value: UUID) -> str:
    return f"b{_UUID_SUBTYPE}.{value.hex}"


def _regex(value: Regex[Any]) -> str:
    return f"r{value.flags}.{value.pattern}"


def _code(value: Code) -> str:
    if value.scope is None:
        return f"j{value!s}"
    return f"J{len(value)}:{value!s}{_document(value.scope)}"


def _document(value: Mapping[str, Any]) -> str:
    fields = []
    for name, inner in value.items():
        key = _encoded(inner)
        fields.append(f"{len(name)}:{name}{len(key)}:{key}")
    return "{" + "".join(fields)


def _dbref(value: DBRef) -> str:
    return _document(value.as_doc())


def list_element(value: Any) -> str:
    """The text of a value in the key of a list, which is ``LIST_TAG`` followed by the texts of its elements."""
    key = _encoded(value)
    return f"{len(key)}:{key}"


def _list(value: list[Any]) -> str:
    return LIST_TAG + "".join(map(list_element, value))


def _min_key(_: MinKey) -> str:
    return "-"


def _max_key(_: MaxKey) -> str:
    return "+"


_ENCODERS: dict[type, Callable[[Any], str]] = {
    type(None): _null,
    str: _text,
    bool: _bool,
    int: _int,
    Int64: _int,
    float: _float,
    Decimal128: _decimal,
    ObjectId: _object_id,
    datetime: _datetime,
    DatetimeMS: _datetime_ms,
    Timestamp: _timestamp,
    bytes: _bytes,
    Binary: _binary,
    UUID: _uuid,
    Regex: _regex,
    Code: _code,
    dict: _document,
    SON: _document,
    DBRef: _dbref,
    list: _list,
    MinKey: _min_key,
    MaxKey: _max_key,
}

"""Converts key values before they are compared.

The casts follow MongoDB's ``$convert`` with null for every error, with these exceptions:

- ``int`` and ``long`` accept only whole numbers, and no booleans.
- A whole double or Decimal128 becomes its digits as text, never an exponent; other doubles become the shortest text
  that reads back as the same number. NaN has no text.
- ``date`` reads ISO 8601 texts only; MongoDB also reads forms such as "March 20 2018".
- MongoDB has no cast to a UUID.
"""

import math
import re
import struct
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp
from bson.binary import UuidRepresentation

from worker_tasks.joins.matching.canonical_keys import milliseconds, plain_digits
from worker_tasks.joins.spec.folds import FOLDS, Fold

Converter = Callable[[Any], Any]

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DATE = re.compile(
    r"\s*(?P<moment>(?P<year>\d{4})(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2}))?|(?P<compact>\d{4}))"
    r"(?:(?:T|\s+)(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2}))?)?)(?:\.(?P<fraction>\d+))?"
    r"\s*(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d{1,2})(?::?(?P<zone_minute>\d{2}))?)?\s*",
    re.ASCII | re.IGNORECASE,
)
_WITH_SECONDS = len("2024-01-31T12:30:59")

# Far more than any integer in range has; Python refuses to read several thousand.
_MOST_DIGITS = 1000
_LEAST_DOUBLE = sys.float_info.min
_INT_BOUND = 2**31
_LONG_BOUND = 2**63
_CLOCK = ("hour", "minute", "second")
# The Gregorian calendar repeats itself after 400 years. Python has no year 0, but MongoDB has.
_CALENDAR_YEARS = 400
_CALENDAR = 146_097 * 86_400_000
_YEAR_0, _YEAR_1, _YEAR_10000 = -62_167_219_200_000, -62_135_596_800_000, 253_402_300_800_000


def convert(value: Any, cast: str | None, fold: Fold | None = None) -> Any:
    """The value converted and, if it is then a text, folded; None if it cannot be converted.

    Args:
        cast: the name of a conversion; None keeps the value.
        fold: "case" ignores upper and lower case, "blanks" ignores blanks around a text and the length of those
            inside, "both" ignores both.

    Raises:
        KeyError: there is no such cast or fold.
    """
    converter = make_converter(cast, fold)
    return value if converter is None else converter(value)


def make_converter(cast: str | None, fold: Fold | None) -> Converter | None:
    """``convert`` for this cast and fold, or None if there is nothing to do."""
    if fold is None:
        return None if cast is None else _CASTS[cast]
    fold_text = FOLDS[fold].apply
    to_type = _CASTS[cast] if cast is not None else _unchanged

    def converted(value: Any) -> Any:
        value = to_type(value)
        return fold_text(value) if type(value) is str else value

    return converted


def _unchanged(value: Any) -> Any:
    return value


def _as_text(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return value
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is Int64:
        return f"{value:d}"
    if kind is float:
        return _text_of_float(value)
    if kind is Decimal128:
        return _text_of_decimal(value)
    if kind is ObjectId:
        return str(value)
    at = _date_of(value)
    return None if at is None else _text_of_date(at)


def _text_of_float(value: float) -> str | None:
    if value.is_integer():
        return str(int(value))
    if math.isfinite(value):
        return repr(value)
    return None if math.isnan(value) else _infinity(value > 0)


def _text_of_decimal(value: Decimal128) -> str | None:
    number = value.to_decimal()
    if number.is_finite():
        return plain_digits(number) or str(value)
    return None if number.is_nan() else _infinity(number > 0)


def _infinity(positive: bool) -> str:
    return "Infinity" if positive else "-Infinity"


def _text_of_date(at: int) -> str | None:
    if not _YEAR_0 <= at < _YEAR_10000:
        return None
    if at < _YEAR_1:
        later = _text_of_date(at + _CALENDAR)
        return later and f"0000{later[4:]}"
    moment = DatetimeMS(at).as_datetime()
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _as_int(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and -_INT_BOUND <= number < _INT_BOUND else None


def _as_long(value: Any) -> int | None:
    number = _date_of(value)
    if number is None:
        number = _whole(value)
    return number if number is not None and -_LONG_BOUND <= number < _LONG_BOUND else None


def _whole(value: Any) -> int | None:
    kind = type(value)
    if kind is int or kind is Int64:
        return value
    if kind is float:
        return int(value) if value.is_integer() else None
    if kind is str:
        return int(value) if len(value) < _MOST_DIGITS and _WHOLE.fullmatch(value) else None
    if kind is Decimal128:
        number = value.to_decimal()
        digits = plain_digits(number) if number.is_finite() else None
        return int(digits) if digits is not None and len(digits) < _MOST_DIGITS else None
    return None


def _as_double(value: Any) -> float | None:
    kind = type(value)
    if kind is float:
        return value
    if kind is int or kind is Int64 or kind is bool:
        return float(value)
    if kind is Decimal128:
        return _float_of_decimal(value.to_decimal())
    if kind is str:
        if _NUMBER.fullmatch(value):
            return _float_of_text(value)
        return float(value) if _INFINITY.fullmatch(value) else None
    at = _date_of(value)
    return None if at is None else float(at)


def _float_of_decimal(number: Decimal) -> float | None:
    if number.is_nan():
        return None
    return float(number) if number.is_infinite() else _normal(float(number), is_zero=not number)


def _float_of_text(text: str) -> float | None:
    digits = text.lower().partition("e")[0]
    return _normal(float(text), is_zero=not digits.strip("+-0."))


def _normal(number: float, *, is_zero: bool) -> float | None:
    """The number unless it is beyond the range of doubles that have all their digits, which MongoDB refuses."""
    return number if is_zero or _LEAST_DOUBLE <= abs(number) < math.inf else None


def _as_object_id(value: Any) -> ObjectId | None:
    if type(value) is ObjectId:
        return value
    return ObjectId(value) if type(value) is str and _OBJECT_ID.fullmatch(value) else None


def _as_date(value: Any) -> DatetimeMS | None:
    at = _milliseconds_of(value)
    return DatetimeMS(at) if at is not None and -_LONG_BOUND <= at < _LONG_BOUND else None


def _milliseconds_of(value: Any) -> int | None:
    kind = type(value)
    if kind is Int64:
        return int(value)
    if kind is float:
        return int(value) if math.isfinite(value) else None
    if kind is Decimal128:
        number = value.to_decimal()
        return int(number) if number.is_finite() and number.adjusted() < _MOST_DIGITS else None
    if kind is ObjectId:
        return struct.unpack_from(">i", value.binary)[0] * 1000
    if kind is Timestamp:
        return value.time * 1000
    return _date_of_text(value) if kind is str else _date_of(value)


def _date_of(value: Any) -> int | None:
    kind = type(value)
    if kind is datetime:
        return milliseconds(value)
    return int(value) if kind is DatetimeMS else None


def _date_of_text(text: str) -> int | None:
    match = _DATE.fullmatch(text)
    if match is None or (match["fraction"] and len(match["moment"]) != _WITH_SECONDS):
        return None
    if match["sign"] and not (match["day"] or match["compact"]):  # a time zone that may as well be a day
        return None
    compact = match["compact"] or ""
    month, day = match["month"] or compact[:2], match["day"] or compact[2:] or "1"
    year = int(match["year"])
    try:
        hour, minute, second = (int(match[name] or 0) for name in _CLOCK)
        moment = datetime(year or _CALENDAR_YEARS, int(month), int(day), hour, minute, second)  # noqa: DTZ001 - in UTC
    except ValueError:
        return None
    zone_hour, zone_minute = int(match["zone_hour"] or 0), int(match["zone_minute"] or 0)
    if zone_hour > 24 or zone_minute >= 60:  # noqa: PLR2004 - as in MongoDB
        return None
    ahead = (zone_hour * 60 + zone_minute) * 60_000 * (-1 if match["sign"] == "-" else 1)
    at = milliseconds(moment) - ahead - (0 if year else _CALENDAR)
    microseconds = at * 1000 + int((match["fraction"] or "")[:6].ljust(6, "0"))
    # MongoDB rounds towards 1970.
    return microseconds // 1000 if microseconds >= 0 else -(-microseconds // 1000)


def _uuid_reader(representation: int | None) -> Converter:
    def read(value: Any) -> UUID | None:
        kind = type(value)
        if kind is str:
            text = value[1:-1] if value[:1] == "{" and value[-1:] == "}" else value
            return UUID(text) if _UUID.fullmatch(text) else None
        if kind is UUID:
            return value
        if kind is not Binary or len(value) != 16:  # noqa: PLR2004 - bytes of a UUID
            return None
        if value.subtype == 4:  # noqa: PLR2004 - UUIDs
            return value.as_uuid(UuidRepresentation.STANDARD)
        return value.as_uuid(representation) if value.subtype == 3 and representation is not None else None  # noqa: PLR2004

    return read


_UUID_CASTS: dict[str, Converter] = {
    "uuid": _uuid_reader(None),
    "uuidJavaLegacy": _uuid_reader(UuidRepresentation.JAVA_LEGACY),
    "uuidCsharpLegacy": _uuid_reader(UuidRepresentation.CSHARP_LEGACY),
    "uuidPythonLegacy": _uuid_reader(UuidRepresentation.PYTHON_LEGACY),
}
#: The casts that convert both sides of a pair; all others convert the left side only.
CASTS_OF_BOTH_SIDES = frozenset(_UUID_CASTS)

_CASTS: dict[str, Converter] = {
    "string": _as_text,
    "int": _as_int,
    "long": _as_long,
    "double": _as_double,
    "objectId": _as_object_id,
    "date": _as_date,
    **_UUID_CASTS,
}

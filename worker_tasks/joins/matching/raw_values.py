"""Values with a given canonical key, to ask MongoDB for the documents that have it."""

from collections.abc import Callable, Iterator
from decimal import Context, Decimal
from typing import Any

from bson import Binary, DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Timestamp

from worker_tasks.joins.matching.canonical_keys import ESCAPE, SEPARATOR

_LONG_BOUND = 2**63
_EXACT = Context(prec=34, Emin=-10_000, Emax=10_000)


def raw_value(key: str) -> Any:
    """A value that MongoDB's ``$eq`` treats as equal to every value with this canonical key.

    Raises:
        ValueError: the values are regular expressions or code, which MongoDB would not compare but run.
    """
    if key.startswith(ESCAPE):
        key = key[1:].replace(f"{ESCAPE}1", SEPARATOR).replace(f"{ESCAPE}0", ESCAPE)
    decoder = _DECODERS.get(key[:1])
    if decoder is None:
        raise ValueError("no value can be asked for by this key")
    return decoder(key[1:])


def _number(text: str) -> Any:
    if not text.lstrip("-").isdecimal():
        return float(text)
    number = Decimal(text)
    # Messages show whole numbers, which have no decimal point as integers.
    if -_LONG_BOUND <= number < _LONG_BOUND:
        return int(number)
    as_float = float(text)
    return as_float if number == Decimal(as_float) else Decimal128(_EXACT.normalize(number))


def _binary(text: str) -> Binary:
    subtype, _, digits = text.partition(".")
    return Binary(bytes.fromhex(digits), int(subtype))


def _timestamp(text: str) -> Timestamp:
    seconds, _, increment = text.partition(".")
    return Timestamp(int(seconds), int(increment))


def _document(text: str) -> dict[str, Any]:
    parts = _parts(text)
    return {name: raw_value(next(parts)) for name in parts}


def _list(text: str) -> list[Any]:
    return [raw_value(part) for part in _parts(text)]


def _parts(text: str) -> Iterator[str]:
    """The texts that each follow their length and a colon."""
    while text:
        length, _, rest = text.partition(":")
        yield rest[: int(length)]
        text = rest[int(length) :]


_DECODERS: dict[str, Callable[[str], Any]] = {
    "0": lambda _: None,
    "N": lambda _: float("nan"),
    "s": str,
    "?": lambda text: text == "1",
    "n": _number,
    "d": Decimal128,
    "o": ObjectId,
    "t": lambda text: DatetimeMS(int(text)),
    "T": _timestamp,
    "b": _binary,
    "{": _document,
    "[": _list,
    "-": lambda _: MinKey(),
    "+": lambda _: MaxKey(),
}

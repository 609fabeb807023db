"""Key expressions: what of a document takes part in matching, as SQL has it: null and missing match nothing."""

from typing import Any

from bson import Binary

from worker_tasks.joins.spec.casts import Cast
from worker_tasks.joins.spec.spec import KeyPair

Expression = Any

#: Stands where a key is null, missing or can not be converted. No document holds it, so it matches nothing; a null
#: in its place would match every null and every missing field of the other side.
UNMATCHABLE = Binary(b"dovetail: matches nothing", subtype=0x80)


def left_key(pair: KeyPair, *, elementwise: bool) -> Expression:
    """The left side's key.

    Args:
        elementwise: an array stands for each of its elements, as ``localField`` takes it; else for itself.
    """
    value = f"${pair.local}"
    if elementwise:
        return _any_element(_leaves(pair.local), pair.cast)
    return _or_nothing(_cast(value, pair.cast))


def whole_left_key(pair: KeyPair) -> Expression:
    """The left side's key as a whole; null or missing where it matches nothing."""
    return _cast(f"${pair.local}", pair.cast)


def matches_nothing(value: Expression) -> Expression:
    """Whether a key is null or missing."""
    return {"$in": [{"$type": value}, ["missing", "null", "undefined"]]}


def _leaves(path: str) -> Expression:
    """The value at a path; where the path leads through an array, the elements of all the values that it leads to."""
    parts = path.split(".")
    through = [{"$isArray": f"${'.'.join(parts[:length])}"} for length in range(1, len(parts))]
    if not through:
        return f"${path}"
    listed = {"$cond": [{"$isArray": "$$this"}, "$$this", ["$$this"]]}
    flat = {"$reduce": {"input": f"${path}", "initialValue": [], "in": {"$concatArrays": ["$$value", listed]}}}
    return {"$cond": [{"$or": through}, flat, f"${path}"]}


def _any_element(value: Expression, cast: Cast | None) -> Expression:
    elements = {
        "$filter": {
            "input": {"$map": {"input": "$$value", "in": _cast("$$this", cast)}} if cast else "$$value",
            "cond": {"$gt": ["$$this", None]},
        }
    }
    some = {
        "$let": {
            "vars": {"elements": elements},
            "in": {"$cond": [{"$eq": ["$$elements", []]}, _nothing(), "$$elements"]},
        }
    }
    one = _or_nothing(_cast("$$value", cast))
    return {"$let": {"vars": {"value": value}, "in": {"$cond": [{"$isArray": "$$value"}, some, one]}}}


def _cast(value: Expression, cast: Cast | None) -> Expression:
    if cast is None:
        return value
    return {"$convert": {"input": value, "to": cast, "onError": None, "onNull": None}}


def _or_nothing(value: Expression) -> Expression:
    return {"$ifNull": [value, _nothing()]}


def _nothing() -> Expression:
    return {"$literal": UNMATCHABLE}

"""Key expressions: the values of a document that take part in matching. Null, missing and NaN match nothing."""

from typing import Any

from bson import Binary

from worker_tasks.joins.spec.casts import Cast
from worker_tasks.joins.spec.spec import KeyPair

Expression = Any

NAN = float("nan")

#: Replaces a key that is null, missing, NaN or cannot be converted. No document holds it, so it matches nothing;
#: null would match every null and missing field of the other side.
UNMATCHABLE = Binary(b"dovetail: matches nothing", subtype=0x80)


def left_key(pair: KeyPair, *, elementwise: bool) -> Expression:
    """The left side's key, with ``UNMATCHABLE`` in place of null, missing and NaN.

    Args:
        elementwise: an array stands for each of its elements, as in ``localField``; otherwise for itself.
    """
    value = f"${pair.local}"
    if elementwise:
        return _any_element(_leaves(pair.local), pair.cast)
    return _or_unmatchable(_cast(value, pair.cast))


def _leaves(path: str) -> Expression:
    """The value at a path, or all values that the path reaches through an array, flattening any lists among them."""
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
            "cond": {"$and": [{"$gt": ["$$this", None]}, {"$ne": ["$$this", NAN]}]},
        }
    }
    some = {
        "$let": {
            "vars": {"elements": elements},
            "in": {"$cond": [{"$eq": ["$$elements", []]}, _unmatchable(), "$$elements"]},
        }
    }
    one = _or_unmatchable(_cast("$$value", cast))
    return {"$let": {"vars": {"value": value}, "in": {"$cond": [{"$isArray": "$$value"}, some, one]}}}


def _cast(value: Expression, cast: Cast | None) -> Expression:
    if cast is None:
        return value
    return {"$convert": {"input": value, "to": cast, "onError": None, "onNull": None}}


def _or_unmatchable(value: Expression) -> Expression:
    return {"$cond": [{"$eq": [value, NAN]}, _unmatchable(), {"$ifNull": [value, _unmatchable()]}]}


def _unmatchable() -> Expression:
    return {"$literal": UNMATCHABLE}

"""Filters of a join: an allow-list of MongoDB's query operators over plain or typed scalars.

The checks refuse by name all operators that execute code, write, or read other collections. Values are plain
JSON or typed: see ``typed_values``.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from worker_tasks.joins.spec import typed_values
from worker_tasks.joins.spec.bson_types import BSON_TYPES
from worker_tasks.joins.spec.names import path_error
from worker_tasks.joins.spec.operators import BY_MONGODB

MAX_DEPTH = 6
MAX_NODES = 50
MAX_CHOICES = 1_000
MAX_TEXT = 1_000

Filter = dict[str, Any]


class FilterError(ValueError):
    """A filter breaks a rule: ``path`` is the place inside it, ``reason`` the message."""

    def __init__(self, path: str, reason: str):
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}" if path else reason)


def check_filter(stored: Any) -> Filter:
    """Returns the filter unchanged if it is valid.

    Raises:
        FilterError: names the place and the reason.
    """
    if not isinstance(stored, dict):
        raise FilterError("", "must be an object of fields and conditions.")
    nodes = 0
    for nodes, _ in enumerate(_check_nodes(stored, "", MAX_DEPTH), start=1):
        if nodes > MAX_NODES:
            raise FilterError("", f"has more than {MAX_NODES} conditions.")
    return stored


def to_query(stored: Filter) -> Filter:
    """Translates a checked filter into a MongoDB query: typed scalars become BSON, search texts are escaped."""
    return {key: _query_part(key, value) for key, value in stored.items()}


def field_paths(stored: Filter) -> set[str]:
    """The paths of all fields that a checked filter tests."""
    paths: set[str] = set()
    for key, value in stored.items():
        if key in LOGICAL:
            paths |= {path for branch in value for path in field_paths(branch)}
        else:
            paths.add(key)
    return paths


LOGICAL = frozenset({"$and", "$or", "$nor"})


def merge_filters(conditions: list[Filter]) -> Filter:
    """Combines conditions into one filter.

    Conditions on the same field share its object if their operators differ; others go into ``$and``.
    """
    merged: Filter = {}
    rest = []
    for condition in conditions:
        if not merged.keys() & condition.keys():
            merged |= condition
            continue
        ((field, added), *more) = condition.items()
        present = merged.get(field)
        both = [present, added]
        if not more and all(map(are_comparisons, both)) and not set(present or ()) & set(added):
            merged[field] = {name: value for each in both for name, value in each.items()}
        else:
            rest.append(condition)
    return {"$and": [merged, *rest]} if rest else merged


def are_comparisons(value: Any) -> bool:
    """Whether this is an object of operators that can be combined for one field."""
    return isinstance(value, dict) and bool(value) and value.keys() <= BY_MONGODB.keys()


def _check_nodes(stored: Filter, path: str, depth: int) -> Iterator[None]:
    """Checks a filter and the ones inside it. Yields once per condition, so the caller can count conditions."""
    if depth == 0:
        raise FilterError(path, f"is nested more than {MAX_DEPTH} deep.")
    for key, value in stored.items():
        inner_path = f"{path}.{key}".lstrip(".")
        yield None
        if key in LOGICAL:
            if not isinstance(value, list) or not value or not all(isinstance(branch, dict) for branch in value):
                raise FilterError(inner_path, "must be a list of filters that is not empty.")
            for number, branch in enumerate(value):
                yield from _check_nodes(branch, f"{inner_path}.{number}", depth - 1)
        elif key.startswith("$"):
            raise FilterError(inner_path, f"{key} is not allowed in a filter.")
        elif error := path_error(key):
            raise FilterError(inner_path, error)
        else:
            yield from _check_conditions(value, inner_path, depth - 1)


def _check_conditions(value: Any, path: str, depth: int) -> Iterator[None]:
    if not _is_operators(value):
        _require_scalar(value, path)
        return
    if depth == 0:
        raise FilterError(path, f"is nested more than {MAX_DEPTH} deep.")
    for operator, operand in value.items():
        inner_path = f"{path}.{operator}"
        yield None
        if operator == "$not":
            if not _is_operators(operand):
                raise FilterError(inner_path, 'must hold conditions, such as {"$gt": 5}.')
            yield from _check_conditions(operand, inner_path, depth - 1)
        elif operator == "$elemMatch":
            yield from _check_element(operand, inner_path, depth - 1)
        elif operator == "$options":
            if "$regex" not in value or operand not in {"", "i"}:
                raise FilterError(inner_path, 'goes with $regex and is "i" or empty.')
        elif operator not in OPERANDS:
            raise FilterError(inner_path, f"{operator} is not allowed in a filter.")
        else:
            OPERANDS[operator](operand, inner_path)


def _check_element(operand: Any, path: str, depth: int) -> Iterator[None]:
    if not isinstance(operand, dict) or not operand:
        raise FilterError(path, "must be an object of conditions.")
    if _is_operators(operand):
        yield from _check_conditions(operand, path, depth)
    else:
        yield from _check_nodes(operand, path, depth)


def _is_operators(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and not typed_values.is_typed(value)
        and all(key[:1] == "$" for key in value)
    )


def _require_scalar(value: Any, path: str) -> None:
    if value is None or isinstance(value, bool | float):
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise FilterError(path, "a whole number has at most 64 bits.")
    elif isinstance(value, str):
        _require_text(value, path)
    elif typed_values.is_typed(value):
        _parse_typed(value, path)
    else:
        raise FilterError(path, 'must be a plain value, or one such as {"$date": …} or {"$oid": …}.')


def _require_text(value: str, path: str) -> None:
    if len(value) > MAX_TEXT:
        raise FilterError(path, f"a text has at most {MAX_TEXT:,} characters.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FilterError(path, "must be valid Unicode.") from None


def _parse_typed(value: dict[str, Any], path: str) -> Any:
    try:
        return typed_values.to_bson(value)
    except ValueError as error:
        raise FilterError(path, str(error)) from None


def _require_scalars(operand: Any, path: str) -> None:
    if not isinstance(operand, list) or not operand:
        raise FilterError(path, "must be a list of values that is not empty.")
    if len(operand) > MAX_CHOICES:
        raise FilterError(path, f"has at most {MAX_CHOICES:,} values.")
    for number, value in enumerate(operand):
        _require_scalar(value, f"{path}.{number}")


def _require_bool(operand: Any, path: str) -> None:
    if not isinstance(operand, bool):
        raise FilterError(path, "must be true or false.")


def _require_type(operand: Any, path: str) -> None:
    for name in operand if isinstance(operand, list) and operand else [operand]:
        if not (isinstance(name, str) and name in BSON_TYPES):
            raise FilterError(path, f"must be one of {', '.join(sorted(BSON_TYPES))}.")


def _require_search(operand: Any, path: str) -> None:
    if not isinstance(operand, str) or not operand.removeprefix("^"):
        raise FilterError(path, "must be the text to look for; ^ in front of it means: at the beginning.")
    _require_text(operand, path)
    if "\0" in operand:
        raise FilterError(path, "must not contain NUL.")


def _require_size(operand: Any, path: str) -> None:
    if isinstance(operand, bool) or not isinstance(operand, int) or not 0 <= operand < 2**31:
        raise FilterError(path, "must be a whole number that is not negative.")


def _require_mod(operand: Any, path: str) -> None:
    integers = isinstance(operand, list) and all(
        isinstance(part, int) and not isinstance(part, bool) for part in operand
    )
    if not integers or len(operand) != 2 or operand[0] == 0 or any(abs(part) >= 2**63 for part in operand):  # noqa: PLR2004
        raise FilterError(path, "must be a divisor other than 0 and a remainder, such as [4, 0].")


OPERANDS: dict[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), _require_scalar),
    **dict.fromkeys(("$in", "$nin", "$all"), _require_scalars),
    "$exists": _require_bool,
    "$type": _require_type,
    "$regex": _require_search,
    "$size": _require_size,
    "$mod": _require_mod,
}


def _query_part(key: str, value: Any) -> Any:
    if key in LOGICAL:
        return [to_query(branch) for branch in value]
    # The explicit $eq keeps MongoDB from reading a value as an operator.
    return _query_conditions(value) if _is_operators(value) else {"$eq": _bson(value)}


def _query_conditions(conditions: dict[str, Any]) -> dict[str, Any]:
    return {operator: _query_operand(operator, operand) for operator, operand in conditions.items()}


def _query_operand(operator: str, operand: Any) -> Any:
    if operator == "$not":
        return _query_conditions(operand)
    if operator == "$elemMatch":
        return _query_conditions(operand) if _is_operators(operand) else to_query(operand)
    if operator == "$regex":
        anchor = "^" if operand.startswith("^") else ""
        return anchor + re.escape(operand.removeprefix("^"))
    if isinstance(operand, list):
        return [_bson(value) for value in operand]
    return _bson(operand)


def _bson(value: Any) -> Any:
    return _parse_typed(value, "") if typed_values.is_typed(value) else value

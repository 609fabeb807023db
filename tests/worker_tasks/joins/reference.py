"""A reference implementation of joins in plain Python, against which property tests check the compiled pipelines.

Null and missing keys match nothing. With one pair of keys, a list stands for each of its elements, on both sides;
several pairs compare whole values. The matches replace a field of the row with the same name.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64, ObjectId

from worker_tasks.infra.connections import Document
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

MISSING = object()

Data = Mapping[str, Sequence[Document]]


def joined(spec: JoinSpec, data: Data) -> list[Document]:
    """The rows, in no particular order."""
    rows = [document for document in data[spec.from_] if keeps(document, spec.match)]
    for join in spec.joins:
        others = [document for document in data[join.from_] if keeps(document, join.match)]
        rows = _joined_with(rows, others, join)
    return [_project(row, spec.fields_) for row in rows]


def _joined_with(rows: Sequence[Document], others: Sequence[Document], join: Join) -> list[Document]:
    result = []
    used: set[Any] = set()
    for row in rows:
        matches = [other for other in others if _match(row, other, join.on)]
        used |= {other["_id"] for other in matches}
        result += _rows_of(row, matches, join)
    if join.kind == "outer":
        unmatched = [_project(other, join.fields_) for other in others if other["_id"] not in used]
        result += [{join.as_ or "": [other] if join.shape == "array" else other} for other in unmatched]
    return result


def _rows_of(row: Document, matches: list[Document], join: Join) -> list[Document]:
    if join.kind in {"semi", "anti"}:
        return [row] if bool(matches) == (join.kind == "semi") else []
    if join.kind == "inner" and not matches:
        return []
    name = join.as_ or ""
    for path, direction in reversed(join.sort):
        matches = sorted(matches, key=lambda match: match[path], reverse=direction == -1)
    matches = [_project(match, join.fields_) for match in matches[: join.limit]]
    cleared = {field: value for field, value in row.items() if field != name}
    if join.shape == "array":
        return [{**row, name: matches}]
    if join.shape == "count":
        return [{**row, name: len(matches)}]
    if join.shape == "first":
        return [{**cleared, name: matches[0]} if matches else cleared]
    return [{**cleared, name: match} for match in matches] or [cleared]


def _project(document: Document, fields: list[str] | None) -> Document:
    return document if fields is None else {name: value for name, value in document.items() if name in fields}


def _match(row: Document, other: Document, on: Sequence[KeyPair]) -> bool:
    if len(on) == 1:
        keys = [converted(key, on[0].cast) for key in _elements(row, on[0].local)]
        other_keys = {canonical(value) for value in _leaves(other, on[0].foreign)}
        return any(canonical(key) in other_keys for key in keys if not is_nothing(key))
    return all(_equal(converted(at(row, pair.local), pair.cast), at(other, pair.foreign)) for pair in on)


def _equal(left: Any, right: Any) -> bool:
    return not is_nothing(left) and not is_nothing(right) and canonical(left) == canonical(right)


def is_nothing(value: Any) -> bool:
    return value is MISSING or value is None


def converted(value: Any, cast: str | None) -> Any:
    """Converts a value like ``$convert``; None if it cannot be converted. Supports the casts to int and string."""
    if cast is None or is_nothing(value):
        return value
    if cast == "string":
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else _text(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal128):
        number = value.to_decimal() if isinstance(value, Decimal128) else value
        return int(number) if number == int(number) else None
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else None


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.000Z}"
    return str(value) if isinstance(value, Decimal128 | ObjectId) else None


def at(document: Any, path: str) -> Any:
    """The value of ``$path`` in an aggregation. A path through a list gives the list of its elements' values."""
    head, _, rest = path.partition(".")
    if isinstance(document, list):
        values = [at(element, path) for element in document if isinstance(element, dict | list)]
        return [value for value in values if value is not MISSING]
    if not isinstance(document, dict) or head not in document:
        return MISSING
    return at(document[head], rest) if rest else document[head]


def _elements(document: Any, path: str) -> list[Any]:
    """The values that ``localField`` looks up. For a list, these are its elements."""
    values = _reached(document, path)
    return [element for value in values for element in (value if isinstance(value, list) else [value])]


def _leaves(document: Any, path: str) -> list[Any]:
    """The values that a ``foreignField`` can match. For a list, these are the list as a whole and its elements."""
    values = _reached(document, path)
    return values + [element for value in values if isinstance(value, list) for element in value]


def _reached(document: Any, path: str) -> list[Any]:
    head, _, rest = path.partition(".")
    if not isinstance(document, dict) or head not in document:
        return []
    value = document[head]
    if not rest:
        return [value]
    return [inner for element in (value if isinstance(value, list) else [value]) for inner in _reached(element, rest)]


def keeps(document: Document, stored: Mapping[str, Any]) -> bool:
    """Whether the document passes a filter of equalities and of ``$gt`` on numbers."""
    for path, condition in stored.items():
        values = _leaves(document, path)
        if isinstance(condition, dict):
            if not any(_is_number(value) and canonical(value)[1] > condition["$gt"] for value in values):
                return False
        elif canonical(condition) not in {canonical(value) for value in values}:
            return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)


def canonical(value: Any) -> tuple[Any, ...]:
    """A form that is equal exactly if MongoDB treats the values as equal.

    Numbers are compared by value, documents including the order of their fields.
    """
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float | Int64):
        return ("number", Decimal(value))
    if isinstance(value, Decimal128):
        return ("number", value.to_decimal())
    if isinstance(value, list):
        return ("list", *map(canonical, value))
    if isinstance(value, dict):
        return ("document", *((name, canonical(inner)) for name, inner in value.items()))
    if isinstance(value, datetime):
        return ("datetime", value.timestamp())
    return (type(value).__name__, value)

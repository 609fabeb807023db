"""A reference implementation of joins in plain Python, against which property tests check both methods.

It takes whole rows through one join after the other. Keys, casts, projections and sort keys of single documents have
property tests of their own, against MongoDB; here they count as right.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson import DBRef, Decimal128, Int64

from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.paths import left_keys, other_keys, whole_key
from worker_tasks.joins.matching.projection import project
from worker_tasks.joins.matching.sort_keys import sort_key
from worker_tasks.joins.spec.spec import Expand, Join, JoinSpec, KeyPair

MISSING = object()
UUID_CASTS = {"uuid", "uuidJavaLegacy", "uuidCsharpLegacy", "uuidPythonLegacy"}

Data = Mapping[str, Sequence[Document]]


@dataclass(frozen=True)
class Row:
    """A row: whole, as the joins keep it, as the result shows it, and the fields of joins without a match for it."""

    whole: Document
    kept: Document
    shown: Document
    unmatched: frozenset[str]

    def sort_key(self, spec: JoinSpec) -> bytes:
        added = {join.as_ for join in spec.joins if join.into is None}
        return b"".join(
            sort_key(self.kept if path in added else self.whole, path, direction) for path, direction in spec.sort
        )


@dataclass
class _Partial:
    """A row on its way. ``whole`` has the fields that joins do not keep, by which rows can still be sorted."""

    fields: Document
    whole: Document
    unmatched: frozenset[str] = frozenset()


def joined(spec: JoinSpec, data: Data) -> list[Document]:
    """The rows as the result shows them, in no particular order."""
    return [row.shown for row in joined_rows(spec, data)]


def joined_rows(spec: JoinSpec, data: Data) -> list[Row]:
    """All rows, before any limit, in no particular order."""
    documents = [document for document in data[spec.from_] if keeps(document, spec.match)]
    for each in spec.expand:
        documents = [row for document in documents for row in _expanded(document, each)]
    rows = [_Partial(document, document) for document in documents]
    for join in spec.joins:
        others = [document for document in data[join.from_] if keeps(document, join.match)]
        rows = _into(rows, others, join) if join.into is not None else _joined_with(rows, others, join)
    return [Row(row.whole, row.fields, _project(row.fields, spec.fields_), row.unmatched) for row in rows]


def _expanded(document: Document, each: Expand) -> Iterator[Document]:
    value: Any = document
    for name in each.path.split("."):
        value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
    position = {} if each.position is None else {each.position: None}
    if value is MISSING or value is None or value == []:
        if each.keep_empty:
            yield {**(_with(document, each.path, MISSING) if value == [] else document), **position}
    elif isinstance(value, list):
        for number, element in enumerate(value, start=1):
            yield {**_with(document, each.path, element), **dict.fromkeys(position, number)}
    else:
        yield {**document, **position}


def _with(document: Document, path: str, value: Any) -> Document:
    """A copy of the document with another value at the path."""
    head, _, rest = path.partition(".")
    inner = _with(document[head], rest, value) if rest else value
    changed = {**document, head: inner}
    return {name: each for name, each in changed.items() if each is not MISSING}


def _joined_with(rows: Sequence[_Partial], others: Sequence[Document], join: Join) -> list[_Partial]:
    result: list[_Partial] = []
    used: set[int] = set()
    for row in rows:
        numbers = [number for number, other in enumerate(others) if _match(row.fields, other, join.on)]
        used.update(numbers)
        result += _rows_of(row, [others[number] for number in numbers], join)
    if join.kind == "outer":
        unmatched = [other for number, other in enumerate(others) if number not in used]
        name, is_list = join.as_ or "", join.shape == "array"
        for other in unmatched:
            kept = _project(other, join.fields_)
            result.append(_Partial({name: [kept] if is_list else kept}, {name: [other] if is_list else other}))
    return result


def _rows_of(row: _Partial, matches: list[Document], join: Join) -> list[_Partial]:
    if join.kind in {"semi", "anti"}:
        return [row] if bool(matches) == (join.kind == "semi") else []
    if join.kind == "inner" and not matches:
        return []
    name = join.as_ or ""
    unmatched = row.unmatched | ({name} if join.kind in {"left", "outer"} and not matches else set())
    if join.shape != "rows":
        fields = _with_matches(row.fields, name, matches, join, join.fields_)
        return [_Partial(fields, _with_matches(row.whole, name, matches, join, None), unmatched)]
    return [
        _Partial({**row.fields, name: _project(match, join.fields_)}, {**row.whole, name: match}, unmatched)
        for match in _first(matches, join)
    ] or [_Partial(_without(row.fields, name), _without(row.whole, name), unmatched)]


def _with_matches(row: Document, name: str, matches: list[Document], join: Join, fields: list[str] | None) -> Document:
    if join.shape == "count":
        return {**row, name: len(_first(matches, join))}
    kept = [_project(match, fields) for match in _first(matches, join)]
    if join.shape == "array":
        return {**row, name: kept}
    return {**row, name: kept[0]} if kept else _without(row, name)


def _first(matches: list[Document], join: Join) -> list[Document]:
    for path, direction in reversed(join.sort):
        matches = sorted(matches, key=lambda match: sort_key(match, path, direction))
    return matches[: join.limit]


def _into(rows: Sequence[_Partial], others: Sequence[Document], join: Join) -> list[_Partial]:
    """The rows with the matches in the elements of a list."""
    name = join.into or ""
    on = [pair.model_copy(update={"local": pair.local.removeprefix(f"{name}.")}) for pair in join.on]

    def element(value: Any) -> Any:
        document = value.as_doc() if isinstance(value, DBRef) else value
        if not isinstance(document, dict):
            return value
        matches = [other for other in others if _match(document, other, on)]
        return _with_matches(dict(document), join.as_ or "", matches, join, join.fields_)

    result = []
    for row in rows:
        fields = dict(row.fields)
        if isinstance(fields.get(name), list):
            fields[name] = [element(value) for value in fields[name]]
        result.append(_Partial(fields, row.whole, row.unmatched))
    return result


def _without(row: Document, name: str) -> Document:
    return {field: value for field, value in row.items() if field != name}


def _project(document: Document, fields: list[str] | None) -> Document:
    return document if fields is None else project(document, fields)


def _match(row: Document, other: Document, on: Sequence[KeyPair]) -> bool:
    for pair in on:
        other_cast = pair.cast if pair.cast in UUID_CASTS else None
        if len(on) == 1:
            keys = left_keys(row, pair.local, pair.cast, pair.fold)
            return not {*keys}.isdisjoint(other_keys(other, pair.foreign, pair.cast, pair.fold))
        key = whole_key(row, pair.local, pair.cast, pair.fold)
        if key is None or key != whole_key(other, pair.foreign, other_cast, pair.fold):
            return False
    return True


def keeps(document: Document, stored: Mapping[str, Any]) -> bool:
    """Whether the document passes a filter of equalities and of ``$gt`` on numbers."""
    for path, condition in stored.items():
        value = document.get(path)
        values = [value, *value] if isinstance(value, list) else [value]
        if isinstance(condition, dict):
            if not any(_is_number(value) and canonical(value)[1] > condition["$gt"] for value in values):
                return False
        elif canonical(condition) not in {canonical(value) for value in values}:
            return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not (isinstance(value, bool) or canonical(value)[1].is_nan())


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
    if isinstance(value, DBRef):
        return canonical(value.as_doc())
    if isinstance(value, dict):
        return ("document", *((name, canonical(inner)) for name, inner in value.items()))
    if isinstance(value, datetime):
        return ("datetime", value.timestamp())
    return (type(value).__name__, value)

"""Reads the keys of documents by field paths, with the semantics of MongoDB's ``$lookup``.

A part of a path may also be a place in a list (``items.0.sku``) or a part of a DBRef (``customer.$id``).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bson import DBRef

from worker_tasks.joins.matching.canonical_keys import canonical, list_element
from worker_tasks.joins.matching.conversions import CASTS_OF_BOTH_SIDES, Converter, make_converter
from worker_tasks.joins.spec.folds import Fold

Side = Literal["left", "other"]
KeyReader = Callable[[Mapping[str, Any]], list[str]]

MISSING = object()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a path: the name of a field and, if it is a number, a place in a list."""

    name: str
    place: int | None


def path_parts(path: str) -> tuple[Part, ...]:
    return tuple(Part(name, int(name) if _is_place(name) else None) for name in path.split("."))


def _is_place(name: str) -> bool:
    return name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0")


def as_document(value: Any) -> Mapping[str, Any] | None:
    """An embedded document, or a DBRef as the document that stores it; None for anything else."""
    if isinstance(value, dict):
        return value
    return value.as_doc() if isinstance(value, DBRef) else None


def at_place(values: list[Any], place: int) -> Any:
    return values[place] if place < len(values) else MISSING


def key_reader(path: str, *, side: Side, single: bool, cast: str | None = None, fold: Fold | None = None) -> KeyReader:
    """Returns a function that reads a document's distinct canonical keys.

    Args:
        side: the side of the join whose documents are read.
        single: the join has this pair of keys only, so that a list stands for its elements. With several pairs each
            value is compared as a whole, and the function returns one key at most.
        cast: converts the keys; on the other side only the casts to a UUID do.
        fold: the differences between texts to ignore.
    """
    if side == "other" and cast not in CASTS_OF_BOTH_SIDES:
        cast = None
    converter = make_converter(cast, fold)
    parts = path_parts(path)
    if not single:
        return _whole_reader(parts, converter)
    if len(parts) == 1:
        return _field_reader(path, converter, whole_lists=side == "other")
    return _reader(_left_values if side == "left" else _other_values, parts, converter)


def element_reader(path: str) -> KeyReader:
    """Returns a function that reads the text of a document's value in the key of a list, or nothing if it is missing.

    Together, the texts of several documents make the key of the list of their values.
    """
    parts = path_parts(path)

    def read(document: Mapping[str, Any]) -> list[str]:
        value = _whole_value(document, parts, 0)
        return [] if value is MISSING else [list_element(value)]

    return read


def left_keys(document: Mapping[str, Any], path: str, cast: str | None = None, fold: Fold | None = None) -> list[str]:
    """The keys of a ``localField``: a list at the end of the path stands for its elements."""
    return key_reader(path, side="left", single=True, cast=cast, fold=fold)(document)


def other_keys(document: Mapping[str, Any], path: str, cast: str | None = None, fold: Fold | None = None) -> list[str]:
    """The keys of a ``foreignField``: a list at the end of the path stands for its elements and for itself."""
    return key_reader(path, side="other", single=True, cast=cast, fold=fold)(document)


def left_values(document: Mapping[str, Any], path: str) -> list[Any]:
    """The values of a ``localField`` as they are stored, except null."""
    return [value for value in _left_values(document, path_parts(path)) if value is not None]


def whole_key(document: Mapping[str, Any], path: str, cast: str | None = None, fold: Fold | None = None) -> str | None:
    """The key of the value of ``$path`` in an aggregation; None for null, missing and NaN.

    A path through a list gives the list of the values that it reaches. Other than in an aggregation, a number is also
    a place in a list.
    """
    keys = _whole_reader(path_parts(path), make_converter(cast, fold))(document)
    return keys[0] if keys else None


def _field_reader(name: str, converter: Converter | None, *, whole_lists: bool) -> KeyReader:
    """Reads a path of one part; kept fast, because almost all keys are such."""

    def read(document: Mapping[str, Any]) -> list[str]:
        value = document.get(name)
        if type(value) is list:
            return distinct_keys([*value, value] if whole_lists else value, converter)
        key = canonical(value)
        return [] if key is None else [key]

    def read_converted(document: Mapping[str, Any]) -> list[str]:
        value = document.get(name)
        if type(value) is list:
            return distinct_keys([*value, value] if whole_lists else value, converter)
        key = canonical(converter(value))  # type: ignore[misc]
        return [] if key is None else [key]

    return read if converter is None else read_converted


def _reader(
    reach: Callable[[Mapping[str, Any], tuple[Part, ...]], list[Any]],
    parts: tuple[Part, ...],
    converter: Converter | None,
) -> KeyReader:
    names = [part.name for part in parts]

    def read(document: Mapping[str, Any]) -> list[str]:
        # The common case first: no list on the way and none at the end.
        value: Any = document
        for name in names:
            if type(value) is not dict:
                return distinct_keys(reach(document, parts), converter)
            value = value.get(name)
        if type(value) is list:
            return distinct_keys(reach(document, parts), converter)
        key = canonical(value if converter is None else converter(value))
        return [] if key is None else [key]

    return read


def _whole_reader(parts: tuple[Part, ...], converter: Converter | None) -> KeyReader:
    names = [part.name for part in parts]

    def read(document: Mapping[str, Any]) -> list[str]:
        value: Any = document
        for name in names:
            if type(value) is not dict:
                value = _whole_value(document, parts, 0)
                break
            value = value.get(name)
        if value is MISSING:
            return []
        key = canonical(value if converter is None else converter(value))
        return [] if key is None else [key]

    return read


def distinct_keys(values: Iterable[Any], converter: Converter | None) -> list[str]:
    keys = map(canonical, values if converter is None else map(converter, values))
    return list(dict.fromkeys(key for key in keys if key is not None))


def _left_values(document: Mapping[str, Any], parts: tuple[Part, ...]) -> list[Any]:
    """The values of a ``localField``. In a list, a number is a place and never the name of a field."""
    found: list[Any] = []
    value = document.get(parts[0].name)
    index = 1
    while index < len(parts) and isinstance(value, list) and (place := parts[index].place) is not None:
        value = at_place(value, place)
        index += 1
    if index == len(parts):
        if isinstance(value, list):
            return value
        return [] if value is MISSING else [value]
    for element in value if isinstance(value, list) else [value]:
        if (inner := as_document(element)) is not None:
            found += _left_values(inner, parts[index:])
    return found


def _other_values(document: Mapping[str, Any], parts: tuple[Part, ...]) -> list[Any]:
    """The values of a ``foreignField``. In a list, a number is a place as well as the name of a field."""
    found: list[Any] = []
    _collect(document.get(parts[0].name), parts, 1, found)
    return found


def _collect(value: Any, parts: tuple[Part, ...], index: int, found: list[Any], *, by_place: bool = False) -> None:
    if index == len(parts):
        found.append(value)
        # A list inside a list, addressed by its place, stands for itself only.
        if isinstance(value, list) and not by_place:
            found += value
    elif isinstance(value, list):
        place = parts[index].place
        if place is not None and place < len(value):
            _collect(value[place], parts, index + 1, found, by_place=True)
        for element in value:
            if (inner := as_document(element)) is not None:
                _collect(inner.get(parts[index].name), parts, index + 1, found)
    elif (inner := as_document(value)) is not None:
        _collect(inner.get(parts[index].name), parts, index + 1, found)


def _whole_value(value: Any, parts: tuple[Part, ...], index: int) -> Any:
    if index == len(parts):
        return value
    part = parts[index]
    if isinstance(value, list):
        if part.place is not None:
            return _whole_value(at_place(value, part.place), parts, index + 1)
        documents = [element for element in value if as_document(element) is not None]
        reached = [_whole_value(element, parts, index) for element in documents]
        return [inner for inner in reached if inner is not MISSING]
    inner = as_document(value)
    if inner is None or part.name not in inner:
        return MISSING
    return _whole_value(inner[part.name], parts, index + 1)

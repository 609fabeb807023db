"""Joins with parameters: a JoinSpec in which filters leave some values open, to be given each time. Pure: no I/O.

A parameter stands where a filter takes a value:

    {"status": {"$parameter": "status", "type": "string"}}       one value
    {"status": {"$in": {"$parameter": "any", "type": "string"}}}  several, given with commas between them
    {"name": {"$regex": {"$parameter": "name", "type": "string", "prefix": "^"}}}

JoinSpec refuses ``$parameter`` by name, so no join runs with a value left open.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import spec
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.joins.spec.value_types import TEXT, VALUE_TYPES, TypeOf, ValueType, value_type

MAX_PARAMETERS = 100
NAME = r"[a-z][a-z0-9_]{0,39}"
#: The key that makes an object of a filter a parameter.
KEY = "$parameter"
#: The type of a value that is read by the type of the field that it is compared with.
AUTO = "auto"
TYPES = frozenset({AUTO, *VALUE_TYPES})

_LIST_OPERATORS = frozenset({"$in", "$nin", "$all"})
#: Deeper than any valid filter is nested; what lies deeper is left for the filter's own check to refuse.
_MAX_DEPTH = 40

Document = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A place in a join whose value is left open. Places with the same name get the same text."""

    name: str
    type: str
    #: Where it stands, such as ``joins.0.match.status.$in``.
    path: str
    #: The field that the value is compared with.
    collection: str
    field: str
    is_list: bool = False
    #: What goes in front of the text.
    prefix: str = ""

    def value_type(self, type_of: TypeOf) -> ValueType:
        """The type that its value is read as."""
        return value_type(None, type_of(self.collection, self.field)) if self.type == AUTO else VALUE_TYPES[self.type]

    def value_of(self, text: str, type_of: TypeOf) -> Any:
        """The value that a text stands for here, as Extended JSON.

        Raises:
            ValueError: the text is no value of this type; says so.
        """
        return self._read_as(self.value_type(type_of), text)

    def example(self) -> Any:
        """A value that can stand here, to validate a join whose values are not given yet."""
        written_as = TEXT if self.type == AUTO else VALUE_TYPES[self.type]
        return self._read_as(written_as, written_as.example)

    def _read_as(self, written_as: ValueType, text: str) -> Any:
        if self.is_list:
            return written_as.read_list(text)
        value = written_as.read(text)
        return f"{self.prefix}{value}" if self.prefix else value


Replace = Callable[[Parameter], Any]


def find_parameters(join: Any) -> list[Parameter]:
    """Every place whose value is left open, in the order in which they are written.

    Raises:
        InvalidInput: something stands there for a parameter that is none.
    """
    found: list[Parameter] = []
    _replaced(join, found.append)
    return found


def validate(join: Any) -> JoinSpec:
    """Checks a join with parameters; returns it with an example in the place of each.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    if len({parameter.name for parameter in find_parameters(join)}) > MAX_PARAMETERS:
        raise InvalidInput({"join": f"asks for more than {MAX_PARAMETERS} values."})
    return spec.parse(_replaced(join, Parameter.example))


def fill(join: Any, given: Mapping[str, str], type_of: TypeOf) -> JoinSpec:
    """The join with these values.

    Args:
        given: a text for each parameter, by its name.
        type_of: tells the types of fields, for parameters that are read by them.

    Raises:
        InvalidInput: names each value that is missing, unknown or wrong as ``parameters.<name>``.
    """
    places = find_parameters(join)
    errors = {f"parameters.{name}": "is not asked for." for name in given.keys() - {place.name for place in places}}

    def value(parameter: Parameter) -> Any:
        text = given.get(parameter.name, "")
        try:
            if text:
                return parameter.value_of(text, type_of)
            errors[f"parameters.{parameter.name}"] = "is missing: give a value."
        except ValueError as error:
            errors[f"parameters.{parameter.name}"] = str(error)
        return None

    filled = _replaced(join, value)
    if errors:
        raise InvalidInput(errors)
    try:
        return spec.parse(filled)
    except InvalidInput as error:
        raise InvalidInput(dict(_at_parameter(item, places) for item in error.errors.items())) from None


def _at_parameter(error: tuple[str, str], places: list[Parameter]) -> tuple[str, str]:
    """The error of a place in the filled join, as one of the parameter that stood there."""
    path, reason = error
    about = (each for each in places if f"{path}.".startswith(f"join.{each.path}."))
    return next((f"parameters.{each.name}" for each in about), path), reason


@dataclass(frozen=True)
class _Place:
    """A place in a filter."""

    collection: str
    path: str
    field: str = ""
    operator: str = ""
    depth: int = 0

    def inside(self, key: str) -> "_Place":
        below = replace(self, path=f"{self.path}.{key}", operator="", depth=self.depth + 1)
        if key.startswith("$"):
            return replace(below, operator=key)
        return replace(below, field=f"{self.field}.{key}".lstrip("."))

    def element(self, number: int) -> "_Place":
        return replace(self, path=f"{self.path}.{number}", operator="", depth=self.depth + 1)


def _replaced(join: Any, value: Replace) -> Any:
    """A copy of the join with a value in the place of each parameter."""
    if not isinstance(join, dict):
        return join
    whole = _side(join, "match", value)
    if isinstance(joins := join.get("joins"), list):
        whole["joins"] = [
            _side(each, f"joins.{number}.match", value) if isinstance(each, dict) else each
            for number, each in enumerate(joins)
        ]
    return whole


def _side(side: Document, path: str, value: Replace) -> Document:
    if "match" not in side:
        return dict(side)
    return side | {"match": _walked(side["match"], _Place(str(side.get("from")), path), value)}


def _walked(node: Any, place: _Place, value: Replace) -> Any:
    if place.depth > _MAX_DEPTH:
        return node
    if isinstance(node, list):
        return [_walked(each, place.element(number), value) for number, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if KEY in node:
        return value(_parameter(node, place))
    return {key: _walked(each, place.inside(key), value) for key, each in node.items()}


def _parameter(node: Document, place: _Place) -> Parameter:
    if complaint := _complaint(node, place):
        raise InvalidInput({f"join.{place.path}": complaint})
    return Parameter(
        name=node[KEY],
        type=node["type"],
        path=place.path,
        collection=place.collection,
        field=place.field,
        is_list=place.operator in _LIST_OPERATORS,
        prefix=node.get("prefix", ""),
    )


def _complaint(node: Document, place: _Place) -> str | None:
    """Says what is wrong with a parameter, if anything."""
    if unknown := node.keys() - {KEY, "type", "prefix"}:
        return f"{min(unknown)} is not known in a parameter."
    if not (isinstance(node[KEY], str) and re.fullmatch(NAME, node[KEY])):
        return "a parameter's name has at most 40 small letters, digits and _, and begins with a letter."
    # A list would not even be hashable.
    if not (isinstance(node.get("type"), str) and node["type"] in TYPES):
        return f"a parameter's type must be one of {', '.join(sorted(TYPES))}."
    if place.operator == "$regex":
        if node["type"] != TEXT.name:
            return "a text to look for must be of the type string."
        if node.get("prefix", "") not in {"", "^"}:
            return "a parameter's prefix must be ^."
    elif "prefix" in node:
        return "a prefix goes with $regex alone."
    return None

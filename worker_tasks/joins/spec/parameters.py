"""Joins with parameters: descriptions whose filters leave some values open until the join runs. Pure: no I/O.

A parameter takes the place of a value in a filter:

    {"status": {"$parameter": "status", "type": "string"}}       one value
    {"status": {"$in": {"$parameter": "any", "type": "string"}}}  several, separated by commas
    {"name": {"$regex": {"$parameter": "name", "type": "string", "prefix": "^"}}}

JoinSpec refuses ``$parameter`` by name, so a join with an open value never runs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import spec
from worker_tasks.joins.spec.sides import Side, read_side
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.joins.spec.value_types import TEXT, VALUE_TYPES, TypeOf, ValueType, value_type

MAX_PARAMETERS = 100
NAME = r"[a-z][a-z0-9_]{0,39}"
#: The key that marks an object in a filter as a parameter.
KEY = "$parameter"
#: The type of a parameter whose value takes the type of the field in its condition.
AUTO = "auto"
TYPES = frozenset({AUTO, *VALUE_TYPES})

_LIST_OPERATORS = frozenset({"$in", "$nin", "$all"})
#: More than the depth of any valid filter. Deeper nodes stay, and the filter's own check refuses them.
_MAX_DEPTH = 40

Document = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """An open value in a join. Parameters with the same name receive the same text."""

    name: str
    type: str
    #: Its place in the join, such as ``joins.0.match.status.$in``.
    path: str
    #: The collection and the field with which the value is compared.
    side: Side
    field: str
    is_list: bool = False
    #: Precedes the value: ``^`` or nothing.
    prefix: str = ""

    def value_type(self, type_of: TypeOf) -> ValueType:
        """The type as which its value is parsed."""
        return value_type(None, type_of(self.side, self.field)) if self.type == AUTO else VALUE_TYPES[self.type]

    def value_of(self, text: str, type_of: TypeOf) -> Any:
        """Parses a text into the value of this parameter, as Extended JSON.

        Raises:
            ValueError: the text is not a value of this type. The message is for people.
        """
        return self._parse(self.value_type(type_of), text)

    def example(self) -> Any:
        """A value of the right type, to validate a join before its values are known."""
        example_type = TEXT if self.type == AUTO else VALUE_TYPES[self.type]
        return self._parse(example_type, example_type.example)

    def _parse(self, parsed_as: ValueType, text: str) -> Any:
        if self.is_list:
            return parsed_as.read_list(text)
        value = parsed_as.read(text)
        return f"{self.prefix}{value}" if self.prefix else value


Substitute = Callable[[Parameter], Any]


def find_parameters(join: Any) -> list[Parameter]:
    """All parameters of a join, in the order in which they are written.

    Raises:
        InvalidInput: a parameter is malformed; names its path.
    """
    parameters: list[Parameter] = []
    _substituted(join, parameters.append)
    return parameters


def validate(join: Any) -> JoinSpec:
    """Validates a join with parameters; returns its spec with an example in place of each.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    if len({parameter.name for parameter in find_parameters(join)}) > MAX_PARAMETERS:
        raise InvalidInput({"join": f"asks for more than {MAX_PARAMETERS} values."})
    return spec.parse(_substituted(join, Parameter.example))


def fill(join: Any, texts: Mapping[str, str], type_of: TypeOf) -> JoinSpec:
    """Replaces the parameters of a join by values.

    Args:
        texts: a text for each parameter, by its name.
        type_of: looks up the types of fields, for parameters of the type ``auto``.

    Raises:
        InvalidInput: names each value that is missing, unknown or wrong as ``parameters.<name>``.
    """
    parameters = find_parameters(join)
    unknown = texts.keys() - {parameter.name for parameter in parameters}
    errors = {f"parameters.{name}": "is not asked for." for name in unknown}

    def value(parameter: Parameter) -> Any:
        text = texts.get(parameter.name, "")
        try:
            if text:
                return parameter.value_of(text, type_of)
            errors[f"parameters.{parameter.name}"] = "is missing: give a value."
        except ValueError as error:
            errors[f"parameters.{parameter.name}"] = str(error)
        return None

    filled = _substituted(join, value)
    if errors:
        raise InvalidInput(errors)
    try:
        return spec.parse(filled)
    except InvalidInput as error:
        raise InvalidInput(dict(_at_parameter(item, parameters) for item in error.errors.items())) from None


def _at_parameter(error: tuple[str, str], parameters: list[Parameter]) -> tuple[str, str]:
    """Moves an error in the filled join to the parameter whose value caused it, if one did."""
    path, reason = error
    causes = (each for each in parameters if f"{path}.".startswith(f"join.{each.path}."))
    return next((f"parameters.{each.name}" for each in causes), path), reason


@dataclass(frozen=True)
class _Place:
    """A place in a filter."""

    side: Side
    path: str
    field: str = ""
    operator: str = ""
    depth: int = 0

    def child(self, key: str) -> "_Place":
        child = replace(self, path=f"{self.path}.{key}", operator="", depth=self.depth + 1)
        if key.startswith("$"):
            return replace(child, operator=key)
        return replace(child, field=f"{self.field}.{key}".lstrip("."))

    def element(self, number: int) -> "_Place":
        return replace(self, path=f"{self.path}.{number}", operator="", depth=self.depth + 1)


def _substituted(join: Any, substitute: Substitute) -> Any:
    """A copy of the join with a value in place of each parameter."""
    if not isinstance(join, dict):
        return join
    left = read_side(join)
    copy = _part(join, _Place(left, "match"), substitute)
    if isinstance(joins := join.get("joins"), list):
        copy["joins"] = [
            _part(each, _Place(read_side(each, left), f"joins.{number}.match"), substitute)
            if isinstance(each, dict)
            else each
            for number, each in enumerate(joins)
        ]
    return copy


def _part(part: Document, match: _Place, substitute: Substitute) -> Document:
    if "match" not in part:
        return dict(part)
    return part | {"match": _node(part["match"], match, substitute)}


def _node(node: Any, place: _Place, substitute: Substitute) -> Any:
    if place.depth > _MAX_DEPTH:
        return node
    if isinstance(node, list):
        return [_node(each, place.element(number), substitute) for number, each in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if KEY in node:
        return substitute(_parameter(node, place))
    return {key: _node(each, place.child(key), substitute) for key, each in node.items()}


def _parameter(node: Document, place: _Place) -> Parameter:
    if error := _parameter_error(node, place):
        raise InvalidInput({f"join.{place.path}": error})
    return Parameter(
        name=node[KEY],
        type=node["type"],
        path=place.path,
        side=place.side,
        field=place.field,
        is_list=place.operator in _LIST_OPERATORS,
        prefix=node.get("prefix", ""),
    )


def _parameter_error(node: Document, place: _Place) -> str | None:
    """The error in a parameter, or None if it is valid."""
    if unknown := node.keys() - {KEY, "type", "prefix"}:
        return f"{min(unknown)} is not known in a parameter."
    if not (isinstance(node[KEY], str) and re.fullmatch(NAME, node[KEY])):
        return "a parameter's name has at most 40 small letters, digits and _, and begins with a letter."
    # The check for text comes first, because a list is not hashable.
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

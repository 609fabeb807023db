"""Converts conditions, order and limit of one side of a join from form fields and back. Pure: no I/O."""

import json
import re
from typing import Any

from worker_tasks.joins.spec import filters, parameters
from worker_tasks.joins.spec.operators import BY_MONGODB, FilterOperator, Operand, operator_of, search
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.typed_numbers import whole_number
from worker_tasks.joins.spec.value_types import BY_WRAPPER, TEXT, TypeOf, value_type

#: A value in braces is the name of a parameter.
PARAMETER = re.compile(rf"\{{({parameters.NAME})\}}")


class FilterFormParser:
    """Parses one side of a join without changing the form; collects ``errors`` by field name."""

    def __init__(self, type_of: TypeOf, *, with_parameters: bool):
        self._type_of, self._with_parameters = type_of, with_parameters
        self.errors: dict[str, list[str]] = {}

    def match(self, form: Any, side: Side) -> dict[str, Any]:
        """The filter of one side: its conditions and its raw filter."""
        conditions = []
        for entry in form.filters.entries:
            row = entry.form
            if not row.field.data:
                continue
            try:
                conditions.append({row.field.data: self._condition(row, side)})
            except ValueError as error:
                self._add_error(row.value, str(error))
        raw = self._raw(form)
        if raw:
            conditions.append(raw)
        return filters.merge_filters(conditions)

    def _condition(self, row: Any, side: Side) -> Any:
        operator = operator_of(row.operator.data)
        if operator.operand is Operand.NOTHING:
            return operator.condition(None)
        text = row.value.data or ""
        if parameter := PARAMETER.fullmatch(text.strip()):
            if not self._with_parameters:
                raise ValueError(
                    f"{parameter[1]} is asked for when the saved join is run: save it, or give a value here."
                )
            return _parameter_condition(operator, parameter[1], row.type.data)
        if operator.operand is Operand.TEXT:
            if not text:
                raise ValueError("Give the text to look for.")
            return operator.condition(text)
        typed = value_type(row.type.data, self._type_of(side, row.field.data))
        if operator.operand is Operand.VALUES:
            return operator.condition(typed.read_list(text))
        return operator.condition(typed.read(text))

    def _raw(self, form: Any) -> dict[str, Any]:
        text = (form.raw.data or "").strip()
        if not text:
            return {}
        try:
            raw = json.loads(text)
        except ValueError as error:
            self._add_error(form.raw, f"Is no JSON: {error}.")
            return {}
        except RecursionError:
            self._add_error(form.raw, "Is nested too deep.")
            return {}
        if not isinstance(raw, dict):
            self._add_error(form.raw, 'Must be an object, such as {"status": {"$in": ["PAID", "SHIPPED"]}}.')
            return {}
        return raw

    def sort(self, form: Any) -> list[list[Any]]:
        """The sort order as pairs of field and direction, 1 or -1."""
        rows = [entry.form for entry in form.sort.entries]
        return [[row.field.data, -1 if row.direction.data == "-1" else 1] for row in rows if row.field.data]

    def limit(self, form: Any) -> int | None:
        text = (form.limit.data or "").strip()
        if not text:
            return None
        try:
            return whole_number(text)
        except ValueError:
            self._add_error(form.limit, "Must be a whole number, 1 or more, such as 100.")
            return None

    def _add_error(self, field: Any, message: str) -> None:
        self.errors.setdefault(field.name, []).append(message)


def _parameter_condition(operator: FilterOperator, name: str, type_: str | None) -> Any:
    """A condition with a parameter in place of its value."""
    parameter = {parameters.KEY: name, "type": type_ or parameters.AUTO}
    if operator.operand is not Operand.TEXT:
        return operator.condition(parameter)
    prefix = {"prefix": operator.prefix} if operator.prefix else {}
    return search(parameter | {"type": TEXT.name} | prefix, operator.options)


def filter_rows(match: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """A filter as form rows, and the part of the filter that rows cannot express."""
    rows: list[dict[str, str]] = []
    raw: dict[str, Any] = {}
    for field, condition in match.items():
        operators = condition if filters.are_comparisons(condition) else {"$eq": condition}
        converted = [_row(field, operator, value) for operator, value in operators.items()]
        if field.startswith("$") or not all(converted):
            raw[field] = condition
        else:
            rows += [row for row in converted if row]
    return rows, raw


def _row(field: str, operator: str, value: Any) -> dict[str, str] | None:
    """A comparison as a form row; None if a row cannot express it."""
    if operator == "$eq" and isinstance(value, dict) and "$regex" in value:
        return _search_row(field, value)
    name = BY_MONGODB.get(operator, "eq")
    if isinstance(value, dict) and parameters.KEY in value:
        type_ = value["type"].removeprefix(parameters.AUTO)
        return {"field": field, "operator": name, "type": type_, "value": _in_braces(value)}
    if value is None:
        return (
            {"field": field, "operator": "there" if operator == "$ne" else "missing"}
            if operator in {"$eq", "$ne"}
            else None
        )
    values = value if isinstance(value, list) else [value]
    texts = [_typed_text(each) for each in values]
    types = {text[1] for text in texts if text}
    if not all(texts) or len(types) != 1:
        return None
    if isinstance(value, list) and any("," in text[0] or text[0] != text[0].strip() for text in texts if text):
        return None
    return {
        "field": field,
        "operator": name,
        "type": types.pop(),
        "value": ", ".join(text[0] for text in texts if text),
    }


def _search_row(field: str, condition: dict[str, Any]) -> dict[str, str] | None:
    text = condition["$regex"]
    is_parameter = isinstance(text, dict)
    prefix = text.get("prefix", "") if is_parameter else "^" * text.startswith("^")
    operator = "starts" if prefix else "contains"
    # Searches that older versions wrote may mind capitals where the operator does not.
    if condition != search(text, operator_of(operator).options):
        return None
    if not is_parameter and PARAMETER.fullmatch(text.removeprefix("^").strip()):
        return None
    value = _in_braces(text) if is_parameter else text.removeprefix("^")
    return {"field": field, "operator": operator, "value": value}


def _in_braces(parameter: dict[str, str]) -> str:
    return f"{{{parameter[parameters.KEY]}}}"


def _typed_text(value: Any) -> tuple[str, str] | None:
    """A value as text and the name of its type; None if a row cannot express it."""
    if isinstance(value, bool):
        return str(value).lower(), "bool"
    if isinstance(value, int | float):
        return str(value), "number"
    if isinstance(value, str):
        return (value, "string") if value and not PARAMETER.fullmatch(value.strip()) else None
    if isinstance(value, dict) and len(value) == 1:
        (wrapper, inner), *_ = value.items()
        kind = BY_WRAPPER.get(wrapper)
        return (inner, kind.name) if kind is not None and isinstance(inner, str) else None
    return None

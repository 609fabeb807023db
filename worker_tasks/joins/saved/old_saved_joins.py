"""Parses the saved joins of an older version, which stored the builder's form as a URL query.

The old format is frozen, so do not adapt this module to changes in the current builder.
"""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.parameters import AUTO, KEY
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.typed_numbers import whole_number
from worker_tasks.joins.spec.value_types import TEXT, TypeOf, value_type

MAX_JOINS = 6
PARAMETER = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")
WITHOUT_VALUE = {"there": {"$ne": None}, "missing": None}
SEARCHES = {"contains": "", "starts": "^"}

Document = dict[str, Any]
#: Looks up the type of a field, by the name of its collection and its path.
_TypeIn = Callable[[str, str], str | None]


def read_draft(draft: str, type_of: TypeOf) -> Document:
    """Parses a draft into a join with parameters.

    Args:
        draft: the form as a URL query.
        type_of: looks up the types of fields, for values without a type.

    Raises:
        InvalidInput: the draft is invalid; the error names the invalid path.
    """
    form = _Form(parse_qsl(draft))
    database = form.text("database")

    def type_in(collection: str, path: str) -> str | None:
        return type_of(Side(None, database, collection), path)

    return _without_empty(
        {
            "database": database,
            **_side(form, type_in),
            "joins": _joins(form, type_in),
            "fields": form.texts("fields"),
            "sort": _sort(form),
            "limit": _limit(form),
        }
    )


class _Form:
    """The fields of the form, or of one of its rows."""

    def __init__(self, fields: list[tuple[str, str]]):
        self._fields = fields

    def text(self, name: str) -> str:
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        return [text for each, text in self._fields if each == name]

    def rows(self, name: str) -> list["_Form"]:
        """The rows of a list. The form names their fields ``<name>-<number>-<field>``."""
        rows: dict[int, list[tuple[str, str]]] = {}
        for each, text in self._fields:
            if match := re.fullmatch(rf"{name}-([0-9]+)-(.+)", each):
                rows.setdefault(int(match[1]), []).append((match[2], text))
        return [_Form(fields) for _, fields in sorted(rows.items())]


def _without_empty(document: Document) -> Document:
    """A copy of the document without empty values."""
    return {name: value for name, value in document.items() if value not in ("", None, [], {})}


def _side(form: _Form, type_of: _TypeIn) -> Document:
    return {"from": form.text("source"), "match": _match(form, type_of)}


def _joins(form: _Form, type_of: _TypeIn) -> list[Document]:
    rows = (form.rows("joins") or [_Form([])])[:MAX_JOINS]
    names: list[str] = []
    joins = []
    for number, row in enumerate(rows):
        kind, source = row.text("kind"), row.text("source")
        join = _side(row, type_of) | {"kind": "" if kind == "left" else kind, "on": _pairs(row)}
        if kind not in {"semi", "anti"}:
            shape = row.text("shape")
            join |= {
                "as": row.text("name") or _default_name(source, number, names),
                "shape": "" if shape == "array" else shape,
                "fields": row.texts("fields"),
                "sort": _sort(row),
                "limit": _limit(row),
            }
        names.append(row.text("name") or source)
        joins.append(_without_empty(join))
    return joins


def _default_name(source: str, number: int, taken: list[str]) -> str:
    name = re.sub(r"\W", "_", source)
    return name if name not in taken else f"{name}_{number + 1}"


def _pairs(form: _Form) -> list[Document]:
    return [_without_empty({name: row.text(name) for name in ("local", "foreign", "cast")}) for row in form.rows("on")]


def _sort(form: _Form) -> list[list[Any]]:
    rows = [row for row in form.rows("sort") if row.text("field")]
    return [[row.text("field"), -1 if row.text("direction") == "-1" else 1] for row in rows]


def _limit(form: _Form) -> int | None:
    text = form.text("limit").strip()
    try:
        return whole_number(text) if text else None
    except ValueError:
        raise InvalidInput({"join.limit": "must be a whole number, 1 or more, such as 100."}) from None


def _match(form: _Form, type_of: _TypeIn) -> Document:
    conditions = []
    for row in form.rows("filters"):
        if field := row.text("field"):
            try:
                conditions.append({field: _condition(row, form.text("source"), type_of)})
            except ValueError as error:
                raise InvalidInput({f"join.match.{field}": str(error)}) from None
    if raw := form.text("raw").strip():
        conditions.append(_raw(raw))
    return filters.merge_filters(conditions)


def _raw(text: str) -> Document:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InvalidInput({"join.match": f"is no JSON: {error}."}) from None
    if not isinstance(raw, dict):
        raise InvalidInput({"join.match": "must be an object."})
    return raw


def _condition(row: _Form, collection: str, type_of: _TypeIn) -> Any:
    operator, text = row.text("operator") or "eq", row.text("value")
    if operator in WITHOUT_VALUE:
        return WITHOUT_VALUE[operator]
    parameter = PARAMETER.fullmatch(text.strip())
    if operator in SEARCHES:
        return {"$regex": _search(text, parameter, SEARCHES[operator])}
    chosen_type = row.text("type")
    if parameter:
        value: Any = {KEY: parameter[1], "type": value_type(chosen_type).name if chosen_type else AUTO}
    else:
        parsed_as = value_type(chosen_type, None if chosen_type else type_of(collection, row.text("field")))
        value = parsed_as.read_list(text) if operator in {"in", "nin"} else parsed_as.read(text)
    return value if operator == "eq" else {f"${operator}": value}


def _search(text: str, parameter: re.Match[str] | None, prefix: str) -> Any:
    if parameter:
        return {KEY: parameter[1], "type": TEXT.name} | ({"prefix": prefix} if prefix else {})
    if not text:
        raise ValueError("has no text to look for.")
    return f"{prefix}{text}"

"""Validation errors of a join, assigned to the fields of the builder's form."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wtforms import FieldList, Form

#: Error messages by the name of the form field.
FieldErrors = Mapping[str, Sequence[str]]


def errors_by_field(form: Any, errors: Mapping[str, str]) -> FieldErrors:
    """Converts errors by JoinSpec path into errors by form field."""
    by_field: dict[str, list[str]] = {}
    for path, message in errors.items():
        field = _field_at(form, path.split(".")[1:])
        by_field.setdefault(field.name, []).append(message[0].upper() + message[1:])
    return by_field


def add_errors(form: Any, errors: FieldErrors) -> None:
    """Adds errors to their fields. Adding the same error again changes nothing."""
    for field in _fields_of(form):
        if field.name in errors:
            field.errors = list(dict.fromkeys([*field.errors, *errors[field.name]]))


def _fields_of(form: Any) -> Iterator[Any]:
    """Every field of a form, nested forms included."""
    for field in form:
        yield field
        for entry in getattr(field, "entries", []):
            yield from _fields_of(entry.form)


def _field_at(form: Any, path: list[str]) -> Any:
    """The form field for a JoinSpec path; the raw filter or the first field if no field matches."""
    names = {"from": "source", "as": "name", "match": "filters"}
    field = form
    if path[:1] == ["from"] and path[1:] in (["source"], ["database"]):
        return form.database
    while path:
        name = names.get(path[0], path[0])
        if name == "filters":
            return _condition_at(form, path[1:])
        if name == "sort" and len(path) > 1 and path[1].isdigit():
            rows = [entry.form for entry in form.sort.entries if entry.form.field.data]
            return rows[int(path[1])].field if int(path[1]) < len(rows) else form.limit
        if name == "expand" and len(path) > 1 and path[1].isdigit():
            rows = [entry.form for entry in form.expand.entries if entry.form.path.data]
            row = rows[int(path[1])] if int(path[1]) < len(rows) else form.expand.entries[0].form
            return row[path[2]] if path[2:] and path[2] in row else row.path
        if name not in form:
            break
        field, path = form[name], path[1:]
        if isinstance(field, FieldList):
            if not path or not path[0].isdigit() or int(path[0]) >= len(field.entries):
                break
            form, path = field.entries[int(path[0])].form, path[1:]
            field = next(iter(form))
    return form.source if isinstance(field, FieldList | Form) and "source" in form else field


def _condition_at(form: Any, path: list[str]) -> Any:
    """The value field of the condition for a path inside a filter; the raw filter if no condition matches."""
    paths = {entry.form.value: (entry.form.field.data or "").split(".") for entry in form.filters.entries}
    matching = [value for value, names in paths.items() if names == path[: len(names)]]
    # Prefer the most specific condition: a.b before a.
    return max(matching, key=lambda value: len(paths[value]), default=form.raw)

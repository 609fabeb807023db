"""What is wrong with a join, as errors of the builder's form: placed at its fields, and shown there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wtforms import FieldList, Form

#: What is wrong with a form, by the name of the field.
FieldErrors = Mapping[str, Sequence[str]]


def placed(form: Any, errors: Mapping[str, str]) -> FieldErrors:
    """Errors by the path in a JoinSpec, placed at the fields that say what is there."""
    found: dict[str, list[str]] = {}
    for path, message in errors.items():
        field = _field_at(form, path.split(".")[1:])
        found.setdefault(field.name, []).append(message[0].upper() + message[1:])
    return found


def show(form: Any, errors: FieldErrors) -> None:
    """Puts errors beside their fields, each message once however often it is shown."""
    for field in _fields_of(form):
        if field.name in errors:
            field.errors = list(dict.fromkeys([*field.errors, *errors[field.name]]))


def _fields_of(form: Any) -> Iterator[Any]:
    """Every field of a form, and of the forms in it."""
    for field in form:
        yield field
        for entry in getattr(field, "entries", []):
            yield from _fields_of(entry.form)


def _field_at(form: Any, path: list[str]) -> Any:
    """The field of the form that a path of a JoinSpec is about; the raw filter or the first field where none is."""
    names = {"from": "source", "as": "name", "match": "filters"}
    field = form
    while path:
        name = names.get(path[0], path[0])
        if name == "filters":
            return _condition_at(form, path[1:])
        if name == "sort" and len(path) > 1 and path[1].isdigit():
            rows = [entry.form for entry in form.sort.entries if entry.form.field.data]
            return rows[int(path[1])].field if int(path[1]) < len(rows) else form.limit
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
    """The value of the condition that a path inside a filter is about; the raw filter where no row says it."""
    steps = {entry.form.value: (entry.form.field.data or "").split(".") for entry in form.filters.entries}
    about = [value for value, names in steps.items() if names == path[: len(names)]]
    # Of conditions on a document and on a field inside it, the inner one.
    return max(about, key=lambda value: len(steps[value]), default=form.raw)

"""The builder's form: a join as it is being written, whole or not, and as the address that says all of it."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict
from wtforms import FieldList, Form, FormField, RadioField, SelectField, SelectMultipleField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice
from wtforms.widgets import CheckboxInput, ListWidget

from webapp.builder.field_errors import FieldErrors
from webapp.builder.filter_rows import FilterFormParser, filter_rows
from webapp.presenters.join_text import DIRECTION_LABELS, KIND_PHRASES, SHAPE_LABELS
from webapp.support.forms import TaskForm
from worker_tasks.joins.spec import casts, kinds, operators
from worker_tasks.joins.spec.spec import MAX_JOINS, JoinSpec
from worker_tasks.joins.spec.value_types import VALUE_TYPES, TypeOf

#: Characters of an address that servers still take (gunicorn: of the whole request line).
MAX_ADDRESS = 7_000

# The page says each kind with the names of the collections.
KINDS = [SelectChoice(kind) for kind in KIND_PHRASES]

SHAPES = [SelectChoice(shape, words[0].upper() + words[1:]) for shape, words in SHAPE_LABELS.items()]

OPERATORS = [SelectChoice(each.name, each.label) for each in operators.OPERATORS.values()]

TYPES = [SelectChoice("", "auto"), *(SelectChoice(each.name, each.label) for each in VALUE_TYPES.values())]

CASTS = [
    SelectChoice("", "as it is"),
    *(SelectChoice(each.name, f"as {each.label}") for each in casts.CASTS.values()),
]

DIRECTIONS = [SelectChoice(str(way), words) for way, words in DIRECTION_LABELS.items()]


#: The summary above a form whose fields have errors.
SEE_MARKED_FIELDS = "Something is not right yet: see what is marked."


class DraftIncomplete(Exception):
    """The draft is not a join yet. The message names the next step; ``errors`` has the messages for each field."""

    def __init__(self, message: str, errors: FieldErrors | None = None):
        self.errors = errors or {}
        super().__init__(message)

    @property
    def messages(self) -> list[str]:
        """All error messages without duplicates."""
        return list(dict.fromkeys(message for messages in self.errors.values() for message in messages))


class FilterRow(Form):
    """One condition; a row without a field is left out."""

    field = StringField("Field")
    operator = SelectField("Condition", choices=OPERATORS, default="eq", validate_choice=False)
    type = SelectField("Type", choices=TYPES, default="", validate_choice=False)
    value = StringField("Value")

    @property
    def operand(self) -> operators.Operand:
        return operators.operator_of(self.operator.data).operand


class SortRow(Form):
    """One field to sort by; a row without a field is left out."""

    field = StringField("Field")
    direction = SelectField("Order", choices=DIRECTIONS, default="1", validate_choice=False)


class PairRow(Form):
    """What is to be equal."""

    local = StringField("Field of the left side")
    foreign = StringField("Field of the other side")
    cast = SelectField("Left value", choices=CASTS, default="", validate_choice=False)


def _checkboxes(label: str) -> SelectMultipleField:
    return SelectMultipleField(
        label,
        choices=[],
        validate_choice=False,
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
    )


class JoinForm(Form):
    """One collection that is brought in."""

    source = SelectField("Collection", choices=[], validate_choice=False)
    on = FieldList(FormField(PairRow))
    kind = RadioField("Which rows", choices=KINDS, default="left", validate_choice=False)
    shape = RadioField("The matches", choices=SHAPES, default="array", validate_choice=False)
    name = StringField("Into the field")
    filters = FieldList(FormField(FilterRow))
    raw = TextAreaField("Filter as JSON")
    fields = _checkboxes("Fields to keep")
    sort = FieldList(FormField(SortRow))
    limit = StringField("At most")

    @property
    def embeds(self) -> bool:
        kind = kinds.KINDS.get(self.kind.data)
        return kind is None or kind.embeds

    @property
    def embeds_documents(self) -> bool:
        shape = kinds.SHAPES.get(self.shape.data)
        return self.embeds and (shape is None or shape.holds_documents)


class Draft(TaskForm):
    """The whole builder."""

    first_keys: tuple[str, ...] = ("",)

    database = SelectField("Database", choices=[], validate_choice=False)
    source = SelectField("Collection", choices=[], validate_choice=False)
    filters = FieldList(FormField(FilterRow))
    raw = TextAreaField("Filter as JSON")
    joins = FieldList(FormField(JoinForm))
    fields = _checkboxes("Fields to keep")
    sort = FieldList(FormField(SortRow))
    limit = StringField("At most")

    def __init__(self, written: MultiDict[str, str]):
        super().__init__(written)
        if not self.joins.entries:
            self.joins.append_entry()
        del self.joins.entries[MAX_JOINS:]
        for join in self.join_forms:
            if not join.on.entries:
                join.on.append_entry()

    @property
    def join_forms(self) -> list[Any]:
        return [entry.form for entry in self.joins.entries]

    def with_blank_rows(self) -> "Draft":
        """The same, with one empty row behind each list of conditions and sort fields."""
        for part in [self, *self.join_forms]:
            for rows in (part.filters, part.sort):
                _renumber(rows, [entry for entry in rows.entries if entry.form.field.data])
        return self

    def next_step(self) -> str | None:
        """What has to be chosen next; None where enough is there to be checked."""
        if not self.database.data:
            return "Choose a database."
        if not self.source.data:
            return "Choose the collection to begin with."
        for join in self.join_forms:
            if not join.source.data:
                return "Choose the collection to bring in."
            for entry in join.on.entries:
                pair = entry.form
                if not pair.local.data:
                    return f"Choose the field that finds the matches in {join.source.data}."
                if not pair.foreign.data:
                    return f"Choose the field of {join.source.data} that {pair.local.data} equals."
        return None

    def join_document(self, type_of: TypeOf, *, with_parameters: bool = False) -> dict[str, Any]:
        """The form as a JoinSpec in JSON, not yet validated. Does not change the form.

        Args:
            with_parameters: takes values in braces for parameters, instead of refusing them.

        Raises:
            Unfinished: something is missing, or wrong with a field.
        """
        if step := self.next_step():
            raise DraftIncomplete(step)
        reader = FilterFormParser(type_of, with_parameters=with_parameters)
        join = {
            "database": self.database.data,
            "from": self.source.data,
            "match": reader.match(self, self.source.data),
            "joins": [self._asked_join(number, reader) for number in range(len(self.joins.entries))],
            "fields": self.fields.data or None,
            "sort": reader.sort(self),
            "limit": reader.limit(self),
        }
        if reader.errors:
            raise DraftIncomplete(SEE_MARKED_FIELDS, reader.errors)
        return {name: value for name, value in join.items() if value not in (None, [], {})}

    def _asked_join(self, number: int, reader: FilterFormParser) -> dict[str, Any]:
        form = self.join_forms[number]
        on = [{name: value for name, value in entry.data.items() if value} for entry in form.on.entries]
        join = {
            "from": form.source.data,
            "kind": form.kind.data,
            "on": on,
            "match": reader.match(form, form.source.data),
        }
        if form.embeds:
            join |= {
                "as": self.target_field(number),
                "shape": form.shape.data,
                "fields": form.fields.data or None,
                "sort": reader.sort(form),
                "limit": reader.limit(form),
            }
        return {name: value for name, value in join.items() if value not in (None, [], {})}

    def target_field(self, number: int) -> str:
        """The field that the matches of this join go into."""
        return self.join_forms[number].name.data or self.default_name(number)

    def default_name(self, number: int) -> str:
        """The field that the matches go into, where none is named: the collection's name, once."""
        forms = self.join_forms
        taken = {form.name.data or form.source.data for form in forms[:number]}
        name = re.sub(r"\W", "_", forms[number].source.data or "")
        return name if name not in taken else f"{name}_{number + 1}"

    def describe_lines(self) -> list[tuple[str, str]]:
        """What the form says, line by line, with its parameters as they are written."""
        lines = [("From", f"{self.database.data}.{self.source.data}"), *_lines_of(self)]
        for number, form in enumerate(self.join_forms):
            pairs = [f"{entry.form.local.data} = {entry.form.foreign.data}" for entry in form.on.entries]
            kind = KIND_PHRASES[form.kind.data].format(left="rows", other=form.source.data)
            lines.append(("Join", f"{kind}, where {' and '.join(pairs)}"))
            if form.embeds:
                lines.append(("Into", f"{self.target_field(number)}: {SHAPE_LABELS[form.shape.data]}"))
            lines += _lines_of(form)
        return lines

    def query_string(self) -> str:
        """The form as the query of an address; empty where it is too long for one."""
        query = urlencode(list(_written(self)))
        return query if len(query) <= MAX_ADDRESS else ""


def _lines_of(form: Any) -> Iterator[tuple[str, str]]:
    labels = {option.value: option.label for option in OPERATORS}
    for entry in form.filters.entries:
        row = entry.form
        if row.field.data:
            yield (
                "Only where",
                f"{row.field.data} {labels.get(row.operator.data, '')} {row.value.data or ''}".strip(),
            )
    if form.raw.data:
        yield "Only where", form.raw.data
    if form.fields.data:
        yield "Fields", ", ".join(form.fields.data)
    sort = [entry.form for entry in form.sort.entries if entry.form.field.data]
    if sort:
        ways = {option.value: option.label for option in DIRECTIONS}
        yield "Order", "; ".join(f"{row.field.data}, {ways.get(row.direction.data, '')}" for row in sort)
    if form.limit.data:
        yield "At most", form.limit.data


def _renumber(rows: Any, kept: list[Any]) -> None:
    """Leaves these rows, numbered anew, and an empty one: a row keeps its number while others come and go behind it."""
    rows.entries, rows.last_index = [], -1
    for entry in kept:
        row = rows.append_entry(entry.data).form
        for field in entry.form:
            row[field.short_name].errors = field.errors
    rows.append_entry()


def _written(form: Any) -> Iterator[tuple[str, str]]:
    """Every field that says something, by its name in the form."""
    for field in form:
        if field.short_name == "csrf_token":
            continue
        if isinstance(field, FieldList):
            for entry in field.entries:
                if not _is_blank(entry.form):
                    yield from _written(entry.form)
        elif isinstance(field, FormField):
            yield from _written(field.form)
        elif isinstance(field, SelectMultipleField):
            yield from ((field.name, value) for value in field.data or [])
        elif field.data and field.data != field.default:
            yield field.name, field.data


def _is_blank(form: Any) -> bool:
    """Whether a row says nothing, and can be left out."""
    if isinstance(form, FilterRow | SortRow):
        return not form.field.data
    return "key" in form and not form.value.data


def spec_as_fields(spec: JoinSpec) -> MultiDict[str, str]:
    """A join as the builder's form would write it."""
    return join_as_fields(spec.canonical())


def join_as_fields(join: dict[str, Any]) -> MultiDict[str, str]:
    """A valid join as the builder's form would write it, its parameters as names in braces."""
    written: list[tuple[str, Any]] = [("database", join["database"])]
    written += _side(join, "")
    for number, each in enumerate(join["joins"]):
        prefix = f"joins-{number}-"
        written += _side(each, prefix)
        written += [(f"{prefix}name", each.get("as")), (f"{prefix}kind", each.get("kind", "left"))]
        written.append((f"{prefix}shape", each.get("shape", "array")))
        for place, pair in enumerate(each["on"]):
            written += [(f"{prefix}on-{place}-{name}", value) for name, value in pair.items()]
    return MultiDict([(name, str(value)) for name, value in written if value is not None])


def _side(side: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    yield f"{prefix}source", side["from"]
    rows, raw = filter_rows(side.get("match", {}))
    for place, row in enumerate(rows):
        yield from ((f"{prefix}filters-{place}-{name}", value) for name, value in row.items())
    if raw:
        yield f"{prefix}raw", json.dumps(raw, ensure_ascii=False)
    for field in side.get("fields") or []:
        yield f"{prefix}fields", field
    for place, (field, direction) in enumerate(side.get("sort", [])):
        yield f"{prefix}sort-{place}-field", field
        yield f"{prefix}sort-{place}-direction", direction
    yield f"{prefix}limit", side.get("limit")

"""The builder's form, which holds a complete or incomplete join. Converts it from and to URLs and JoinSpecs."""

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

#: The maximum length of a query string. It is below gunicorn's limit of 8,190 bytes for the request line.
MAX_QUERY_LENGTH = 7_000

# The choices have no labels, because the page makes labels from the names of the collections.
KIND_CHOICES = [SelectChoice(kind) for kind in KIND_PHRASES]

SHAPE_CHOICES = [SelectChoice(shape, label[0].upper() + label[1:]) for shape, label in SHAPE_LABELS.items()]

OPERATOR_CHOICES = [SelectChoice(each.name, each.label) for each in operators.OPERATORS.values()]

TYPE_CHOICES = [SelectChoice("", "auto"), *(SelectChoice(each.name, each.label) for each in VALUE_TYPES.values())]

CAST_CHOICES = [
    SelectChoice("", "as it is"),
    *(SelectChoice(each.name, f"as {each.label}") for each in casts.CASTS.values()),
]

DIRECTION_CHOICES = [SelectChoice(str(direction), label) for direction, label in DIRECTION_LABELS.items()]


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
    """One condition. Rows without a field are ignored."""

    field = StringField("Field")
    operator = SelectField("Condition", choices=OPERATOR_CHOICES, default="eq", validate_choice=False)
    type = SelectField("Type", choices=TYPE_CHOICES, default="", validate_choice=False)
    value = StringField("Value")

    @property
    def operand(self) -> operators.Operand:
        return operators.operator_of(self.operator.data).operand


class SortRow(Form):
    """One field to sort by. Rows without a field are ignored."""

    field = StringField("Field")
    direction = SelectField("Order", choices=DIRECTION_CHOICES, default="1", validate_choice=False)


class PairRow(Form):
    """Two fields whose values must be equal."""

    local = StringField("Field of the left side")
    foreign = StringField("Field of the other side")
    cast = SelectField("Left value", choices=CAST_CHOICES, default="", validate_choice=False)


def _checkboxes(label: str) -> SelectMultipleField:
    return SelectMultipleField(
        label,
        choices=[],
        validate_choice=False,
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
    )


class JoinForm(Form):
    """One joined collection."""

    source = SelectField("Collection", choices=[], validate_choice=False)
    on = FieldList(FormField(PairRow))
    kind = RadioField("Which rows", choices=KIND_CHOICES, default="left", validate_choice=False)
    shape = RadioField("The matches", choices=SHAPE_CHOICES, default="array", validate_choice=False)
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
    """The builder's whole form."""

    first_keys: tuple[str, ...] = ("",)

    database = SelectField("Database", choices=[], validate_choice=False)
    source = SelectField("Collection", choices=[], validate_choice=False)
    filters = FieldList(FormField(FilterRow))
    raw = TextAreaField("Filter as JSON")
    joins = FieldList(FormField(JoinForm))
    fields = _checkboxes("Fields to keep")
    sort = FieldList(FormField(SortRow))
    limit = StringField("At most")

    def __init__(self, fields: MultiDict[str, str]):
        super().__init__(fields)
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
        """Adds one empty row to each list of conditions and sort fields, and removes other empty rows."""
        for part in [self, *self.join_forms]:
            for rows in (part.filters, part.sort):
                _renumber(rows, [entry for entry in rows.entries if entry.form.field.data])
        return self

    def next_step(self) -> str | None:
        """The next choice to make; None if the draft can be checked."""
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
        """The form as the document of a JoinSpec, not yet validated. Does not change the form.

        Args:
            with_parameters: accepts values in braces as parameters.

        Raises:
            DraftIncomplete: a field is missing or invalid.
        """
        if step := self.next_step():
            raise DraftIncomplete(step)
        parser = FilterFormParser(type_of, with_parameters=with_parameters)
        join = {
            "database": self.database.data,
            "from": self.source.data,
            "match": parser.match(self, self.source.data),
            "joins": [self._join_part(number, parser) for number in range(len(self.joins.entries))],
            "fields": self.fields.data or None,
            "sort": parser.sort(self),
            "limit": parser.limit(self),
        }
        if parser.errors:
            raise DraftIncomplete(SEE_MARKED_FIELDS, parser.errors)
        return {name: value for name, value in join.items() if value not in (None, [], {})}

    def _join_part(self, number: int, parser: FilterFormParser) -> dict[str, Any]:
        form = self.join_forms[number]
        on = [{name: value for name, value in entry.data.items() if value} for entry in form.on.entries]
        join = {
            "from": form.source.data,
            "kind": form.kind.data,
            "on": on,
            "match": parser.match(form, form.source.data),
        }
        if form.embeds:
            join |= {
                "as": self.target_field(number),
                "shape": form.shape.data,
                "fields": form.fields.data or None,
                "sort": parser.sort(form),
                "limit": parser.limit(form),
            }
        return {name: value for name, value in join.items() if value not in (None, [], {})}

    def target_field(self, number: int) -> str:
        """The field that embeds the matches of a join."""
        return self.join_forms[number].name.data or self.default_name(number)

    def default_name(self, number: int) -> str:
        """The default field for the matches: the name of the collection, with a number if that name is taken."""
        forms = self.join_forms
        taken = {form.name.data or form.source.data for form in forms[:number]}
        name = re.sub(r"\W", "_", forms[number].source.data or "")
        return name if name not in taken else f"{name}_{number + 1}"

    def describe_lines(self) -> list[tuple[str, str]]:
        """The form as pairs of label and text, with parameters in braces."""
        lines = [("From", f"{self.database.data}.{self.source.data}"), *_describe_side(self)]
        for number, form in enumerate(self.join_forms):
            pairs = [f"{entry.form.local.data} = {entry.form.foreign.data}" for entry in form.on.entries]
            kind = KIND_PHRASES[form.kind.data].format(left="rows", other=form.source.data)
            lines.append(("Join", f"{kind}, where {' and '.join(pairs)}"))
            if form.embeds:
                lines.append(("Into", f"{self.target_field(number)}: {SHAPE_LABELS[form.shape.data]}"))
            lines += _describe_side(form)
        return lines

    def query_string(self) -> str:
        """The form as a query string; empty if it is too long for a URL."""
        query = urlencode(list(_filled_fields(self)))
        return query if len(query) <= MAX_QUERY_LENGTH else ""


def _describe_side(form: Any) -> Iterator[tuple[str, str]]:
    labels = {option.value: option.label for option in OPERATOR_CHOICES}
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
        directions = {option.value: option.label for option in DIRECTION_CHOICES}
        yield "Order", "; ".join(f"{row.field.data}, {directions.get(row.direction.data, '')}" for row in sort)
    if form.limit.data:
        yield "At most", form.limit.data


def _renumber(rows: Any, kept: list[Any]) -> None:
    """Replaces the rows with ``kept``, renumbered from 0, followed by one empty row. Errors stay with their rows."""
    rows.entries, rows.last_index = [], -1
    for entry in kept:
        row = rows.append_entry(entry.data).form
        for field in entry.form:
            row[field.short_name].errors = field.errors
    rows.append_entry()


def _filled_fields(form: Any) -> Iterator[tuple[str, str]]:
    """The names and values of all fields that differ from their defaults."""
    for field in form:
        if field.short_name == "csrf_token":
            continue
        if isinstance(field, FieldList):
            for entry in field.entries:
                if not _is_blank(entry.form):
                    yield from _filled_fields(entry.form)
        elif isinstance(field, FormField):
            yield from _filled_fields(field.form)
        elif isinstance(field, SelectMultipleField):
            yield from ((field.name, value) for value in field.data or [])
        elif field.data and field.data != field.default:
            yield field.name, field.data


def _is_blank(form: Any) -> bool:
    """Whether a row can be left out."""
    if isinstance(form, FilterRow | SortRow):
        return not form.field.data
    return "key" in form and not form.value.data


def spec_as_fields(spec: JoinSpec) -> MultiDict[str, str]:
    """A join as form data of a Draft."""
    return join_as_fields(spec.canonical())


def join_as_fields(join: dict[str, Any]) -> MultiDict[str, str]:
    """The document of a valid join as form data of a Draft, its parameters as names in braces."""
    fields: list[tuple[str, Any]] = [("database", join["database"])]
    fields += _side_as_fields(join, "")
    for number, each in enumerate(join["joins"]):
        prefix = f"joins-{number}-"
        fields += _side_as_fields(each, prefix)
        fields += [(f"{prefix}name", each.get("as")), (f"{prefix}kind", each.get("kind", "left"))]
        fields.append((f"{prefix}shape", each.get("shape", "array")))
        for place, pair in enumerate(each["on"]):
            fields += [(f"{prefix}on-{place}-{name}", value) for name, value in pair.items()]
    return MultiDict([(name, str(value)) for name, value in fields if value is not None])


def _side_as_fields(side: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
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

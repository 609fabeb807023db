"""The builder's form: a join being written, complete or not, converted to URLs and JoinSpecs."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict
from wtforms import FieldList, FormField, HiddenField, SelectField, SelectMultipleField, StringField, TextAreaField

from webapp.builder.field_errors import FieldErrors
from webapp.builder.filter_rows import FilterFormParser
from webapp.builder.form_parts import ExpandRow, FilterRow, JoinForm, SortRow, checkboxes
from webapp.builder.places import Place, parse_side
from webapp.support.forms import TaskForm
from worker_tasks.joins.spec import sides
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import MAX_EXPANDS, MAX_JOINS
from worker_tasks.joins.spec.value_types import TypeOf

#: The maximum length of a query string. It is below gunicorn's limit of 8,190 bytes for the request line.
MAX_QUERY_LENGTH = 7_000

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


class Draft(TaskForm):
    """The builder's whole form."""

    first_keys: tuple[str, ...] = ("",)

    database = SelectField("Database", choices=[], validate_choice=False)
    source = SelectField("Collection", choices=[], validate_choice=False)
    filters = FieldList(FormField(FilterRow))
    raw = TextAreaField("Filter as JSON")
    expand = FieldList(FormField(ExpandRow))
    #: Whether the collection is read alone, without any join.
    alone = HiddenField()
    joins = FieldList(FormField(JoinForm))
    fields = checkboxes("Fields to keep")
    sort = FieldList(FormField(SortRow))
    limit = StringField("At most")

    def __init__(self, fields: MultiDict[str, str]):
        super().__init__(fields)
        if self.joins.entries:
            self.alone.data = ""
        elif not self.alone.data:
            self.joins.append_entry()
        del self.joins.entries[MAX_JOINS:]
        for join in self.join_forms:
            if not join.on.entries:
                join.on.append_entry()

    @property
    def join_forms(self) -> list[Any]:
        return [entry.form for entry in self.joins.entries]

    @property
    def place(self) -> Place:
        """The database of the left side."""
        return Place.parse(self.database.data)

    @property
    def left(self) -> Side:
        """The collection to begin with."""
        return Side(*self.place, self.source.data or "")

    def side(self, form: JoinForm) -> Side:
        """The collection that a join brings in."""
        return parse_side(form.source.data, self.place)

    @property
    def joins_named_sources(self) -> bool:
        """Whether a join brings in a collection of another deployment than the default one."""
        return any(form.source.data and self.side(form).source for form in self.join_forms)

    @property
    def expanded(self) -> list[ExpandRow]:
        """The rows that expand a list."""
        return [entry.form for entry in self.expand.entries if entry.form.path.data][:MAX_EXPANDS]

    def with_blank_rows(self) -> "Draft":
        """Adds one empty row to each list of rows, and removes other empty rows."""
        _renumber(self.expand, [entry for entry in self.expand.entries if entry.form.path.data])
        del self.expand.entries[MAX_EXPANDS:]
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
                    return f"Choose the field that finds the matches in {join.collection}."
                if not pair.foreign.data:
                    return f"Choose the field of {join.collection} that {pair.local.data} equals."
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
        join = _without_empty(
            {
                "database": self.place.database,
                "from": sides.pack(self.left, Side(None, self.place.database, "")),
                "match": parser.match(self, self.left),
                "expand": [_without_empty(row.data) for row in self.expanded],
                "fields": self.fields.data,
                "sort": parser.sort(self),
                "limit": parser.limit(self),
            }
        )
        join["joins"] = [self._join_part(number, parser) for number in range(len(self.joins.entries))]
        if parser.errors:
            raise DraftIncomplete(SEE_MARKED_FIELDS, parser.errors)
        return join

    def _join_part(self, number: int, parser: FilterFormParser) -> dict[str, Any]:
        form = self.join_forms[number]
        side = self.side(form)
        join = {
            "from": sides.pack(side, self.left),
            "kind": form.chosen_kind,
            "on": [_without_empty(entry.data) for entry in form.on.entries],
            "match": parser.match(form, side),
        }
        if form.embeds:
            join |= {
                "into": form.into.data,
                "as": self.target_field(number),
                "shape": form.chosen_shape,
                "fields": form.fields.data,
                "sort": parser.sort(form),
                "limit": parser.limit(form),
            }
        return _without_empty(join)

    def target_field(self, number: int) -> str:
        """The field that embeds the matches of a join."""
        return self.join_forms[number].name.data or self.default_name(number)

    def target_path(self, number: int) -> str:
        """The path of that field in the rows."""
        into, name = self.join_forms[number].into.data, self.target_field(number)
        return f"{into}.{name}" if into else name

    def default_name(self, number: int) -> str:
        """The default field for the matches: the name of the collection, with a number if that name is taken."""
        forms = self.join_forms
        taken = {form.name.data or form.collection for form in forms[:number]}
        name = re.sub(r"\W", "_", forms[number].collection)
        return name if name not in taken else f"{name}_{number + 1}"

    def query_string(self) -> str:
        """The form as a query string; empty if it is too long for a URL."""
        query = urlencode(list(_filled_fields(self)))
        return query if len(query) <= MAX_QUERY_LENGTH else ""


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """The document without empty values."""
    return {name: value for name, value in document.items() if value not in (None, "", [], {}) and value is not False}


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
            yield field.name, str(field.data)


def _is_blank(form: Any) -> bool:
    """Whether a row can be left out."""
    if isinstance(form, FilterRow | SortRow):
        return not form.field.data
    if isinstance(form, ExpandRow):
        return not form.path.data
    return "key" in form and not form.value.data

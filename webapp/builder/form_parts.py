"""The parts of the builder's form: its rows, and the form of one joined collection."""

from typing import Any

from wtforms import (
    BooleanField,
    FieldList,
    Form,
    FormField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice
from wtforms.widgets import CheckboxInput, ListWidget

from webapp.builder.places import SEPARATOR
from webapp.presenters.join_text import DIRECTION_LABELS, KIND_PHRASES, SHAPE_LABELS
from worker_tasks.joins.spec import casts, folds, kinds, operators
from worker_tasks.joins.spec.value_types import VALUE_TYPES

# Without labels: the page makes them from the names of the collections.
KIND_CHOICES = [SelectChoice(kind) for kind in KIND_PHRASES]

SHAPE_CHOICES = [SelectChoice(shape, label[0].upper() + label[1:]) for shape, label in SHAPE_LABELS.items()]

OPERATOR_CHOICES = [SelectChoice(each.name, each.label) for each in operators.OPERATORS.values()]

TYPE_CHOICES = [SelectChoice("", "auto"), *(SelectChoice(each.name, each.label) for each in VALUE_TYPES.values())]

CAST_CHOICES = [
    SelectChoice("", "as it is"),
    *(SelectChoice(each.name, f"as {each.label}") for each in casts.CASTS.values()),
]

FOLD_CHOICES = [
    SelectChoice("", "exactly"),
    *(SelectChoice(each.name, each.label) for each in folds.FOLDS.values()),
]

DIRECTION_CHOICES = [SelectChoice(str(direction), label) for direction, label in DIRECTION_LABELS.items()]


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
    fold = SelectField("Compare", choices=FOLD_CHOICES, default="", validate_choice=False)


class ExpandRow(Form):
    """One list to expand. Rows without a path are ignored."""

    path = StringField("List")
    position = StringField("Position into")
    keep_empty = BooleanField("Keep rows whose list is empty")


def checkboxes(label: str) -> SelectMultipleField:
    """A field with a checkbox for each choice."""
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
    #: The list whose elements take the matches; rendered as a checkbox.
    into = StringField("Into each element of a list")
    filters = FieldList(FormField(FilterRow))
    raw = TextAreaField("Filter as JSON")
    fields = checkboxes("Fields to keep")
    sort = FieldList(FormField(SortRow))
    limit = StringField("At most")

    @property
    def collection(self) -> str:
        """The name of the collection, without its source and database."""
        return (self.source.data or "").rpartition(SEPARATOR)[2]

    @property
    def chosen_kind(self) -> str:
        """The kind of join; matches in the elements of a list leave every row as it is."""
        return kinds.DEFAULT_KIND if self.into.data else self.kind.data

    @property
    def chosen_shape(self) -> str:
        """The shape of the matches; matches in the elements of a list make no rows of their own."""
        shape = kinds.SHAPES.get(self.shape.data)
        return kinds.DEFAULT_SHAPE if self.into.data and shape and shape.repeats_rows else self.shape.data

    @property
    def embeds(self) -> bool:
        kind = kinds.KINDS.get(self.chosen_kind)
        return kind is None or kind.embeds

    @property
    def embeds_documents(self) -> bool:
        shape = kinds.SHAPES.get(self.chosen_shape)
        return self.embeds and (shape is None or shape.holds_documents)

    @property
    def embeds_list(self) -> bool:
        """Whether the added field is a list of documents."""
        shape = kinds.SHAPES.get(self.chosen_shape)
        return self.embeds and (shape is None or shape.holds_list)

    @property
    def shape_options(self) -> list[Any]:
        """The shapes to choose from, as radio buttons."""
        return [option for option in self.shape if not (self.into.data and kinds.SHAPES[option.data].repeats_rows)]

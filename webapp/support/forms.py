"""The forms: what a person may fill in, checked by the same rules as the API."""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import FieldList, Form, FormField, HiddenField, StringField, ValidationError

from webapp.support import metadata_edits
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan import user_orders
from worker_tasks.records import metadata as metadata_rules

#: The note's key among the metadata.
NOTE = "note"
FIRST_METADATA_KEYS = ("metadata_1", "metadata_2", "")
MAX_INPUT_LENGTH = 1000


class MetadataRow(Form):
    """One key and its value; a row without a value is left out."""

    key = StringField("Key")
    value = StringField("Value")

    def validate_key(self, field: StringField) -> None:
        if self.value.data and (complaint := metadata_rules.key_error(field.data or "")):
            raise ValidationError(f"Here {complaint}")


class TaskForm(FlaskForm):
    """What every request carries: a note why, and free metadata."""

    first_keys: tuple[str, ...] = FIRST_METADATA_KEYS

    note = StringField("Note", description="Why you ask. It stays with the task, and is how others find it again.")
    # Without max_entries, which would drop the rows beyond it in silence.
    metadata = FieldList(FormField(MetadataRow))

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not self.metadata.entries:
            for key in self.first_keys:
                self.metadata.append_entry({"key": key})

    def collected_metadata(self) -> dict[str, str]:
        """The note and every row that has a value."""
        note = {NOTE: self.note.data} if self.note.data else {}
        return note | {row["key"]: row["value"] for row in self.metadata.data if row["value"]}

    def validate_note(self, field: StringField) -> None:
        # Only what is wrong with all of it together: what is wrong with one key stands beside that one.
        if complaint := metadata_rules.metadata_errors(self.collected_metadata(), "metadata").get("metadata"):
            raise ValidationError(f"With the metadata, it {complaint}")

    def validate_metadata(self, field: FieldList) -> None:
        refuse_repeated(field, {NOTE} if self.note.data else set())

    def adds_row(self, action: str) -> bool:
        """Handles the form's secondary buttons; False if the form itself was submitted.

        Raises:
            InvalidInput: there is no such button.
        """
        match action:
            case "":
                return False
            case "add-row":
                self.add_metadata_row()
                return True
            case _:
                raise InvalidInput({"do": "must be add-row, or be left out. Nothing was submitted."})

    def add_metadata_row(self) -> None:
        if len(self.metadata.entries) < metadata_rules.MAX_KEYS:
            self.metadata.append_entry({"key": ""})


def refuse_repeated(rows: FieldList, seen: set[str]) -> None:
    """Refuses a key with a value that is in two rows, or in one of them and among those seen already.

    Raises:
        ValidationError: there is such a key.
    """
    for row in rows.entries:
        key = row.form.key.data
        if row.form.value.data and key in seen:
            complaint = f"The key “{key}” is there twice."
            # Shown beside its row; raised, so that the form as a whole does not pass.
            row.form.key.errors = [*row.form.key.errors, complaint]
            raise ValidationError(complaint)
        seen.add(key)


def metadata_as_fields(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata as the fields of a form say it."""
    written = {}
    others = {key: value for key, value in metadata.items() if key != NOTE}
    if NOTE in metadata:
        written[NOTE] = metadata_rules.text_of(metadata[NOTE])
    for number, (key, value) in enumerate(others.items()):
        written[f"metadata-{number}-key"] = key
        written[f"metadata-{number}-value"] = metadata_rules.text_of(value)
    return written


class SavedJoinForm(TaskForm):
    """What goes with the values of a saved join."""

    first_keys = ("",)


class EditedRow(MetadataRow):
    """A key and its value, and both as they were when the form was opened."""

    was_key = HiddenField()
    was_value = HiddenField()

    @property
    def is_untouched(self) -> bool:
        typed, shown = ((self.key, self.value), (self.was_key, self.was_value))
        return bool(self.was_key.data) and [as_input_text(each.data) for each in typed] == [
            as_input_text(each.data) for each in shown
        ]

    def validate_key(self, field: StringField) -> None:
        if not self.is_untouched:
            super().validate_key(field)


def as_input_text(text: str | None) -> str:
    """Text as it comes back from an input of one line in which nobody typed."""
    return (text or "").translate({ord("\r"): None, ord("\n"): None, 0: "\ufffd"})


class MetadataForm(FlaskForm):
    """The metadata of a task, to be changed.

    Each row carries what it was opened with, so that only what this person changed is changed.
    """

    metadata = FieldList(FormField(EditedRow))

    @classmethod
    def of(cls, metadata: dict[str, Any], typed: dict[str, str] | None = None) -> "MetadataForm":
        """The form with what a task has, and an empty row.

        Args:
            typed: what a person wants instead, by key; an empty text for a key that is to go.
        """
        shown = {as_input_text(key): as_input_text(metadata_rules.text_of(value)) for key, value in metadata.items()}
        rows = [
            {"key": key, "value": value, "was_key": key if key in shown else "", "was_value": shown.get(key, "")}
            for key, value in {**shown, **(typed or {})}.items()
        ]
        return cls(formdata=None, data={"metadata": [*rows, {"key": ""}]})

    @property
    def base_error(self) -> str | None:
        """What is wrong with what the form says it was opened with, if anything."""
        rows = [row.form for row in self.metadata.entries]
        keys = [as_input_text(row.was_key.data) for row in rows if row.was_key.data]
        if any(row.was_key.raw_data == [] for row in rows):
            return "does not say what the form was opened with. Open the page again."
        if len(keys) != len(set(keys)) or any(row.was_value.data and not row.was_key.data for row in rows):
            return "says in two ways what the form was opened with. Open the page again."
        return None

    def edited(self, stored: dict[str, Any]) -> dict[str, Any]:
        """What is stored, with what this person changed; a value that was not touched keeps its type.

        Raises:
            EditConflict: somebody else changed the same keys meanwhile, to something else.
        """
        keys = {as_input_text(key): key for key in stored}
        shown = {as_input_text(key): as_input_text(metadata_rules.text_of(value)) for key, value in stored.items()}
        base, typed = self._base_and_typed()
        merged = metadata_edits.merge_edits(base, typed, shown)
        outcome = {key: value for key, value in stored.items() if as_input_text(key) in merged}
        return outcome | {keys.get(key, key): text for key, text in merged.items() if text != shown.get(key)}

    def rebased(self, stored: dict[str, Any]) -> "MetadataForm":
        """The form as if it had been opened with what is stored now, with what this person changed typed in again."""
        base, typed = self._base_and_typed()
        touched = [key for key in {**base, **typed} if typed.get(key) != base.get(key)]
        return self.of(stored, {key: typed.get(key, "") for key in touched})

    def _base_and_typed(self) -> tuple[dict[str, str], dict[str, str]]:
        rows = [row.form for row in self.metadata.entries]
        base = {as_input_text(row.was_key.data): as_input_text(row.was_value.data) for row in rows if row.was_key.data}
        typed = {
            as_input_text(row.key.data): as_input_text(row.value.data)
            for row in rows
            if row.value.data or row.is_untouched
        }
        return base, typed

    def validate_metadata(self, field: FieldList) -> None:
        refuse_repeated(field, set())


class UserOrdersForm(TaskForm):
    """The original join."""

    user_id = StringField("User id", description="The _id of a user in the collection users, such as u1.")

    def validate_user_id(self, field: StringField) -> None:
        if complaint := user_orders.user_id_error(field.data):
            raise ValidationError(f"The user id {complaint}")


class PracticeForm(TaskForm):
    """The practice task."""

    task_input = StringField("Task input", description="Any text; it comes back when the task is done.")

    def validate_task_input(self, field: StringField) -> None:
        if not (field.data or "").strip():
            raise ValidationError("Give some text.")
        if len(field.data) > MAX_INPUT_LENGTH:
            raise ValidationError(f"At most {MAX_INPUT_LENGTH:,} characters.")


def error_attributes(field: Any, hint: str) -> dict[str, str]:
    """The attributes that tie a field to what is said about it."""
    said = [f"{field.id}-hint"] if hint else []
    if not field.errors:
        return {"aria-describedby": said[0]} if said else {}
    return {"aria-invalid": "true", "aria-describedby": " ".join([*said, f"{field.id}-errors"])}

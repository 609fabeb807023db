"""Forms, validated by the same rules as the API."""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import FieldList, Form, FormField, HiddenField, StringField, ValidationError

from webapp.support import metadata_edits
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan import user_orders
from worker_tasks.records import metadata as metadata_rules

#: The metadata key of the note.
NOTE = "note"
FIRST_METADATA_KEYS = ("metadata_1", "metadata_2", "")
MAX_INPUT_LENGTH = 1000


class MetadataRow(Form):
    """One key and its value. Rows without a value are ignored."""

    key = StringField("Key")
    value = StringField("Value")

    def validate_key(self, field: StringField) -> None:
        if self.value.data and (error := metadata_rules.key_error(field.data or "")):
            raise ValidationError(f"Here {error}")


class TaskForm(FlaskForm):
    """The note and metadata, which every form that submits a task has."""

    first_keys: tuple[str, ...] = FIRST_METADATA_KEYS

    note = StringField("Note", description="Why you ask. It stays with the task, and is how others find it again.")
    # Do not set max_entries, which would silently drop further rows.
    metadata = FieldList(FormField(MetadataRow))

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not self.metadata.entries:
            for key in self.first_keys:
                self.metadata.append_entry({"key": key})

    def collected_metadata(self) -> dict[str, str]:
        """The note and the rows with a value."""
        note = {NOTE: self.note.data} if self.note.data else {}
        return note | {row["key"]: row["value"] for row in self.metadata.data if row["value"]}

    def validate_note(self, field: StringField) -> None:
        # Only errors of the metadata as a whole. Errors of a single key appear beside its row.
        if error := metadata_rules.metadata_errors(self.collected_metadata(), "metadata").get("metadata"):
            raise ValidationError(f"With the metadata, it {error}")

    def validate_metadata(self, field: FieldList) -> None:
        refuse_repeated(field, {NOTE} if self.note.data else set())

    def adds_row(self, action: str) -> bool:
        """Handles the "Add a row" button. Returns False if the form itself was submitted.

        Raises:
            InvalidInput: the form has no such button.
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
    """Refuses a key that appears in two rows with a value, or in one such row and in ``seen``.

    Raises:
        ValidationError: a key appears twice.
    """
    for row in rows.entries:
        key = row.form.key.data
        if row.form.value.data and key in seen:
            message = f"The key “{key}” is there twice."
            # Shown beside the row, and raised so that the whole form is invalid.
            row.form.key.errors = [*row.form.key.errors, message]
            raise ValidationError(message)
        seen.add(key)


def metadata_as_fields(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata as the form data of a TaskForm."""
    fields = {}
    others = {key: value for key, value in metadata.items() if key != NOTE}
    if NOTE in metadata:
        fields[NOTE] = metadata_rules.text_of(metadata[NOTE])
    for number, (key, value) in enumerate(others.items()):
        fields[f"metadata-{number}-key"] = key
        fields[f"metadata-{number}-value"] = metadata_rules.text_of(value)
    return fields


class SavedJoinForm(TaskForm):
    """The note and metadata for a run of a saved join."""

    first_keys = ("",)


class EditedRow(MetadataRow):
    """A key and its value, with the original key and value in hidden fields."""

    was_key = HiddenField()
    was_value = HiddenField()

    @property
    def is_untouched(self) -> bool:
        pairs = ((self.key, self.was_key), (self.value, self.was_value))
        return bool(self.was_key.data) and all(
            as_input_text(now.data) == as_input_text(before.data) for now, before in pairs
        )

    def validate_key(self, field: StringField) -> None:
        if not self.is_untouched:
            super().validate_key(field)


def as_input_text(text: str | None) -> str:
    """Text as a browser returns it from an unchanged single-line input."""
    return (text or "").translate({ord("\r"): None, ord("\n"): None, 0: "\ufffd"})


class MetadataForm(FlaskForm):
    """The form that edits a task's metadata.

    Each row carries its original key and value, so that a submission applies only this person's changes.
    """

    metadata = FieldList(FormField(EditedRow))

    @classmethod
    def of(cls, metadata: dict[str, Any], typed: dict[str, str] | None = None) -> "MetadataForm":
        """The form for this metadata, with an empty row at the end.

        Args:
            typed: edited values by key; an empty text deletes the key.
        """
        shown = {as_input_text(key): as_input_text(metadata_rules.text_of(value)) for key, value in metadata.items()}
        rows = [
            {"key": key, "value": value, "was_key": key if key in shown else "", "was_value": shown.get(key, "")}
            for key, value in {**shown, **(typed or {})}.items()
        ]
        return cls(formdata=None, data={"metadata": [*rows, {"key": ""}]})

    @property
    def base_error(self) -> str | None:
        """An error in the hidden original values, or None."""
        rows = [row.form for row in self.metadata.entries]
        keys = [as_input_text(row.was_key.data) for row in rows if row.was_key.data]
        if any(row.was_key.raw_data == [] for row in rows):
            return "does not say what the form was opened with. Open the page again."
        if len(keys) != len(set(keys)) or any(row.was_value.data and not row.was_key.data for row in rows):
            return "says in two ways what the form was opened with. Open the page again."
        return None

    def edited(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The stored metadata with this person's changes. Untouched values keep their type.

        Raises:
            EditConflict: somebody else has changed the same keys to other values.
        """
        keys = {as_input_text(key): key for key in stored}
        shown = {as_input_text(key): as_input_text(metadata_rules.text_of(value)) for key, value in stored.items()}
        base, typed = self._base_and_typed()
        merged = metadata_edits.merge_edits(base, typed, shown)
        kept = {key: value for key, value in stored.items() if as_input_text(key) in merged}
        return kept | {keys.get(key, key): text for key, text in merged.items() if text != shown.get(key)}

    def rebased(self, stored: dict[str, Any]) -> "MetadataForm":
        """The form for the metadata stored now, with this person's changes filled in again."""
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
    """The fixed join of a user with their orders."""

    user_id = StringField("User id", description="The _id of a user in the collection users, such as u1.")

    def validate_user_id(self, field: StringField) -> None:
        if error := user_orders.user_id_error(field.data):
            raise ValidationError(f"The user id {error}")


class PracticeForm(TaskForm):
    """The practice task."""

    task_input = StringField("Task input", description="Any text; it comes back when the task is done.")

    def validate_task_input(self, field: StringField) -> None:
        if not (field.data or "").strip():
            raise ValidationError("Give some text.")
        if len(field.data) > MAX_INPUT_LENGTH:
            raise ValidationError(f"At most {MAX_INPUT_LENGTH:,} characters.")


def error_attributes(field: Any, hint: str) -> dict[str, str]:
    """The ARIA attributes that connect a field with its hint and its errors."""
    ids = [f"{field.id}-hint"] if hint else []
    if not field.errors:
        return {"aria-describedby": ids[0]} if ids else {}
    return {"aria-invalid": "true", "aria-describedby": " ".join([*ids, f"{field.id}-errors"])}

"""The forms: what a person may fill in, checked by the same rules as the API."""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import FieldList, Form, FormField, StringField, ValidationError

from worker_tasks import metadata as metadata_rules
from worker_tasks.joins import user_orders

#: The note's key among the metadata.
NOTE = "note"
FIRST_METADATA_KEYS = ("metadata_1", "metadata_2", "")
MAX_INPUT_LENGTH = 1000


class MetadataRow(Form):
    """One key and its value; a row without a value is left out."""

    key = StringField("Key")
    value = StringField("Value")

    def validate_key(self, field: StringField) -> None:
        if self.value.data and (complaint := metadata_rules.key_complaint(field.data or "")):
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
        if complaint := metadata_rules.errors_in(self.collected_metadata(), "metadata").get("metadata"):
            raise ValidationError(f"With the metadata, it {complaint}")

    def validate_metadata(self, field: FieldList) -> None:
        seen = {NOTE} if self.note.data else set()
        for row in field.entries:
            key = row.form.key.data
            if row.form.value.data and key in seen:
                complaint = f"The key “{key}” is there twice."
                # Shown beside its row; raised, so that the form as a whole does not pass.
                row.form.key.errors = [*row.form.key.errors, complaint]
                raise ValidationError(complaint)
            seen.add(key)

    def add_metadata_row(self) -> None:
        if len(self.metadata.entries) < metadata_rules.MAX_KEYS:
            self.metadata.append_entry({"key": ""})


def as_written(metadata: dict[str, Any]) -> dict[str, str]:
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


class MetadataForm(FlaskForm):
    """The metadata of a task, to be changed."""

    metadata = FieldList(FormField(MetadataRow))

    @classmethod
    def of(cls, task: dict[str, Any]) -> "MetadataForm":
        """The form with what a task has, and an empty row."""
        rows = [{"key": key, "value": metadata_rules.text_of(value)} for key, value in task["metadata"].items()]
        return cls(formdata=None, data={"metadata": [*rows, {"key": "", "value": ""}]})

    def changed(self, before: dict[str, Any]) -> dict[str, Any]:
        """The metadata that the form says, after this one."""
        rows = {row["key"]: row["value"] for row in self.metadata.data if row["value"]}
        return {
            key: before[key] if key in before and metadata_rules.text_of(before[key]) == value else value
            for key, value in rows.items()
        }

    def validate_metadata(self, field: FieldList) -> None:
        rows = {row["key"]: row["value"] for row in field.data if row["value"]}
        if complaint := metadata_rules.errors_in(rows, "metadata").get("metadata"):
            raise ValidationError(f"It {complaint}")


class UserOrdersForm(TaskForm):
    """The original join."""

    user_id = StringField("User id", description="The _id of a user in the collection users, such as u1.")

    def validate_user_id(self, field: StringField) -> None:
        if complaint := user_orders.user_id_complaint(field.data):
            raise ValidationError(f"The user id {complaint}")


class PracticeForm(TaskForm):
    """The practice task."""

    task_input = StringField("Task input", description="Any text; it comes back when the task is done.")

    def validate_task_input(self, field: StringField) -> None:
        if not (field.data or "").strip():
            raise ValidationError("Give some text.")
        if len(field.data) > MAX_INPUT_LENGTH:
            raise ValidationError(f"At most {MAX_INPUT_LENGTH:,} characters.")


def wrong(field: Any, hint: str) -> dict[str, str]:
    """The attributes that tie a field to what is said about it."""
    said = [f"{field.id}-hint"] if hint else []
    if not field.errors:
        return {"aria-describedby": said[0]} if said else {}
    return {"aria-invalid": "true", "aria-describedby": " ".join([*said, f"{field.id}-errors"])}

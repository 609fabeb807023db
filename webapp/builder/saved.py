"""The pages that list, run and delete saved joins."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.builder.draft_text import describe_draft
from webapp.builder.drafts import SEE_MARKED_FIELDS, Draft, DraftIncomplete
from webapp.builder.join_fields import join_as_fields
from webapp.builder.samples import SAMPLE_JOINS
from webapp.presenters.task_text import SAVED_JOIN
from webapp.support.errors import service_unavailable
from webapp.support.forms import SavedJoinForm
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput, ServiceUnavailable, named_driver_errors
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight.sampling import field_type
from worker_tasks.joins.saved import saved_joins
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.parameters import Parameter
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.joins.spec.value_types import TypeOf
from worker_tasks.submission import admit, submit_join

blueprint = Blueprint("saved", __name__, url_prefix="/saved")

MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH = 100, 1_000


def available_joins() -> list[dict[str, Any]]:
    """The saved joins, newest first, then the samples whose database joins may read."""
    open_databases = settings().open_databases
    samples = [join for join in SAMPLE_JOINS if join["join"]["database"] in open_databases]
    return [*saved_joins.newest(), *samples]


def find_join(saved_id: str) -> dict[str, Any]:
    """The saved join or sample with this id.

    Raises:
        SavedJoinNotFound: no join has this id.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    sample = next((join for join in SAMPLE_JOINS if join["_id"] == saved_id), None)
    return sample or saved_joins.find_saved_join(saved_id)


def save_join(join: Document, form: Mapping[str, str]) -> str:
    """Saves a join under the name and description in the form. Returns its id.

    Raises:
        DraftIncomplete: the name is missing, or the name or the description is too long.
        pymongo.errors.PyMongoError: the write may or may not have happened.
    """
    name, description = form.get("saved_name", "").strip(), form.get("saved_description", "").strip()
    if not name or len(name) > MAX_NAME_LENGTH:
        raise DraftIncomplete(f"Give the saved join a name of at most {MAX_NAME_LENGTH} characters.")
    if len(description) > MAX_DESCRIPTION_LENGTH:
        raise DraftIncomplete(f"A description has at most {MAX_DESCRIPTION_LENGTH:,} characters.")
    if not Draft(join_as_fields(join)).query_string():
        raise DraftIncomplete("This join is too long to be saved.")
    return saved_joins.save(name, description, join)


def saved_as_fields(saved_id: str) -> MultiDict[str, str]:
    """A saved join as form data of a Draft.

    Raises:
        SavedJoinNotFound: no join has this id.
        InvalidInput: the stored join is no longer valid.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    return join_as_fields(saved_joins.read_join(find_join(saved_id)))


@blueprint.get("")
def all_joins() -> ResponseReturnValue:
    return render_template("builder/saved_joins.html", joins=available_joins())


@blueprint.get("/<saved_id>")
def saved_join(saved_id: str) -> ResponseReturnValue:
    saved = find_join(saved_id)
    try:
        join = saved_joins.read_join(saved)
    except InvalidInput as error:
        return _unreadable(saved, error)
    return _page(saved, join, SavedJoinForm(), dict(request.args.items()))


@blueprint.post("/<saved_id>")
def run(saved_id: str) -> ResponseReturnValue:
    """Runs a saved join with the submitted values."""
    form, values = SavedJoinForm(), _submitted_values()
    saved: Document = {"_id": saved_id, "name": "Saved join"}
    try:
        with named_driver_errors():
            saved = find_join(saved_id)
            return _run(saved, form, values)
    except ServiceUnavailable as error:
        return service_unavailable(error, _as_submitted(saved, form, values, str(error)))


def _run(saved: Document, form: SavedJoinForm, values: dict[str, str]) -> ResponseReturnValue:
    join = saved_joins.read_join(saved)
    if form.adds_row(request.form.get("do", "")):
        return _page(saved, join, form, values)
    try:
        spec = _fill_parameters(join, values)
        if not form.validate():
            raise DraftIncomplete(SEE_MARKED_FIELDS)
        task_id = submit_join(admit(spec), metadata=form.collected_metadata() | {SAVED_JOIN: saved["name"]})
    except (DraftIncomplete, InvalidInput) as error:
        return _page(saved, join, form, values, error), 422
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/<saved_id>/deletion")
def delete(saved_id: str) -> ResponseReturnValue:
    saved_joins.delete(saved_id)
    return redirect(url_for(".all_joins"), 303)


def _submitted_values() -> dict[str, str]:
    """The submitted values by parameter name."""
    prefix = "value-"
    return {name.removeprefix(prefix): text for name, text in request.form.items() if name.startswith(prefix)}


def _fill_parameters(join: Document, values: Mapping[str, str]) -> JoinSpec:
    names = {parameter.name for parameter in parameters.find_parameters(join)}
    known = {name: text for name, text in values.items() if name in names}
    return parameters.fill(join, known, field_type)


def _page(
    saved: Document, join: Document, form: SavedJoinForm, values: Mapping[str, str], error: Exception | None = None
) -> str:
    errors = error.errors if isinstance(error, InvalidInput) else {}
    fields = _parameter_fields(join, field_type, values, errors)
    is_marked = any(field["errors"] for field in fields)
    return render_template(
        "builder/saved_join.html",
        join=saved,
        parameters=fields,
        form=form,
        error=SEE_MARKED_FIELDS if is_marked else error and str(error),
        can_be_deleted=saved not in SAMPLE_JOINS,
        **_describe(saved, join),
    )


def _describe(saved: Document, join: Document) -> dict[str, Any]:
    """The lines that describe a saved join, and its query string for the builder."""
    draft = Draft(join_as_fields(join))
    # If a join is too long for a URL, the URL has its id instead.
    return {"lines": describe_draft(draft), "query": draft.query_string() or urlencode({"saved": saved["_id"]})}


def _parameter_fields(
    join: Document, types: TypeOf, values: Mapping[str, str], errors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The form fields for the parameters of a join, one for each name."""
    by_name: dict[str, Parameter] = {}
    for parameter in parameters.find_parameters(join):
        by_name.setdefault(parameter.name, parameter)
    return [
        _field(parameter, types, values.get(name, ""), errors.get(f"parameters.{name}"))
        for name, parameter in by_name.items()
    ]


def _field(parameter: Parameter, types: TypeOf, text: str, error: str | None) -> dict[str, Any]:
    expected = parameter.value_type(types)
    if error and not text:
        error = "Give a value."
    return {
        "name": parameter.name,
        "label": _label(parameter.name),
        "hint": f"{parameter.field}: {expected.hint}",
        "mode": expected.input_mode,
        "value": text,
        "errors": [error[0].upper() + error[1:]] if error else [],
    }


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _as_submitted(saved: Document, form: SavedJoinForm, values: Mapping[str, str], error: str) -> str:
    """The form with the text as submitted, without converting the values. ``saved`` may have only the join's id."""
    fields = [{"name": name, "label": _label(name), "value": value} for name, value in values.items()]
    description = _describe(saved, saved["join"]) if "join" in saved else {"lines": []}
    return render_template(
        "builder/saved_join.html", join=saved, parameters=fields, form=form, error=error, **description
    )


def _unreadable(saved: Document, error: InvalidInput) -> str:
    """The page of a join that can no longer be run, only deleted."""
    return render_template("builder/saved_join.html", join=saved, unreadable=str(error), can_be_deleted=True)

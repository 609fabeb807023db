"""Saved joins: listed, run with the values that they ask for, deleted."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.builder.drafts import SEE_MARKED_FIELDS, Draft, DraftIncomplete, join_as_fields
from webapp.builder.samples import SAMPLE_JOINS
from webapp.presenters.task_text import SAVED_JOIN
from webapp.support.errors import service_unavailable
from webapp.support.forms import SavedJoinForm
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput, ServiceUnavailable
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight.sampling import field_types
from worker_tasks.joins.saved import saved_joins
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.parameters import Parameter
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.joins.spec.value_types import TypeOf
from worker_tasks.submission import admit, submit_join

blueprint = Blueprint("saved", __name__, url_prefix="/saved")

MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH = 100, 1_000


def available_joins() -> list[dict[str, Any]]:
    """The joins that are there from the start, as far as their database is open, then those that people saved."""
    open_databases = settings().open_databases
    ready = [join for join in SAMPLE_JOINS if join["join"]["database"] in open_databases]
    return [*saved_joins.newest(), *ready]


def find_join(saved_id: str) -> dict[str, Any]:
    """The saved join of this id.

    Raises:
        SavedJoinNotFound: there is none.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    ready = next((join for join in SAMPLE_JOINS if join["_id"] == saved_id), None)
    return ready or saved_joins.find(saved_id)


def save_join(join: Document, given: Mapping[str, str]) -> str:
    """Keeps a join with its parameters; returns its id.

    Raises:
        Unfinished: it has no name, or is too long.
        pymongo.errors.PyMongoError: not known to be kept.
    """
    name, description = given.get("saved_name", "").strip(), given.get("saved_description", "").strip()
    if not name or len(name) > MAX_NAME_LENGTH:
        raise DraftIncomplete(f"Give the saved join a name of at most {MAX_NAME_LENGTH} characters.")
    if len(description) > MAX_DESCRIPTION_LENGTH:
        raise DraftIncomplete(f"A description has at most {MAX_DESCRIPTION_LENGTH:,} characters.")
    if not Draft(join_as_fields(join)).query_string():
        raise DraftIncomplete("This join is too long to be saved.")
    return saved_joins.save(name, description, join)


def saved_as_fields(saved_id: str) -> MultiDict[str, str]:
    """A saved join as the builder's form would write it.

    Raises:
        SavedJoinNotFound: there is none of this id.
        InvalidInput: it can no longer be read.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    return join_as_fields(saved_joins.join_of(find_join(saved_id)))


@blueprint.get("")
def all_joins() -> ResponseReturnValue:
    return render_template("saved/joins.html", joins=available_joins())


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
    """Runs a saved join with the values that were given."""
    form, given = SavedJoinForm(), _given()
    saved: Document = {"_id": saved_id, "name": "Saved join"}
    try:
        with servers_needed():
            saved = find_join(saved_id)
            return _run(saved, form, given)
    except ServiceUnavailable as error:
        return service_unavailable(error, _as_typed(saved, form, given, str(error)))


def _run(saved: Document, form: SavedJoinForm, given: dict[str, str]) -> ResponseReturnValue:
    join = saved_joins.read_join(saved)
    if form.adds_row(request.form.get("do", "")):
        return _page(saved, join, form, given)
    try:
        spec = _filled(join, given)
        if not form.validate():
            raise DraftIncomplete(SEE_MARKED_FIELDS)
        task_id = submit_join(admit(spec), metadata=form.collected_metadata() | {SAVED_JOIN: saved["name"]})
    except (DraftIncomplete, InvalidInput) as error:
        return _page(saved, join, form, given, error), 422
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/<saved_id>/deletion")
def delete(saved_id: str) -> ResponseReturnValue:
    saved_joins.delete(saved_id)
    return redirect(url_for(".all_joins"), 303)


def _given() -> dict[str, str]:
    """The values that were typed, by the names of the parameters."""
    prefix = "value-"
    return {name.removeprefix(prefix): text for name, text in request.form.items() if name.startswith(prefix)}


def _filled(join: Document, given: Mapping[str, str]) -> JoinSpec:
    names = {parameter.name for parameter in parameters.find_parameters(join)}
    typed = {name: text for name, text in given.items() if name in names}
    return parameters.fill(join, typed, field_types(join["database"]))


def _page(
    saved: Document, join: Document, form: SavedJoinForm, given: Mapping[str, str], wrong: Exception | None = None
) -> str:
    errors = wrong.errors if isinstance(wrong, InvalidInput) else {}
    asked = _asked(join, field_types(join["database"]), given, errors)
    is_marked = any(field["errors"] for field in asked)
    return render_template(
        "saved/join.html",
        join=saved,
        parameters=asked,
        form=form,
        trouble=SEE_MARKED_FIELDS if is_marked else wrong and str(wrong),
        can_be_deleted=saved not in SAMPLE_JOINS,
        **_described(saved, join),
    )


def _described(saved: Document, join: Document) -> dict[str, Any]:
    """The lines that say the join, and the builder's address of it."""
    draft = Draft(join_as_fields(join))
    # One that is too long for an address is read again by the builder.
    return {"lines": draft.describe_lines(), "address": draft.query_string() or urlencode({"saved": saved["_id"]})}


def _asked(join: Document, types: TypeOf, given: Mapping[str, str], errors: Mapping[str, str]) -> list[dict[str, Any]]:
    """The fields for the values of a join, one for each name."""
    first: dict[str, Parameter] = {}
    for parameter in parameters.find_parameters(join):
        first.setdefault(parameter.name, parameter)
    return [
        _field(parameter, types, given.get(name, ""), errors.get(f"parameters.{name}"))
        for name, parameter in first.items()
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


def _as_typed(saved: Document, form: SavedJoinForm, given: Mapping[str, str], trouble: str) -> str:
    """The form exactly as submitted. Only the join's id may be known, and the types of its values are not."""
    fields = [{"name": name, "label": _label(name), "value": value} for name, value in given.items()]
    described = _described(saved, saved["join"]) if "join" in saved else {"lines": []}
    return render_template("saved/join.html", join=saved, parameters=fields, form=form, trouble=trouble, **described)


def _unreadable(saved: Document, error: InvalidInput) -> str:
    """The page of a join that cannot be run any more, only deleted."""
    return render_template("saved/join.html", join=saved, unreadable=str(error), can_be_deleted=True)

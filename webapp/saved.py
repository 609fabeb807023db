"""Saved joins: listed, run with the values that they ask for, deleted."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.drafts import SEE_MARKED, Draft, Unfinished
from webapp.errors import service_unavailable
from webapp.field_errors import FieldErrors
from webapp.forms import SavedJoinForm
from webapp.presentation import SAVED_JOIN
from webapp.ready_joins import READY
from worker_tasks import saved_joins
from worker_tasks.errors import InvalidInput, ServiceUnavailable, servers_needed
from worker_tasks.joins.operators import Operand
from worker_tasks.joins.sampling import field_types
from worker_tasks.joins.value_types import ValueType, value_type
from worker_tasks.settings import settings
from worker_tasks.submission import read_join, submit_join

blueprint = Blueprint("saved", __name__, url_prefix="/saved")

MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH = 100, 1_000


def newest() -> list[dict[str, Any]]:
    """The joins that are there from the start, as far as their database is open, then those that people saved."""
    open_databases = settings().open_databases
    ready = [join for join in READY if dict(parse_qsl(join["draft"]))["database"] in open_databases]
    return [*saved_joins.newest(), *ready]


def find(saved_id: str) -> dict[str, Any]:
    """The saved join of this id.

    Raises:
        SavedJoinNotFound: there is none.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    ready = next((join for join in READY if join["_id"] == saved_id), None)
    return ready or saved_joins.find(saved_id)


def save(draft: Draft, given: Mapping[str, str]) -> str:
    """Keeps a draft; returns its id.

    Raises:
        Unfinished: it has no name, or is too long.
        pymongo.errors.PyMongoError: not known to be kept.
    """
    name, description = given.get("saved_name", "").strip(), given.get("saved_description", "").strip()
    if not name or len(name) > MAX_NAME_LENGTH:
        raise Unfinished(f"Give the saved join a name of at most {MAX_NAME_LENGTH} characters.")
    if len(description) > MAX_DESCRIPTION_LENGTH:
        raise Unfinished(f"A description has at most {MAX_DESCRIPTION_LENGTH:,} characters.")
    address = draft.address()
    if not address:
        raise Unfinished("This join is too long to be saved.")
    return saved_joins.save(name, description, address)


def examples(draft: Draft) -> dict[str, str]:
    """A value for each parameter of a draft."""
    return {name: _type_of_value(draft, row).example for name, row in draft.parameters().items()}


def _type_of_value(draft: Draft, row: Any) -> ValueType:
    """The type that a parameter's value is read as."""
    if row.type.data or row.operand is Operand.TEXT:
        return value_type(row.type.data)
    part = next((form for form in draft.join_forms if any(entry.form is row for entry in form.filters.entries)), draft)
    return value_type("", field_types(draft.database.data)(part.source.data, row.field.data))


@blueprint.get("")
def all_joins() -> ResponseReturnValue:
    return render_template("saved/joins.html", joins=newest())


@blueprint.get("/<saved_id>")
def saved_join(saved_id: str) -> ResponseReturnValue:
    join = find(saved_id)
    return _page(join, _draft_of(join), SavedJoinForm(), dict(request.args.items()))


def _draft_of(join: dict[str, Any]) -> Draft:
    return Draft(MultiDict(parse_qsl(join["draft"])))


@blueprint.post("/<saved_id>")
def run(saved_id: str) -> ResponseReturnValue:
    """Runs a saved join with the values that were given."""
    form, given = SavedJoinForm(), _given()
    join: dict[str, Any] = {"_id": saved_id, "name": "Saved join"}
    try:
        with servers_needed():
            join = find(saved_id)
            return _run(join, form, given)
    except ServiceUnavailable as error:
        return service_unavailable(error, _as_typed(join, form, given, str(error)))


def _run(join: dict[str, Any], form: SavedJoinForm, given: dict[str, str]) -> ResponseReturnValue:
    draft = _draft_of(join)
    if form.adds_row(request.form.get("do", "")):
        return _page(join, draft, form, given)
    try:
        asked = draft.asked(field_types(draft.database.data), {name: value for name, value in given.items() if value})
        if not form.validate():
            raise Unfinished(SEE_MARKED)
        metadata = form.collected_metadata() | {SAVED_JOIN: join["name"]}
        task_id = submit_join(read_join(asked), metadata=metadata)
    except Unfinished as unfinished:
        return _page(join, draft, form, given, trouble=str(unfinished), errors=unfinished.errors), 422
    except InvalidInput as error:
        return _page(join, draft, form, given, trouble=str(error)), 422
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/<saved_id>/deletion")
def delete(saved_id: str) -> ResponseReturnValue:
    saved_joins.delete(saved_id)
    return redirect(url_for(".all_joins"), 303)


def _given() -> dict[str, str]:
    """The values that were typed, by the names of the parameters."""
    prefix = "value-"
    return {name.removeprefix(prefix): text for name, text in request.form.items() if name.startswith(prefix)}


def _page(  # noqa: PLR0913 - what the page shows
    join: dict[str, Any],
    draft: Draft,
    form: SavedJoinForm,
    given: dict[str, str],
    *,
    trouble: str | None = None,
    errors: FieldErrors | None = None,
) -> str:
    parameters = []
    for name, row in draft.parameters().items():
        expected = _type_of_value(draft, row)
        wrong = (errors or {}).get(row.value.name, ())
        parameters.append(
            {
                "name": name,
                "label": _label(name),
                "hint": f"{row.field.data}: {expected.hint}",
                "mode": expected.input_mode,
                "value": given.get(name, ""),
                "errors": [error if given.get(name) else "Give a value." for error in wrong],
            }
        )
    return render_template(
        "saved/join.html",
        join=join,
        parameters=parameters,
        lines=draft.lines(),
        form=form,
        trouble=trouble,
        can_be_deleted=join not in READY,
    )


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _as_typed(join: dict[str, Any], form: SavedJoinForm, given: dict[str, str], trouble: str) -> str:
    """The form exactly as submitted. Only the join's id may be known, and the types of its values are not."""
    parameters = [{"name": name, "label": _label(name), "value": value} for name, value in given.items()]
    lines = _draft_of(join).lines() if "draft" in join else []
    return render_template("saved/join.html", join=join, parameters=parameters, lines=lines, form=form, trouble=trouble)

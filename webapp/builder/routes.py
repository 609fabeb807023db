"""Ask: the builder with its checks, the original form for a user's orders, the practice task."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.builder import context, field_errors, saved
from webapp.builder.drafts import SEE_MARKED_FIELDS, Draft, DraftIncomplete, spec_as_fields
from webapp.support import access
from webapp.support.bodies import json_argument
from webapp.support.errors import service_unavailable
from webapp.support.forms import PracticeForm, TaskForm, UserOrdersForm
from worker_tasks import submission
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput, ServiceUnavailable, named_driver_errors
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.preflight.sampling import field_types
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results import retention
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

blueprint = Blueprint("joins", __name__)

#: Query parameters that name a join, instead of saying the builder's form.
JOIN_REFERENCES = frozenset({"join", "saved"})


class OpenJoin(NamedTuple):
    """A join with its values in braces left open, and the same with examples in their place."""

    join: Document
    example: JoinSpec


@blueprint.get("/")
def ask() -> ResponseReturnValue:
    written = _written()
    draft = Draft(written)
    if JOIN_REFERENCES & request.args.keys() and (address := draft.query_string()):
        return redirect(f"{url_for('.ask')}?{address}")
    try:
        with named_driver_errors():
            around = context.load_context(draft)
            outcome = _outcome(draft)
            return _builder(draft, around, _checked(draft, outcome) if "check" in request.args else None)
    except ServiceUnavailable as error:
        return _as_typed(written, error, error.title)


def _written() -> MultiDict[str, str]:
    """The query parameters as form data, with the join that they say or name, and the others such as the note."""
    if "join" in request.args:
        written = spec_as_fields(submission.read_join(json_argument("join")))
    elif "saved" in request.args:
        written = saved.saved_as_fields(request.args["saved"])
    else:
        return request.args
    for name, value in request.args.items(multi=True):
        if name not in JOIN_REFERENCES:
            written.add(name, value)
    return written


@blueprint.post("/")
def press() -> ResponseReturnValue:
    """Whatever button of the builder was pressed; a change alone, where JavaScript tells of it, is one as well."""
    try:
        with named_driver_errors():
            return _pressed(Draft(request.form), request.form.get("do", "draft"))
    except ServiceUnavailable as error:
        if "HX-Request" in request.headers:
            # htmx does not swap errors: the form stays, and the page reports the lost connection.
            raise
        return _as_typed(request.form, error)


def _pressed(draft: Draft, action: str) -> ResponseReturnValue:
    if action == "run":
        return _run(draft)
    if action == "save":
        return _save(draft)
    context.apply_action(draft, action)
    around = context.load_context(draft)
    _outcome(draft)
    address = draft.query_string()
    if request.headers.get("HX-Request"):
        response = make_response(render_template("joins/_builder.html", **_surrounded(draft, around)))
        if address:
            # What a button did can be taken back by the browser's own button for that.
            header = "HX-Replace-Url" if action == "draft" else "HX-Push-Url"
            response.headers[header] = f"{url_for('.ask')}?{address}"
        return response
    if not address:
        return _builder(draft, around)
    check = "&check=yes" if action == "check" else ""
    return redirect(f"{url_for('.ask')}?{address}{check}{context.anchor_of(action)}", 303)


def _run(draft: Draft) -> ResponseReturnValue:
    try:
        spec = _read(draft)
        if not draft.validate():
            raise DraftIncomplete(SEE_MARKED_FIELDS)
        # Already there, most often: the page asks for the checks as soon as there is something to check.
        if checks.cached_checks(spec.fingerprint) is None:
            checks.check_join(spec)
        task_id = submission.submit_join(spec, metadata=draft.collected_metadata())
    except DraftIncomplete as unfinished:
        return _refused(draft, unfinished)
    return redirect(url_for("status.task_page", task_id=task_id), 303)


def _save(draft: Draft) -> ResponseReturnValue:
    try:
        saved_id = saved.save_join(_read_open(draft).join, request.form)
    except DraftIncomplete as unfinished:
        return _refused(draft, unfinished)
    return redirect(url_for("saved.saved_join", saved_id=saved_id), 303)


def _refused(draft: Draft, unfinished: DraftIncomplete) -> ResponseReturnValue:
    """The form with its errors."""
    field_errors.add_errors(draft, unfinished.errors)
    return _builder(draft, context.load_context(draft), trouble=str(unfinished)), 422


def _outcome(draft: Draft) -> OpenJoin | DraftIncomplete:
    """The draft as a join, or the reason it is none; shows the errors."""
    try:
        return _read_open(draft)
    except DraftIncomplete as unfinished:
        field_errors.add_errors(draft, unfinished.errors)
        return unfinished


def _read(draft: Draft) -> JoinSpec:
    """The join that the draft says.

    Raises:
        Unfinished: it says none.
    """
    with _errors_placed(draft):
        return submission.read_join(draft.join_document(field_types(draft.database.data)))


def _read_open(draft: Draft) -> OpenJoin:
    """The join that the draft says, with parameters.

    Raises:
        Unfinished: it says none.
    """
    with _errors_placed(draft):
        join = draft.join_document(field_types(draft.database.data), with_parameters=True)
        return OpenJoin(join, submission.admit(parameters.check(join)))


@contextmanager
def _errors_placed(draft: Draft) -> Iterator[None]:
    """Raises the errors of the join that is read inside as those of the form's fields."""
    try:
        yield
    except InvalidInput as error:
        raise DraftIncomplete(SEE_MARKED_FIELDS, field_errors.errors_by_field(draft, error.errors)) from None


@blueprint.post("/checks")
def check() -> ResponseReturnValue:
    """What is to be expected of a draft, as a fragment."""
    draft = Draft(request.form)
    checked = _checked(draft, _outcome(draft))
    response = make_response(render_template("joins/_checks.html", **checked))
    if not checked["checks"]:
        # What was found last stays in sight, paler, until there is something new to be found.
        response.headers["HX-Retarget"] = "#next-step"
    return response


def _checked(draft: Draft, outcome: OpenJoin | DraftIncomplete) -> dict[str, Any]:
    """What the checks say of a draft, for the template."""
    if isinstance(outcome, DraftIncomplete):
        return {"checks": None, "next_step": str(outcome), "errors": outcome.messages}
    if open_values := parameters.find_parameters(outcome.join):
        names = " and ".join(dict.fromkeys(f"{{{each.name}}}" for each in open_values))
        step = f"{names} will be asked for when the saved join is run. Save it, or type a value to see what to expect."
        return {"checks": None, "next_step": step, "errors": []}
    spec = outcome.example
    return {
        "checks": checks.cached_checks(spec.fingerprint) or checks.check_join(spec).to_document(),
        "join": spec.canonical(),
        "metadata": draft.collected_metadata(),
        "result_ttl": retention.time_to_live(),
    }


def _builder(
    draft: Draft, around: context.BuilderContext, checked: dict[str, Any] | None = None, trouble: str | None = None
) -> str:
    shown = _surrounded(draft, around)
    return render_template(
        "joins/builder.html",
        **shown,
        checked=checked,
        trouble=trouble,
        ready=saved.available_joins() if not trouble else [],
    )


def _as_typed(
    written: MultiDict[str, str], error: ServiceUnavailable, headline: str = "Not submitted"
) -> ResponseReturnValue:
    """The form exactly as submitted, with a message naming the unavailable server."""
    draft = Draft(written)
    shown = _shown(draft, context.offline_context(draft), [])
    page = render_template("joins/builder.html", **shown, checked=None, trouble=str(error), headline=headline, ready=[])
    return service_unavailable(error, page)


def _surrounded(draft: Draft, around: context.BuilderContext) -> dict[str, Any]:
    return _shown(draft.with_blank_rows(), around, access.metadata_keys_for(access.viewer()))


def _shown(draft: Draft, around: context.BuilderContext, metadata_keys: list[str]) -> dict[str, Any]:
    return {
        "draft": draft,
        "around": around,
        "next_step": draft.next_step(),
        "metadata_keys": metadata_keys,
        "describe_field": context.describe_field,
        "result_ttl": retention.time_to_live(),
    }


@blueprint.get("/user-orders")
def user_orders() -> ResponseReturnValue:
    return _page("joins/user_orders.html", UserOrdersForm(request.args))


@blueprint.post("/user-orders")
def ask_user_orders() -> ResponseReturnValue:
    form = UserOrdersForm()
    return _submit("joins/user_orders.html", form, join_users_orders, form.user_id.data)


@blueprint.get("/practice")
def practice() -> ResponseReturnValue:
    return _page("joins/practice.html", PracticeForm(request.args))


@blueprint.post("/practice")
def start_practice() -> ResponseReturnValue:
    form = PracticeForm()
    return _submit("joins/practice.html", form, long_running_task, form.task_input.data)


def _submit(template: str, form: TaskForm, task: Any, *args: Any) -> ResponseReturnValue:
    """Submits what the form asks for, or shows the form again with what was typed and what is wrong."""
    if form.adds_row(request.form.get("do", "")):
        return _page(template, form)
    if not form.validate():
        return _page(template, form), 422
    try:
        task_id = submit(task, *args, metadata=form.collected_metadata())
    except ServiceUnavailable as error:
        return service_unavailable(error, _page(template, form, trouble=str(error)))
    return redirect(url_for("status.task_page", task_id=task_id), 303)


def _page(template: str, form: TaskForm, trouble: str | None = None) -> str:
    return render_template(
        template,
        form=form,
        trouble=trouble,
        result_ttl=retention.time_to_live(),
        practice_time=timedelta(seconds=settings().long_task_seconds),
    )

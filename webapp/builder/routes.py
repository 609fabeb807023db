"""The builder with its checks, the form for a user's orders, and the practice task."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from webapp.builder import context, field_errors, saved
from webapp.builder.drafts import SEE_MARKED_FIELDS, Draft, DraftIncomplete
from webapp.builder.join_fields import spec_as_fields
from webapp.support import access
from webapp.support.bodies import json_argument
from webapp.support.errors import service_unavailable
from webapp.support.forms import PracticeForm, TaskForm, UserOrdersForm
from worker_tasks import submission
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput, ServiceUnavailable, named_driver_errors
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.preflight.sampling import field_type
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results import retention
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

blueprint = Blueprint("joins", __name__)

#: Query parameters that refer to a whole join instead of one field of the form.
JOIN_REFERENCES = frozenset({"join", "saved"})


class OpenJoin(NamedTuple):
    """The document of a join with parameters, and the join with example values in their place."""

    join: Document
    example: JoinSpec


@blueprint.get("/")
def ask() -> ResponseReturnValue:
    fields = _requested_fields()
    draft = Draft(fields)
    if JOIN_REFERENCES & request.args.keys() and (query := draft.query_string()):
        return redirect(f"{url_for('.ask')}?{query}")
    try:
        with named_driver_errors():
            surroundings = context.load_context(draft)
            outcome = _outcome(draft)
            return _builder(draft, surroundings, _checks(draft, outcome) if "check" in request.args else None)
    except ServiceUnavailable as error:
        return _as_submitted(fields, error, error.title)


def _requested_fields() -> MultiDict[str, str]:
    """The query parameters as form data. A parameter that refers to a join is replaced by the fields of that join."""
    if "join" in request.args:
        fields = spec_as_fields(submission.read_join(json_argument("join")))
    elif "saved" in request.args:
        fields = saved.saved_as_fields(request.args["saved"])
    else:
        return request.args
    for name, value in request.args.items(multi=True):
        if name not in JOIN_REFERENCES:
            fields.add(name, value)
    return fields


@blueprint.post("/")
def press() -> ResponseReturnValue:
    """Handles every button of the builder. With JavaScript, each change of the form is posted here too."""
    try:
        with named_driver_errors():
            return _apply(Draft(request.form), request.form.get("do", "draft"))
    except ServiceUnavailable as error:
        if "HX-Request" in request.headers:
            # htmx does not swap errors, so the form stays and the page reports the lost connection.
            raise
        return _as_submitted(request.form, error)


def _apply(draft: Draft, action: str) -> ResponseReturnValue:
    if action == "run":
        return _run(draft)
    if action == "save":
        return _save(draft)
    context.apply_action(draft, action)
    surroundings = context.load_context(draft)
    _outcome(draft)
    query = draft.query_string()
    url = f"{url_for('.ask')}?{query}" if query else ""
    if request.headers.get("HX-Request"):
        response = make_response(render_template("builder/_builder.html", **_with_blank_rows(draft, surroundings)))
        if url:
            # The browser's back button undoes the press of a button.
            response.headers["HX-Replace-Url" if action == "draft" else "HX-Push-Url"] = url
        return response
    if not url:
        return _builder(draft, surroundings)
    check = "&check=yes" if action == "check" else ""
    return redirect(f"{url}{check}{context.anchor_of(action)}", 303)


def _run(draft: Draft) -> ResponseReturnValue:
    try:
        spec = _read_spec(draft)
        if not draft.validate():
            raise DraftIncomplete(SEE_MARKED_FIELDS)
        # The checks are usually cached, because the page requests them as soon as the draft allows.
        if checks.cached_checks(spec.fingerprint) is None:
            checks.check_join(spec)
        task_id = submission.submit_join(spec, metadata=draft.collected_metadata())
    except DraftIncomplete as error:
        return _refused(draft, error)
    return redirect(url_for("status.task_page", task_id=task_id), 303)


def _save(draft: Draft) -> ResponseReturnValue:
    try:
        saved_id = saved.save_join(_read_open(draft).join, request.form)
    except DraftIncomplete as error:
        return _refused(draft, error)
    return redirect(url_for("saved.saved_join", saved_id=saved_id), 303)


def _refused(draft: Draft, error: DraftIncomplete) -> ResponseReturnValue:
    """The form with its errors."""
    field_errors.add_errors(draft, error.errors)
    return _builder(draft, context.load_context(draft), error=str(error)), 422


def _outcome(draft: Draft) -> OpenJoin | DraftIncomplete:
    """The draft as a join, or the error, which is also added to the form."""
    try:
        with named_driver_errors():
            return _read_open(draft)
    except DraftIncomplete as error:
        field_errors.add_errors(draft, error.errors)
        return error
    except ServiceUnavailable as error:
        if not draft.joins_named_sources:
            raise
        # The rest of the form works without them.
        return DraftIncomplete(str(error))


def _read_spec(draft: Draft) -> JoinSpec:
    """The draft as a join.

    Raises:
        DraftIncomplete: a field is missing or invalid.
    """
    with _errors_by_field(draft):
        return submission.read_join(draft.join_document(field_type))


def _read_open(draft: Draft) -> OpenJoin:
    """The draft as a join that may have parameters.

    Raises:
        DraftIncomplete: a field is missing or invalid.
    """
    with _errors_by_field(draft):
        join = draft.join_document(field_type, with_parameters=True)
        return OpenJoin(join, submission.admit(parameters.validate(join)))


@contextmanager
def _errors_by_field(draft: Draft) -> Iterator[None]:
    """Converts errors by JoinSpec path into errors by form field, and raises those."""
    try:
        yield
    except InvalidInput as error:
        raise DraftIncomplete(SEE_MARKED_FIELDS, field_errors.errors_by_field(draft, error.errors)) from None


@blueprint.post("/checks")
def check() -> ResponseReturnValue:
    """The checks of a draft as a fragment."""
    draft = Draft(request.form)
    variables = _checks(draft, _outcome(draft))
    response = make_response(render_template("builder/_checks.html", **variables))
    if not variables["checks"]:
        # The last checks stay visible, but paler, until new ones arrive.
        response.headers["HX-Retarget"] = "#next-step"
    return response


def _checks(draft: Draft, outcome: OpenJoin | DraftIncomplete) -> dict[str, Any]:
    """The template variables for the checks of a draft."""
    if isinstance(outcome, DraftIncomplete):
        return {"checks": None, "next_step": str(outcome), "errors": outcome.messages}
    if found := parameters.find_parameters(outcome.join):
        names = " and ".join(dict.fromkeys(f"{{{each.name}}}" for each in found))
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
    draft: Draft,
    surroundings: context.BuilderContext,
    checked: dict[str, Any] | None = None,
    error: str | None = None,
) -> str:
    """The builder's page. ``checked`` has the variables of the checks, if they were requested."""
    variables = _with_blank_rows(draft, surroundings)
    variables["saved_joins"] = saved.available_joins() if not error else []
    return render_template("builder/builder.html", **variables, checked=checked, error=error)


def _as_submitted(
    fields: MultiDict[str, str], error: ServiceUnavailable, headline: str = "Not submitted"
) -> ResponseReturnValue:
    """The form exactly as submitted, with a message naming the unavailable server."""
    draft = Draft(fields)
    variables = _builder_variables(draft, context.offline_context(draft), [])
    page = render_template(
        "builder/builder.html", **variables, checked=None, error=str(error), headline=headline, saved_joins=[]
    )
    return service_unavailable(error, page)


def _with_blank_rows(draft: Draft, surroundings: context.BuilderContext) -> dict[str, Any]:
    return _builder_variables(draft.with_blank_rows(), surroundings, access.metadata_keys_for(access.viewer()))


def _builder_variables(draft: Draft, surroundings: context.BuilderContext, metadata_keys: list[str]) -> dict[str, Any]:
    return {
        "draft": draft,
        "builder": surroundings,
        "next_step": draft.next_step(),
        "metadata_keys": metadata_keys,
        "describe_field": context.describe_field,
        "result_ttl": retention.time_to_live(),
    }


@blueprint.get("/user-orders")
def user_orders() -> ResponseReturnValue:
    return _page("builder/user_orders.html", UserOrdersForm(request.args))


@blueprint.post("/user-orders")
def ask_user_orders() -> ResponseReturnValue:
    form = UserOrdersForm()
    return _submit("builder/user_orders.html", form, join_users_orders, form.user_id.data)


@blueprint.get("/practice")
def practice() -> ResponseReturnValue:
    return _page("builder/practice.html", PracticeForm(request.args))


@blueprint.post("/practice")
def start_practice() -> ResponseReturnValue:
    form = PracticeForm()
    return _submit("builder/practice.html", form, long_running_task, form.task_input.data)


def _submit(template: str, form: TaskForm, task: Any, *args: Any) -> ResponseReturnValue:
    """Submits the task of a form, or returns the form with its errors."""
    if form.adds_row(request.form.get("do", "")):
        return _page(template, form)
    if not form.validate():
        return _page(template, form), 422
    try:
        task_id = submit(task, *args, metadata=form.collected_metadata())
    except ServiceUnavailable as error:
        return service_unavailable(error, _page(template, form, error=str(error)))
    return redirect(url_for("status.task_page", task_id=task_id), 303)


def _page(template: str, form: TaskForm, error: str | None = None) -> str:
    return render_template(
        template,
        form=form,
        error=error,
        result_ttl=retention.time_to_live(),
        practice_time=timedelta(seconds=settings().long_task_seconds),
    )

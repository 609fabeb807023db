"""A task's page, its polled fragment, and the actions on it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.presenters import task_text
from webapp.results import result_request
from webapp.support import access, metadata_edits
from webapp.support.bodies import UnreadableBody
from webapp.support.forms import MetadataForm
from worker_tasks import submission
from worker_tasks.infra.errors import InvalidInput, TaskNotFound
from worker_tasks.joins.run import run_state
from worker_tasks.joins.run.first_rows import find_first_rows
from worker_tasks.queue import capacity
from worker_tasks.records import live, states, task_search
from worker_tasks.results import result_store, retention, summaries

blueprint = Blueprint("status", __name__, url_prefix="/tasks/<task_id>")

#: How long an unchanged fragment stays valid. After that it is rendered again, with a longer polling interval.
VALIDITY = timedelta(seconds=30)
VALIDITY_WHILE_WAITING = timedelta(seconds=5)
#: The number of rows shown while the join is running.
FIRST_ROWS = 5


@blueprint.get("")
def task_page(task_id: str) -> ResponseReturnValue:
    variables = _page_variables(task_id)
    form = MetadataForm.of(variables["task"]["metadata"])
    return render_template("tasks/task.html", **variables, metadata_form=form, is_edited="edit" in request.args)


@blueprint.get("/status")
def task_status(task_id: str) -> ResponseReturnValue:
    """The polled fragment. Answers 304 without a query to MongoDB while the client has the current fragment."""
    if _is_current(task_id, request.headers.get("HX-PTag", "")):
        return _uncached(make_response("", 304))
    try:
        variables = _page_variables(task_id)
    except TaskNotFound:
        # htmx would not swap an error, and the page would poll forever.
        return _uncached(make_response(render_template("tasks/_gone.html")))
    response = make_response(render_template("tasks/_status.html", polled=True, **variables))
    response.headers["HX-PTag"] = variables["tag"]
    return _uncached(response)


@blueprint.post("/cancellation")
def cancel(task_id: str) -> ResponseReturnValue:
    submission.cancel(access.task_for(access.viewer(), task_id)["_id"])
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/runs")
def run_again(task_id: str) -> ResponseReturnValue:
    parameters = result_request.selection_parameters(result_request.requested_selection())
    new_id = submission.submit_again(access.task_for(access.viewer(), task_id)["_id"])
    return redirect(url_for("status.task_page", task_id=new_id, **parameters), 303)


@blueprint.post("/metadata")
def change_metadata(task_id: str) -> ResponseReturnValue:
    """Applies this person's edits to the metadata and keeps the edits of others."""
    form = MetadataForm(request.form)
    if error := form.base_error:
        raise UnreadableBody("metadata", error)
    conflicts: Mapping[str, metadata_edits.ConflictingValues] = {}
    try:
        if form.validate():
            metadata_edits.edit_metadata(access.viewer(), task_id, form.edited)
            return redirect(url_for(".task_page", task_id=task_id), 303)
    except InvalidInput as invalid:
        form.metadata.errors = [f"With what is stored, {field} {text}" for field, text in invalid.errors.items()]
    except metadata_edits.EditConflict as conflict:
        form, conflicts = form.rebased(conflict.stored), conflict.conflicts
    more = {"metadata_form": form, "conflicts": conflicts, "is_edited": True, "is_correction": True}
    page = render_template("tasks/task.html", **_page_variables(task_id), **more)
    return page, 409 if conflicts else 422


def _page_variables(task_id: str) -> dict[str, Any]:
    """The current state of a task, for the templates."""
    alive = live.read_live(task_id)
    task = access.task_for(access.viewer(), task_id)
    if not task_text.is_final(task):
        # This also extends the life of an existing entry, so that the next polls need no query.
        live.announce_if_unknown(task_id, revision_of(task), task.get("shares"))
        alive = alive or live.read_live(task_id)
    summary = result_store.find_task_result(task)
    return {
        "task": task,
        "summary": summary,
        "fate": None if summary else _fate_of_result(task),
        # Carries the selection from an expired result over to the result of the next run.
        "parameters": result_request.selection_parameters(result_request.requested_selection()),
        "progress": alive.progress if alive else None,
        "waiting": _waiting(task),
        "first_rows": _first_rows(task) if alive and alive.progress else [],
        "previous_run": None if summary is None else _previous_run(task, summary),
        "tag": _tag(alive.tag if alive else revision_of(task), task),
        "poll_seconds": task_text.poll_seconds(task, datetime.now(UTC)),
    }


def _fate_of_result(task: dict[str, Any]) -> str | None:
    """The name of the Fate that tells why the task's result is gone. None if the task never had a result."""
    if (key := result_store.key_of(task)) is None:
        return None
    return retention.fate_of(task, result_store.find_result(key)).name


def revision_of(task: dict[str, Any]) -> str:
    """A token that changes with every write; documents of Celery's stock backend have only a ``version``."""
    return task.get("revision") or str(task.get("version", 0))


def _waiting(task: dict[str, Any]) -> str:
    """The position of a waiting task and its estimated wait."""
    if task["status"] != states.PENDING:
        return ""
    if task.get("shares"):
        return "Another task runs the same join just now; this one gets its result."
    return task_text.describe_waiting(
        task_search.count_tasks_ahead(task), task_search.average_seconds(), capacity.slots()
    )


def _previous_run(task: dict[str, Any], summary: summaries.Summary) -> dict[str, Any] | None:
    """The previous run of the same join, if its result still exists and is not the result of this task."""
    if task["status"] != states.SUCCESS:
        return None
    previous = access.previous_run_for(access.viewer(), task)
    result = None if previous is None else result_store.find_task_result(previous)
    return previous if result is not None and result.run != summary.run else None


def _first_rows(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The first rows of a running join."""
    if task_text.is_final(task) or not task.get("join"):
        return []
    run = run_state.find_run(task.get("shares") or task["_id"])
    return find_first_rows(run, FIRST_ROWS) if run else []


def _tag(version: str, task: dict[str, Any]) -> str:
    # A task's position in the queue changes while the task itself does not.
    validity = VALIDITY_WHILE_WAITING if task["status"] == states.PENDING else VALIDITY
    until = datetime.now(UTC) + validity
    return f"{version}@{until.timestamp():.0f}"


def _is_current(task_id: str, tag: str) -> bool:
    """Whether the client's fragment matches the state in Redis and is still valid."""
    version, _, until = tag.partition("@")
    if not until.isdecimal() or datetime.now(UTC).timestamp() > int(until):
        return False
    alive = live.read_live(task_id)
    return alive is not None and alive.tag == version


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request"
    return response

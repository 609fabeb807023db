"""Follow: a task's page, its polled fragment, cancel, run again."""

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
from worker_tasks.queue import capacity
from worker_tasks.records import live, states, task_search
from worker_tasks.results import result_store, result_writer, retention

blueprint = Blueprint("status", __name__, url_prefix="/tasks/<task_id>")

#: How long an unchanged fragment is left standing before it is rendered again, with a longer pause between its polls.
FRESH = timedelta(seconds=30)
FRESH_WHILE_WAITING = timedelta(seconds=5)
#: Rows that are shown while the others are still being joined.
FIRST_ROWS = 5


@blueprint.get("")
def task_page(task_id: str) -> ResponseReturnValue:
    seen = _seen(task_id)
    form = MetadataForm.of(seen["task"]["metadata"])
    return render_template("status/task.html", **seen, metadata_form=form, is_edited="edit" in request.args)


@blueprint.get("/status")
def task_status(task_id: str) -> ResponseReturnValue:
    """The polled fragment; 304, from Redis alone, as long as the asker has the newest."""
    if _is_current(task_id, request.headers.get("HX-PTag", "")):
        return _uncached(make_response("", 304))
    try:
        seen = _seen(task_id)
    except TaskNotFound:
        # An error would be swapped nowhere, and the page would ask for ever.
        return _uncached(make_response(render_template("status/_gone.html")))
    response = make_response(render_template("status/_status.html", polled=True, **seen))
    response.headers["HX-PTag"] = seen["tag"]
    return _uncached(response)


@blueprint.post("/cancellation")
def cancel(task_id: str) -> ResponseReturnValue:
    submission.cancel(access.task_for(access.viewer(), task_id)["_id"])
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/runs")
def run_again(task_id: str) -> ResponseReturnValue:
    look = result_request.selection_parameters(result_request.requested_selection())
    again = submission.submit_again(access.task_for(access.viewer(), task_id)["_id"])
    return redirect(url_for("status.task_page", task_id=again, **look), 303)


@blueprint.post("/metadata")
def change_metadata(task_id: str) -> ResponseReturnValue:
    """Changes the metadata as this person changed the form; what others changed meanwhile stays."""
    form = MetadataForm(request.form)
    if complaint := form.base_error:
        raise UnreadableBody("metadata", complaint)
    conflicts: Mapping[str, metadata_edits.ConflictingValues] = {}
    try:
        if form.validate():
            metadata_edits.edit_metadata(access.viewer(), task_id, form.edited)
            return redirect(url_for(".task_page", task_id=task_id), 303)
    except InvalidInput as error:
        form.metadata.errors = [f"With what is stored, {field} {said}" for field, said in error.errors.items()]
    except metadata_edits.EditConflict as error:
        form, conflicts = form.rebased(error.stored), error.conflicts
    more = {"metadata_form": form, "conflicts": conflicts, "is_edited": True, "is_correction": True}
    page = render_template("status/task.html", **_seen(task_id), **more)
    return page, 409 if conflicts else 422


def _seen(task_id: str) -> dict[str, Any]:
    """The task as it is now, for the templates."""
    alive = live.read_live(task_id)
    task = access.task_for(access.viewer(), task_id)
    if not task_text.is_final(task):
        # Also where it is known, so that the polls that follow need no query for a while.
        live.announce_if_unknown(task_id, revision_of(task), task.get("shares"))
        alive = alive or live.read_live(task_id)
    summary = result_store.find_task_result(task)
    return {
        "task": task,
        "summary": summary,
        "fate": None if summary else _fate_of_result(task),
        # What was looked at in a result that is gone is looked at again in the one that comes.
        "look": result_request.selection_parameters(result_request.requested_selection()),
        "progress": alive.progress if alive else None,
        "waiting": _waiting(task),
        "first_rows": _first_rows(task) if alive and alive.progress else [],
        "before": None if summary is None else _run_before(task, summary),
        "tag": _tag(alive.tag if alive else revision_of(task), task),
        "poll_seconds": task_text.poll_seconds(task, datetime.now(UTC)),
    }


def _fate_of_result(task: dict[str, Any]) -> str | None:
    """What became of the result of a task that has none now; None where it never had one."""
    if (key := result_store.key_of(task)) is None:
        return None
    return retention.fate_of(task, result_store.find_result(key)).name


def revision_of(task: dict[str, Any]) -> str:
    """What another state of the document would have another one of; one that Celery's own backend wrote has none."""
    return task.get("revision") or str(task.get("version", 0))


def _waiting(task: dict[str, Any]) -> str:
    """Where a waiting task is, and how long that may take."""
    if task["status"] != states.PENDING:
        return ""
    if task.get("shares"):
        return "Another task runs the same join just now; this one gets its result."
    return task_text.describe_waiting(
        task_search.count_tasks_ahead(task), task_search.average_seconds(), capacity.slots()
    )


def _run_before(task: dict[str, Any], summary: result_store.Summary) -> dict[str, Any] | None:
    """The run before this one, if it has a result, and another one, to compare."""
    if task["status"] != states.SUCCESS:
        return None
    before = access.previous_run_for(access.viewer(), task)
    result = None if before is None else result_store.find_task_result(before)
    return before if result is not None and result.run != summary.run else None


def _first_rows(task: dict[str, Any]) -> list[dict[str, Any]]:
    """A few rows of a join that runs; they are there before it ends."""
    if task_text.is_final(task) or not task.get("join"):
        return []
    run = run_state.find_run(task.get("shares") or task["_id"])
    return result_writer.glimpse(run.first_key, FIRST_ROWS) if run else []


def _tag(version: str, task: dict[str, Any]) -> str:
    # The place in the queue changes without the task changing.
    fresh = FRESH_WHILE_WAITING if task["status"] == states.PENDING else FRESH
    until = datetime.now(UTC) + fresh
    return f"{version}@{until.timestamp():.0f}"


def _is_current(task_id: str, tag: str) -> bool:
    """Whether the asker's fragment shows what Redis says, and is not so old that it should poll less often."""
    version, _, until = tag.partition("@")
    if not until.isdecimal() or datetime.now(UTC).timestamp() > int(until):
        return False
    alive = live.read_live(task_id)
    return alive is not None and alive.tag == version


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request"
    return response

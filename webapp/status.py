"""Follow: a task's page, its polled fragment, cancel, run again."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp import presentation
from worker_tasks import ledger, live, submission
from worker_tasks.errors import TaskNotFound

blueprint = Blueprint("status", __name__, url_prefix="/tasks/<task_id>")

#: How long an unchanged fragment is left standing before it is rendered again, with a longer pause between its polls.
FRESH = timedelta(seconds=30)


@blueprint.get("")
def task_page(task_id: str) -> ResponseReturnValue:
    return render_template("status/task.html", **_seen(task_id))


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
    response = make_response(render_template("status/_status.html", **seen))
    response.headers["HX-PTag"] = seen["tag"]
    return _uncached(response)


@blueprint.post("/cancellation")
def cancel(task_id: str) -> ResponseReturnValue:
    submission.cancel(task_id)
    return redirect(url_for("status.task_page", task_id=task_id), 303)


@blueprint.post("/runs")
def run_again(task_id: str) -> ResponseReturnValue:
    return redirect(url_for("status.task_page", task_id=submission.submit_again(task_id)), 303)


def _seen(task_id: str) -> dict[str, Any]:
    """The task as it is now, for the templates."""
    alive = live.read(task_id)
    task = ledger.find(task_id)
    if not presentation.is_final(task):
        # Also where it is known, so that the polls that follow need no query for a while.
        live.announce_if_unknown(task_id, revision_of(task), task.get("shares"))
        alive = alive or live.read(task_id)
    return {
        "task": task,
        "progress": alive.progress if alive else None,
        "tag": _tag(alive.tag if alive else revision_of(task)),
        "poll_seconds": presentation.poll_seconds(task, datetime.now(UTC)),
    }


def revision_of(task: dict[str, Any]) -> str:
    """What another state of the document would have another one of; one that Celery's own backend wrote has none."""
    return task.get("revision") or str(task.get("version", 0))


def _tag(version: str) -> str:
    return f"{version}@{datetime.now(UTC).timestamp():.0f}"


def _is_current(task_id: str, tag: str) -> bool:
    """Whether the asker's fragment shows what Redis says, and is not so old that it should poll less often."""
    version, _, rendered = tag.partition("@")
    if not rendered.isdecimal():
        return False
    age = datetime.now(UTC).timestamp() - int(rendered)
    if age > FRESH.total_seconds():
        return False
    alive = live.read(task_id)
    return alive is not None and alive.tag == version


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request"
    return response

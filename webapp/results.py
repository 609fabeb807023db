"""Read: pages of rows; a result kept longer, or discarded."""

from datetime import datetime, timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp.paging import number_asked
from worker_tasks import ledger, results
from worker_tasks.settings import settings

blueprint = Blueprint("results", __name__, url_prefix="/tasks/<task_id>/result")

#: How much longer a press keeps a result.
KEPT_LONGER = timedelta(hours=1)


@blueprint.get("")
def result_page(task_id: str) -> ResponseReturnValue:
    task = ledger.find(task_id)
    key = results.key_of(task)
    if key is None:
        return redirect(url_for("status.task_page", task_id=task_id), 303)
    summary = results.of_task(task)
    rows = None
    if summary is not None:
        if "row" in request.args and summary.count:
            return redirect(_place_of(task_id, number_asked("row", 1, 1, summary.count)), 303)
        number = number_asked("page", 1, 1, summary.pages)
        rows = results.page(summary, number)
    if summary is None or rows is None:
        return render_template("results/gone.html", task=task, newer=results.find(key)), 410
    return render_template(
        "results/result.html",
        task=task,
        summary=summary,
        rows=rows,
        number=number,
        first_row=(number - 1) * results.PAGE_ROWS + 1,
        chosen=request.args.getlist("columns"),
        until=_longest(summary),
    )


@blueprint.get("/unmatched/<name>")
def unmatched_page(task_id: str, name: str) -> ResponseReturnValue:
    """The rows in which the join that brings in this field found nothing."""
    task = ledger.find(task_id)
    summary = results.of_task(task)
    if summary is not None and name not in summary.unmatched:
        raise NotFound
    rows = None if summary is None else results.unmatched_rows(summary, name)
    if summary is None or rows is None:
        return render_template("results/gone.html", task=task, newer=None), 410
    return render_template("results/unmatched.html", task=task, summary=summary, name=name, rows=rows)


def _place_of(task_id: str, row: int) -> str:
    """Where this row is, counted from 1, among the columns that are shown."""
    page = (row - 1) // results.PAGE_ROWS + 1
    columns = request.args.getlist("columns")
    return url_for(".result_page", task_id=task_id, page=page, columns=columns, _anchor=f"row-{row}")


def _longest(summary: results.Summary) -> datetime | None:
    """Until when the next press keeps a result; None where it can not be kept longer."""
    most = summary.published_at + timedelta(seconds=settings().result_keep_seconds)
    until = min(most, max(ledger.now(), summary.expires_at) + KEPT_LONGER)
    return until if until > summary.expires_at else None


@blueprint.post("/keeping")
def keep(task_id: str) -> ResponseReturnValue:
    """Keeps the result longer, as long as it may be."""
    summary = results.of_task(ledger.find(task_id))
    until = None if summary is None else _longest(summary)
    if summary is not None and until is not None and results.keep(summary, until) is not None:
        ledger.set_expiry(summary.task_id, until)
        flash("The result is kept longer.")
    return redirect(url_for(".result_page", task_id=task_id), 303)


@blueprint.post("/discarding")
def discard(task_id: str) -> ResponseReturnValue:
    """Deletes the result at once, for all who share it."""
    summary = results.of_task(ledger.find(task_id))
    if summary is not None and results.discard(summary):
        ledger.set_expiry(summary.task_id, ledger.now())
    return redirect(url_for("status.task_page", task_id=task_id), 303)

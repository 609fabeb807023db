"""Read: pages of rows."""

from flask import Blueprint, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from webapp.paging import number_asked
from worker_tasks import ledger, results

blueprint = Blueprint("results", __name__, url_prefix="/tasks/<task_id>/result")


@blueprint.get("")
def result_page(task_id: str) -> ResponseReturnValue:
    task = ledger.find(task_id)
    key = results.key_of(task)
    if key is None:
        return redirect(url_for("status.task_page", task_id=task_id), 303)
    summary = results.of_task(task)
    rows = None
    if summary is not None:
        number = number_asked("page", 1, 1, summary.pages)
        rows = results.page(summary, number)
    if summary is None or rows is None:
        return render_template("results/gone.html", task=task, newer=results.find(key)), 410
    return render_template("results/result.html", task=task, summary=summary, rows=rows, number=number)

"""Read: pages of rows."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp import presentation
from worker_tasks import ledger, results
from worker_tasks.errors import InvalidInput

blueprint = Blueprint("results", __name__, url_prefix="/tasks/<task_id>/result")


@blueprint.get("")
def result_page(task_id: str) -> ResponseReturnValue:
    task = ledger.find(task_id)
    outcome = presentation.join_outcome(task)
    if outcome is None:
        return redirect(url_for("status.task_page", task_id=task_id), 303)
    summary = results.find(outcome[0])
    rows = None
    if summary is not None and summary.task_id == task_id:
        rows = results.page(summary, number := _page_number(summary.pages))
    if rows is None:
        return render_template("results/gone.html", task=task, summary=summary), 410
    return render_template("results/result.html", task=task, summary=summary, rows=rows, number=number)


def _page_number(pages: int) -> int:
    """The page asked for.

    Raises:
        InvalidInput: there is no such page.
    """
    asked = request.args.get("page", "1")
    if not asked.isdecimal() or not 1 <= int(asked) <= pages:
        raise InvalidInput({"page": f"must be a number from 1 to {pages}."})
    return int(asked)

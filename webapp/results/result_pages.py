"""Read: the pages of a result: its rows, its columns in figures, the rows without a match; kept longer, discarded."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp.presenters import value_text
from webapp.results import result_request
from webapp.results.result_text import OPERATOR_LABELS
from webapp.support import access
from webapp.support.paging import number_or_last
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.profiles import Column
from worker_tasks.analysis.reader import Row
from worker_tasks.analysis.row_query import MAX_CONDITIONS, Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store, retention
from worker_tasks.results.result_store import ResultGone, Summary

blueprint = Blueprint("results", __name__, url_prefix="/tasks/<task_id>/result")

#: Columns that are shown where none were chosen, and that are told of on one page.
SHOWN_COLUMNS, PROFILED_COLUMNS = 40, 100
#: How often a result is looked for that moves to another key while it is read.
TRIES = 3


def with_result(task_id: str, page: Callable[[Document, Summary], ResponseReturnValue]) -> ResponseReturnValue:
    """A page of the result of a task, or what became of it: 410 where it is gone, the task where it has none."""
    task = access.task_for(access.viewer(), task_id)
    key = result_store.key_of(task)
    if key is None:
        return redirect(url_for("status.task_page", task_id=task_id), 303)
    for _ in range(TRIES):
        if (summary := result_store.find_task_result(task)) is None:
            break
        try:
            return page(task, summary)
        except ResultGone:
            continue
    if "HX-Request" in request.headers:
        # An error would be swapped nowhere, and the page would ask for ever.
        return _nothing(refresh=True)
    look = result_request.selection_parameters(result_request.requested_selection())
    newer = result_store.find_result(key)
    fate = retention.fate_of(task, newer)
    return render_template("results/gone.html", task=task, newer=newer, fate=fate.name, look=look), 410


def _nothing(*, refresh: bool = False) -> Response:
    response = make_response("", 204)
    if refresh:
        response.headers["HX-Refresh"] = "true"
    return response


@blueprint.get("")
def result_page(task_id: str) -> ResponseReturnValue:
    """Rows, as many as fit a page: as they were joined, or those that were looked for, in the order that was asked."""
    return with_result(task_id, _rows_page)


def _rows_page(task: Document, summary: Summary) -> ResponseReturnValue:
    selection = result_request.requested_selection()
    if "row" in request.args and summary.count:
        return redirect(_place_of(task["_id"], number_or_last("row", summary.count), selection), 303)
    if "move" in request.args:
        return redirect(_moved(task["_id"], selection), 303)
    fragment = "HX-Request" in request.headers
    result = result_request.prepare_result(summary, selection, 0 if fragment else result_request.WAIT_SECONDS)
    if fragment and result.is_under_way:
        return _nothing()
    pages = max(1, -(-result.count // result_store.PAGE_ROWS))
    number = number_or_last("page", pages)
    first = (number - 1) * result_store.PAGE_ROWS
    rows = result_request.read_page_rows(result, first, result_store.PAGE_ROWS) if result.has_rows else []
    columns = _columns(result, rows, task.get("join"))
    page = render_template(
        "results/result.html",
        task=task,
        summary=summary,
        result=result,
        rows=rows,
        columns=columns,
        number=number,
        pages=pages,
        chosen=request.args.get("chosen"),
        **_tools(result, columns),
    )
    return page, 422 if result.errors else 200


def _columns(result: result_request.ResultPage, rows: list[Row], join: Document | None) -> list[str]:
    """The names of all columns, those that were chosen first, in their order."""
    if result.profile is not None:
        every = [column.name for column in result.profile.in_order(join)]
    else:
        every = value_text.joined_columns([row.document for row in rows], join, result.summary.columns)
    return list(dict.fromkeys([*result.selection.columns, *every]))


def _tools(result: result_request.ResultPage, columns: list[str]) -> dict[str, Any]:
    """What the page's links and forms are made of."""
    chosen = result.selection.columns
    blank: list[dict[str, str]] = [{}] if len(result.query.conditions) < MAX_CONDITIONS else []
    told: dict[str, Column] = {} if result.profile is None else {each.name: each for each in result.profile.columns}
    return {
        "shown": list(chosen) or columns[:SHOWN_COLUMNS],
        "told": told,
        "parameters": result_request.selection_parameters(result.selection),
        "sorted_by": lambda column: result_request.selection_parameters(
            result_request.with_next_sort(result.selection, column)
        ),
        "operators": _operators(result.query),
        "conditions": [*result.query.conditions, *blank],
    }


def _operators(view: RowQuery) -> dict[Operator, str]:
    """What a column can be compared by, in words; a join without a match, which is no column, where it is asked for."""
    asked = {condition.operator for condition in view.conditions}
    return {each: said for each, said in OPERATOR_LABELS.items() if each is not Operator.UNMATCHED or each in asked}


def _moved(task_id: str, selection: Selection) -> str:
    """The same page with a column shown one place further to the left or the right."""
    way, _, column = request.args["move"].partition(" ")
    order = list(selection.columns)
    if column in order:
        place = order.index(column)
        order.insert(max(0, place + (-1 if way == "left" else 1)), order.pop(place))
    parameters = result_request.selection_parameters(Selection(selection.view, tuple(order)))
    return url_for(".result_page", task_id=task_id, chosen=request.args["move"], **parameters)


@blueprint.get("/columns")
def columns_page(task_id: str) -> ResponseReturnValue:
    """Each column in figures, in pictures and in words."""
    return with_result(task_id, _columns_page)


def _columns_page(task: Document, summary: Summary) -> ResponseReturnValue:
    fragment = "HX-Request" in request.headers
    result = result_request.prepare_result(summary, Selection(), 0 if fragment else result_request.WAIT_SECONDS)
    if fragment and result.is_under_way:
        return _nothing()
    columns = result.profile.in_order(task.get("join")) if result.profile else []
    pages = max(1, -(-len(columns) // PROFILED_COLUMNS))
    number = number_or_last("page", pages)
    return render_template(
        "results/columns.html",
        task=task,
        summary=summary,
        result=result,
        columns=columns[(number - 1) * PROFILED_COLUMNS : number * PROFILED_COLUMNS],
        number=number,
        pages=pages,
        only=lambda column, value: result_request.selection_parameters(
            result_request.with_condition(Selection(), column.name, value)
        ),
    )


@blueprint.get("/unmatched/<name>")
def unmatched_page(task_id: str, name: str) -> ResponseReturnValue:
    """The rows in which the join that brings in this field found nothing."""

    def page(task: Document, summary: Summary) -> ResponseReturnValue:
        if name not in summary.unmatched:
            raise NotFound
        rows = result_store.unmatched_rows(summary, name)
        if rows is None:
            raise ResultGone(summary.key)
        return render_template(
            "results/unmatched.html",
            task=task,
            summary=summary,
            name=name,
            rows=rows,
            all_of_them=_all_unmatched(summary, name),
        )

    return with_result(task_id, page)


def _all_unmatched(summary: Summary, name: str) -> dict[str, Any] | None:
    """The parameters that show all rows in which this join found nothing; None where they are not known, or not yet."""
    profile = result_request.prepare_result(summary, Selection(), result_request.PATIENCE).profile
    if profile is None or name not in profile.unmatched:
        return None
    return result_request.selection_parameters(Selection(RowQuery(conditions=(Condition(name, Operator.UNMATCHED),))))


def _place_of(task_id: str, row: int, selection: Selection) -> str:
    """Where this row is, counted from 1 among all of them, with the columns that are shown."""
    page = (row - 1) // result_store.PAGE_ROWS + 1
    return url_for(".result_page", task_id=task_id, page=page, columns=list(selection.columns), _anchor=f"row-{row}")


@blueprint.post("/keeping")
def keep(task_id: str) -> ResponseReturnValue:
    """Keeps the result longer, as long as it may be."""
    summary = result_store.find_task_result(access.task_for(access.viewer(), task_id))
    until = None if summary is None else retention.kept_until(summary)
    if summary is not None and until is not None and retention.keep(summary, until):
        flash("The result is kept longer.")
    parameters = result_request.selection_parameters(result_request.requested_selection())
    page = request.args.get("page")
    return redirect(url_for(".result_page", task_id=task_id, page=page, **parameters), 303)


@blueprint.post("/discarding")
def discard(task_id: str) -> ResponseReturnValue:
    """Deletes the result at once, for all who share it."""
    summary = result_store.find_task_result(access.task_for(access.viewer(), task_id))
    if summary is not None:
        retention.discard(summary)
    return redirect(url_for("status.task_page", task_id=task_id), 303)

"""The pages that show, keep or discard a result: its rows, its columns, and the rows without a match."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp.presenters import value_text
from webapp.results import result_request
from webapp.results.result_text import OPERATOR_LABELS
from webapp.support import access
from webapp.support.paging import number_or_last, page_count
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.profiles import Column
from worker_tasks.analysis.reader import Row
from worker_tasks.analysis.row_query import MAX_CONDITIONS, Condition, Operator, RowQuery, descending_text
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store, retention
from worker_tasks.results.result_store import ResultGone
from worker_tasks.results.summaries import Summary

blueprint = Blueprint("results", __name__, url_prefix="/tasks/<task_id>/result")

#: The maximum number of columns in a table if none are selected, and on one page of statistics.
SHOWN_COLUMNS, PROFILED_COLUMNS = 40, 100
#: The number of attempts to read a result, because a newer run may move it to another key meanwhile.
ATTEMPTS = 3


def with_result(task_id: str, page: Callable[[Document, Summary], ResponseReturnValue]) -> ResponseReturnValue:
    """Renders ``page``. Redirects to the task's page if there is no result; answers 410 if the result is gone."""
    task = access.task_for(access.viewer(), task_id)
    key = result_store.key_of(task)
    if key is None:
        return redirect(url_for("status.task_page", task_id=task_id), 303)
    for _ in range(ATTEMPTS):
        if (summary := result_store.find_task_result(task)) is None:
            break
        try:
            return page(task, summary)
        except ResultGone:
            continue
    if "HX-Request" in request.headers:
        # htmx would not swap an error, and the page would poll forever.
        return _no_content(refresh=True)
    parameters = result_request.selection_parameters(result_request.requested_selection())
    newer = result_store.find_result(key)
    fate = retention.fate_of(task, newer)
    return render_template("results/gone.html", task=task, newer=newer, fate=fate.name, parameters=parameters), 410


def _no_content(*, refresh: bool = False) -> Response:
    response = make_response("", 204)
    if refresh:
        response.headers["HX-Refresh"] = "true"
    return response


@blueprint.get("")
def result_page(task_id: str) -> ResponseReturnValue:
    """One page of the rows that match the request, in the requested order."""
    return with_result(task_id, _rows_page)


def _rows_page(task: Document, summary: Summary) -> ResponseReturnValue:
    selection = result_request.requested_selection()
    if "row" in request.args and summary.count:
        return redirect(_row_url(task["_id"], number_or_last("row", summary.count), selection), 303)
    if "move" in request.args:
        return redirect(_moved_column_url(task["_id"], selection), 303)
    is_fragment = "HX-Request" in request.headers
    result = result_request.prepare_result(summary, selection, 0 if is_fragment else result_request.WAIT_SECONDS)
    if is_fragment and result.is_under_way:
        return _no_content()
    pages = page_count(result.count, result_store.PAGE_ROWS)
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
        **_table_controls(result, columns),
    )
    return page, 422 if result.errors else 200


def _columns(result: result_request.ResultPage, rows: list[Row], join: Document | None) -> list[str]:
    """The names of all columns. The selected ones come first, in the requested order."""
    if result.profile is not None:
        names = [column.name for column in result.profile.in_order(join)]
    else:
        names = value_text.joined_columns([row.document for row in rows], join, result.summary.columns)
    return list(dict.fromkeys([*result.selection.columns, *names]))


def _table_controls(result: result_request.ResultPage, columns: list[str]) -> dict[str, Any]:
    """The template variables for the links and forms around the table."""
    selected = result.selection.columns
    blank: list[dict[str, str]] = [{}] if len(result.query.conditions) < MAX_CONDITIONS else []
    profiles: dict[str, Column] = {} if result.profile is None else {each.name: each for each in result.profile.columns}
    return {
        "shown": list(selected) or columns[:SHOWN_COLUMNS],
        "profiles": profiles,
        "parameters": result_request.selection_parameters(result.selection),
        "sorted_by": lambda column: result_request.selection_parameters(result_request.with_next_sort(result, column)),
        "downwards": lambda column: descending_text(column, result.names),
        "operators": _operators(result.query),
        "conditions": [*result.query.conditions, *blank],
    }


def _operators(query: RowQuery) -> dict[Operator, str]:
    """The labels of the operators to choose from. Includes UNMATCHED only if the query has it."""
    used = {condition.operator for condition in query.conditions}
    return {each: label for each, label in OPERATOR_LABELS.items() if each is not Operator.UNMATCHED or each in used}


def _moved_column_url(task_id: str, selection: Selection) -> str:
    """The URL of the page with one column moved to the left or to the right."""
    direction, _, column = request.args["move"].partition(" ")
    order = list(selection.columns)
    if column in order:
        place = order.index(column)
        order.insert(max(0, place + (-1 if direction == "left" else 1)), order.pop(place))
    parameters = result_request.selection_parameters(Selection(selection.query, tuple(order)))
    return url_for(".result_page", task_id=task_id, chosen=request.args["move"], **parameters)


@blueprint.get("/columns")
def columns_page(task_id: str) -> ResponseReturnValue:
    """The statistics of each column, as charts and text."""
    return with_result(task_id, _columns_page)


def _columns_page(task: Document, summary: Summary) -> ResponseReturnValue:
    is_fragment = "HX-Request" in request.headers
    result = result_request.prepare_result(summary, Selection(), 0 if is_fragment else result_request.WAIT_SECONDS)
    if is_fragment and result.is_under_way:
        return _no_content()
    columns = result.profile.in_order(task.get("join")) if result.profile else []
    pages = page_count(len(columns), PROFILED_COLUMNS)
    number = number_or_last("page", pages)
    return render_template(
        "results/columns.html",
        task=task,
        summary=summary,
        result=result,
        columns=columns[(number - 1) * PROFILED_COLUMNS : number * PROFILED_COLUMNS],
        number=number,
        pages=pages,
        rows_with=lambda column, value: result_request.selection_parameters(
            result_request.with_condition(Selection(), column.name, value)
        ),
    )


@blueprint.get("/unmatched/<path:name>")
def unmatched_page(task_id: str, name: str) -> ResponseReturnValue:
    """The rows without a match in the join that embeds ``name``."""
    return with_result(task_id, partial(_unmatched_page, name))


def _unmatched_page(name: str, task: Document, summary: Summary) -> ResponseReturnValue:
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
        all_rows=_all_unmatched(summary, name),
    )


def _all_unmatched(summary: Summary, name: str) -> dict[str, Any] | None:
    """The URL parameters for all rows without a match; None if the profile is missing or does not list them."""
    profile = result_request.prepare_result(summary, Selection()).profile
    if profile is None or name not in profile.unmatched:
        return None
    return result_request.selection_parameters(Selection(RowQuery(conditions=(Condition(name, Operator.UNMATCHED),))))


def _row_url(task_id: str, row: int, selection: Selection) -> str:
    """The URL of a row, counted from 1 among all rows, with the selected columns."""
    page = (row - 1) // result_store.PAGE_ROWS + 1
    return url_for(".result_page", task_id=task_id, page=page, columns=list(selection.columns), _anchor=f"row-{row}")


@blueprint.post("/keeping")
def keep(task_id: str) -> ResponseReturnValue:
    """Keeps the result longer, up to the limit."""
    summary = result_store.find_task_result(access.task_for(access.viewer(), task_id))
    until = None if summary is None else retention.kept_until(summary)
    if summary is not None and until is not None and retention.keep(summary, until):
        flash("The result is kept longer.")
    parameters = result_request.selection_parameters(result_request.requested_selection())
    page = request.args.get("page")
    return redirect(url_for(".result_page", task_id=task_id, page=page, **parameters), 303)


@blueprint.post("/discarding")
def discard(task_id: str) -> ResponseReturnValue:
    """Deletes the result for all tasks that share it."""
    summary = result_store.find_task_result(access.task_for(access.viewer(), task_id))
    if summary is not None:
        retention.discard(summary)
    return redirect(url_for("status.task_page", task_id=task_id), 303)

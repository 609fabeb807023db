"""The page with two tasks side by side and the changes between their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask import Blueprint, make_response, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.presenters import task_text, value_text
from webapp.presenters.join_text import describe_join_lines
from webapp.results import result_request
from webapp.support import access
from webapp.support.paging import number_or_last, page_count
from worker_tasks.analysis import artifacts, reader, result_diff
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.reader import Row
from worker_tasks.analysis.result_diff import ResultDiff, diff_spec
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.results import result_store
from worker_tasks.results.result_store import PAGE_ROWS, ResultGone
from worker_tasks.results.summaries import Summary

blueprint = Blueprint("comparisons", __name__)

#: The maximum number of columns to show for added and removed rows.
SHOWN_COLUMNS = 20
#: The lists of a comparison, by their names in URLs and in ResultDiff.
LISTS = ("changed", "added", "gone")


def requested_tasks() -> tuple[Document, Document]:
    """The tasks in the query parameters ``older`` and ``newer``.

    Raises:
        InvalidInput: a parameter is missing, or both name the same task.
        TaskNotFound: no task has this id, or the viewer may not see it.
    """
    for name in ("older", "newer"):
        if not request.args.get(name):
            raise InvalidInput({name: "must be the id of a task."})
    if request.args["older"] == request.args["newer"]:
        raise InvalidInput({"newer": "is the same task as the older one."})
    older, newer = (access.task_for(access.viewer(), request.args[name]) for name in ("older", "newer"))
    return older, newer


@dataclass(frozen=True)
class ComparisonState:
    """The state of the comparison of two results.

    Attributes:
        missing: the tasks without a result.
        is_same_run: both tasks share one result.
        is_under_way: a worker is still comparing.
        message: the reason why the comparison failed.
        columns: the columns that can pair rows.
        diff: the finished comparison.
    """

    missing: Sequence[Document] = ()
    is_same_run: bool = False
    is_under_way: bool = False
    message: str | None = None
    columns: Sequence[str] = ()
    diff: ResultDiff | None = None


@dataclass(frozen=True)
class DiffPage:
    """One page of added or removed ``rows``, or of ``pairs`` of changed rows, with the columns to show."""

    names: list[str]
    number: int = 1
    pages: int = 1
    rows: Sequence[Row] = ()
    pairs: Sequence[tuple[Row, Row]] = ()


@blueprint.get("/comparison")
def comparison_page() -> ResponseReturnValue:
    """Two tasks side by side and, if both results exist, their changed rows."""
    older, newer = requested_tasks()
    name, key = request.args.get("show", "changed"), request.args.getlist("key")
    if name not in LISTS:
        raise InvalidInput({"show": f"must be one of {', '.join(LISTS)}."})
    is_fragment = "HX-Request" in request.headers
    try:
        comparison = compare(older, newer, key, 0 if is_fragment else result_request.WAIT_SECONDS)
        page = DiffPage([]) if comparison.diff is None else _diff_page(older, newer, key, name, comparison.diff)
    except ResultGone:
        comparison, page = ComparisonState(missing=[older, newer]), DiffPage([])
    if is_fragment and comparison.is_under_way:
        return make_response("", 204)
    return make_response(
        render_template(
            "results/comparison.html",
            older=older,
            newer=newer,
            facts=side_by_side(older, newer),
            shown=name,
            keys=key,
            is_other_join=(older["name"], older["args"]) != (newer["name"], newer["args"]),
            comparison=comparison,
            page=page,
        )
    )


def compare(older: Document, newer: Document, key: list[str], seconds: float) -> ComparisonState:
    """Requests the comparison of two tasks' results and waits up to ``seconds`` for each of its three steps.

    Raises:
        ResultGone: a result disappeared while it was read.
        ServiceUnavailable, redis.exceptions.RedisError: Redis is away.
    """
    before, after = result_store.find_task_result(older), result_store.find_task_result(newer)
    if before is None or after is None:
        return ComparisonState(missing=[task for task, summary in ((older, before), (newer, after)) if summary is None])
    if before.run == after.run:
        return ComparisonState(is_same_run=True)
    results = [result_request.prepare_result(summary, Selection(), seconds) for summary in (before, after)]
    profiles = [result.profile for result in results if result.profile is not None]
    if len(profiles) < len(results):
        message = next((result.failure for result in results if result.failure), None)
        return ComparisonState(is_under_way=message is None, message=message)
    artifact = artifacts.await_artifact(after, diff_spec(before, key), seconds)
    return ComparisonState(
        is_under_way=artifact.is_under_way,
        message=artifact.message,
        columns=result_diff.common_columns(*profiles),
        diff=ResultDiff.from_document(artifact.data) if artifact.is_done else None,
    )


def _diff_page(older: Document, newer: Document, key: list[str], name: str, diff: ResultDiff) -> DiffPage:
    """The requested page of one of the ``LISTS``."""
    before, after = result_store.find_task_result(older), result_store.find_task_result(newer)
    if before is None or after is None:
        raise ResultGone(name)
    pages = page_count(getattr(diff, name), PAGE_ROWS)
    number = number_or_last("page", pages)
    spec, first = diff_spec(before, key), (number - 1) * PAGE_ROWS

    def rows(summary: Summary, column: str) -> list[Row]:
        return reader.read_rows_at(summary, result_diff.diff_row_numbers(after, spec, column, first, PAGE_ROWS))

    if name == "changed":
        names = list(dict.fromkeys([*diff.key, *diff.changes]))
        pairs = list(zip(rows(before, "changed_from"), rows(after, "changed_to"), strict=True))
        return DiffPage(names, number, pages, pairs=pairs)
    side = before if name == "gone" else after
    columns = reader.profile_of(side).in_order(older.get("join"))
    names = list(dict.fromkeys([*diff.key, *(column.name for column in columns)]))[:SHOWN_COLUMNS]
    return DiffPage(names, number, pages, rows=rows(side, name))


def side_by_side(older: Document, newer: Document) -> list[tuple[str, str, str]]:
    """The properties of two tasks as triples of label, older and newer value."""
    first, second = _properties(older), _properties(newer)
    return [(label, first.get(label, ""), second.get(label, "")) for label in dict.fromkeys([*first, *second])]


def _properties(task: Document) -> dict[str, str]:
    outcome = task_text.join_outcome(task)
    texts = {
        "Asked": value_text.format_instant(task["queued_at"]),
        "By": task.get("requested_by") or "",
        **dict(task_text.metadata_rows(task)),
        "State": task_text.describe_state(task["status"]).label,
        "Rows": "" if outcome is None else f"{outcome[1]:,}",
        "Size": "" if task.get("result_bytes") is None else value_text.format_size(task["result_bytes"]),
        "Took": value_text.format_duration(took) if (took := _took(task)) is not None else "",
    }
    for name, count in (task.get("unmatched") or {}).items():
        texts[f"Without {name}"] = f"{count:,}"
    for label, value in describe_join_lines(task["join"]) if task.get("join") else []:
        texts[label] = f"{texts[label]}; {value}" if label in texts else value
    return {label: value for label, value in texts.items() if value}


def _took(task: Document) -> timedelta | None:
    started, done = task["started_at"], task["date_done"]
    return done - started if started is not None and done is not None else None


def comparison_url(first: Document, second: Document) -> str:
    """The URL of the comparison of two tasks, in any order."""
    older, newer = sorted((first, second), key=lambda task: (task["queued_at"], task["_id"]))
    return url_for("comparisons.comparison_page", older=older["_id"], newer=newer["_id"])

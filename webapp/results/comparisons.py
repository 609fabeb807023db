"""Find: two tasks side by side, and what changed between their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from flask import Blueprint, make_response, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.presenters import task_text, value_text
from webapp.presenters.join_text import describe_join_lines
from webapp.results import result_request
from webapp.support import access
from webapp.support.paging import number_or_last
from worker_tasks.analysis import artifacts, reader, result_diff
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.reader import Row
from worker_tasks.analysis.result_diff import ResultDiff, diff_spec
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.results import result_store
from worker_tasks.results.result_store import PAGE_ROWS, ResultGone, Summary

blueprint = Blueprint("comparisons", __name__)

#: Columns that are shown of rows that were added or are gone.
SHOWN_COLUMNS = 20
#: The lists of a comparison, as an address names them.
SHOWN = ("changed", "added", "gone")


def requested_tasks() -> tuple[Document, Document]:
    """The two tasks that are asked for, as ``older`` and ``newer``.

    Raises:
        InvalidInput: one is not named, or both are the same.
        TaskNotFound: there is no such task.
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
    """How far the comparison of two results is.

    ``missing`` are the tasks whose result is not there; ``same_run`` says that there is but one result; ``columns`` are
    those that rows can be paired by. ``found`` is None while it is ``under_way``, or where ``message`` says why not.
    """

    missing: Sequence[Document] = ()
    same_run: bool = False
    under_way: bool = False
    message: str | None = None
    columns: Sequence[str] = ()
    found: ResultDiff | None = None


@dataclass(frozen=True)
class DiffPage:
    """One page of the rows that were added or are gone, or of the ``pairs`` of those that changed."""

    names: list[str]
    number: int = 1
    pages: int = 1
    rows: Sequence[Row] = ()
    pairs: Sequence[tuple[Row, Row]] = ()


@blueprint.get("/comparison")
def comparison_page() -> ResponseReturnValue:
    """Two tasks side by side, and if the results of both are there, their rows."""
    older, newer = requested_tasks()
    shown, key = request.args.get("show", "changed"), request.args.getlist("key")
    if shown not in SHOWN:
        raise InvalidInput({"show": f"must be one of {', '.join(SHOWN)}."})
    fragment = "HX-Request" in request.headers
    try:
        compared = compare(older, newer, key, 0 if fragment else result_request.WAIT_SECONDS)
        listed = DiffPage([]) if compared.found is None else _listed(older, newer, key, shown, compared.found)
    except ResultGone:
        compared, listed = ComparisonState(missing=[older, newer]), DiffPage([])
    if fragment and compared.under_way:
        return make_response("", 204)
    return make_response(
        render_template(
            "comparisons/comparison.html",
            older=older,
            newer=newer,
            facts=side_by_side(older, newer),
            shown=shown,
            keys=key,
            other_join=(older["name"], older["args"]) != (newer["name"], newer["args"]),
            compared=compared,
            listed=listed,
        )
    )


def compare(older: Document, newer: Document, key: list[str], seconds: float) -> ComparisonState:
    """Has the results of two tasks compared; waits at most so many seconds for each of three steps.

    Raises:
        ResultGone: one of them went away meanwhile.
        ServiceUnavailable, redis.exceptions.RedisError: Redis is away.
    """
    before, after = result_store.find_task_result(older), result_store.find_task_result(newer)
    if before is None or after is None:
        return ComparisonState(missing=[task for task, summary in ((older, before), (newer, after)) if summary is None])
    if before.run == after.run:
        return ComparisonState(same_run=True)
    results = [result_request.prepare_result(summary, Selection(), seconds) for summary in (before, after)]
    profiles = [result.profile for result in results if result.profile is not None]
    if len(profiles) < len(results):
        message = next((result.failure for result in results if result.failure), None)
        return ComparisonState(under_way=message is None, message=message)
    state = artifacts.await_artifact(after, diff_spec(before, key), seconds)
    return ComparisonState(
        under_way=state.is_under_way,
        message=state.message,
        columns=result_diff.common_columns(*profiles),
        found=ResultDiff.from_document(state.data) if state.is_done else None,
    )


def _listed(older: Document, newer: Document, key: list[str], shown: str, found: ResultDiff) -> DiffPage:
    before, after = result_store.find_task_result(older), result_store.find_task_result(newer)
    if before is None or after is None:
        raise ResultGone(shown)
    pages = max(1, -(-getattr(found, shown) // PAGE_ROWS))
    number = number_or_last("page", pages)
    asked, first = diff_spec(before, key), (number - 1) * PAGE_ROWS

    def rows(summary: Summary, what: str) -> list[Row]:
        return reader.read_rows_at(summary, result_diff.diff_row_numbers(after, asked, what, first, PAGE_ROWS))

    if shown == "changed":
        names = list(dict.fromkeys([*found.key, *found.changes]))
        pairs = list(zip(rows(before, "changed_from"), rows(after, "changed_to"), strict=True))
        return DiffPage(names, number, pages, pairs=pairs)
    side = before if shown == "gone" else after
    columns = reader.profile_of(side).in_order(older.get("join"))
    names = list(dict.fromkeys([*found.key, *(column.name for column in columns)]))[:SHOWN_COLUMNS]
    return DiffPage(names, number, pages, rows=rows(side, shown))


def side_by_side(older: Document, newer: Document) -> list[tuple[str, str, str]]:
    """What is known of two tasks, side by side; what is the same of both is said twice."""
    lines = [_facts(task) for task in (older, newer)]
    labels = list(dict.fromkeys(label for each in lines for label in each))
    return [(label, lines[0].get(label, ""), lines[1].get(label, "")) for label in labels]


def _facts(task: Document) -> dict[str, str]:
    outcome = task_text.join_outcome(task)
    found = {
        "Asked": value_text.format_instant(task["queued_at"]),
        "By": task.get("requested_by") or "",
        **dict(task_text.metadata_rows(task)),
        "State": task_text.describe_state(task["status"]).label,
        "Rows": "" if outcome is None else f"{outcome[1]:,}",
        "Size": "" if task.get("result_bytes") is None else value_text.format_size(task["result_bytes"]),
        "Took": value_text.format_duration(took) if (took := _took(task)) is not None else "",
    }
    for name, count in (task.get("unmatched") or {}).items():
        found[f"Without {name}"] = f"{count:,}"
    for label, value in describe_join_lines(task["join"]) if task.get("join") else []:
        found[label] = f"{found[label]}; {value}" if label in found else value
    return {label: value for label, value in found.items() if value}


def _took(task: Document) -> timedelta | None:
    begun, done = task["started_at"], task["date_done"]
    return done - begun if begun is not None and done is not None else None


def comparison_url(first: Document, second: Document) -> str:
    """Where two tasks are compared, whichever of them was first."""
    older, newer = sorted((first, second), key=lambda task: (task["queued_at"], task["_id"]))
    return url_for("comparisons.comparison_page", older=older["_id"], newer=newer["_id"])

"""The outcome of a task as text: actual figures beside the estimates, or the effect of a cancellation. Pure: no I/O."""

from typing import Any

import humanize

from webapp.presenters.join_text import collection_of, repeats_rows
from webapp.presenters.task_text import join_outcome
from webapp.presenters.value_text import (
    Document,
    format_duration,
    format_estimate,
    format_estimated_size,
    format_instant,
    format_seconds,
    format_share,
    format_size,
)
from worker_tasks.records import states


def cancel_receipt(task: Document) -> list[tuple[str, str]]:
    """The outcome of a cancellation as pairs of label and text. Empty for other tasks."""
    if task["status"] != states.REVOKED or not task.get("cancel_requested_at"):
        return []
    lines = [
        ("Asked", format_instant(task["cancel_requested_at"])),
        ("Stopped", f"after {format_duration(task['date_done'] - task['cancel_requested_at'])}"),
    ]
    if task["attempt"] == 0:
        lines.append(("Left running in MongoDB", "nothing: it had not begun"))
    elif task.get("left_in_mongodb") is not None:
        count = task["left_in_mongodb"]
        left = f"{count} operations" if count else "nothing"
        lines.append(("Left running in MongoDB", f"{left}, as MongoDB says"))
    if (partial := task.get("partial")) is not None:
        lines.append(("Kept", f"the {partial['count']:,} rows that were joined, as a partial result"))
    elif task.get("join"):
        lines.append(("Kept", "nothing: no row was joined yet"))
    return lines


def actual_vs_expected(task: Document) -> list[Document]:
    """The figures of a finished join, as dicts with the texts ``label``, ``actual`` and ``expected``."""
    outcome = join_outcome(task)
    if outcome is None:
        return []
    expected = (task.get("checks") or {}).get("expected") or {}
    lines = [_line_with_estimate("Rows", outcome[1], expected.get("rows"), humanize.intcomma, format_estimate)]
    if task.get("result_bytes") is not None:
        lines.append(
            _line_with_estimate("Size", task["result_bytes"], expected.get("bytes"), format_size, format_estimated_size)
        )
    if task["started_at"] is not None and task["date_done"] is not None:
        took = (task["date_done"] - task["started_at"]).total_seconds()
        lines.append(_line_with_estimate("Time", took, expected.get("seconds"), format_seconds, format_seconds))
    lines += _match_lines(task, outcome[1], expected.get("rates") or [])
    if task["worker"]:
        lines.append(_line("Worker", task["worker"]))
    lines.append(_line("Computed", _describe_origin(task)))
    if (plan := task.get("plan")) and plan["steps"]:
        lines.append(_line("How", _describe_method(plan["steps"])))
    return lines


def _line(label: str, actual: str, expected: str = "") -> Document:
    return {"label": label, "actual": actual, "expected": expected}


def _line_with_estimate(label: str, actual: Any, expected: Any, format_actual: Any, format_expected: Any) -> Document:
    estimate = "" if expected is None else f"about {format_expected(expected)}"
    return _line(label, format_actual(actual), estimate)


def _match_lines(task: Document, rows: int, rates: list[float | None]) -> list[Document]:
    """The share of rows with a match, for each join that keeps the rows without one."""
    lines = []
    for number, join in enumerate((task.get("join") or {}).get("joins", [])):
        unmatched = (task.get("unmatched") or {}).get(join.get("as", ""))
        if unmatched is None or not rows:
            continue
        rate = rates[number] if number < len(rates) else None
        label = f"Match in {collection_of(join)}"
        if repeats_rows(join):
            # With one row for each match, the share of result rows is not the share of left rows.
            lines.append(_line(label, f"{humanize.intcomma(unmatched)} found none"))
            continue
        actual = f"{format_share(1 - unmatched / rows)}; {humanize.intcomma(unmatched)} rows found none"
        lines.append(_line(label, actual, "" if rate is None else f"about {format_share(rate)}"))
    return lines


#: The methods of joins in words.
_METHODS = {"lookup": "MongoDB found the matches of each row", "scan": "each collection was read once"}


def _describe_method(steps: list[Document]) -> str:
    """How the collections were joined. Older tasks hold words of their own for each of them."""
    ways = [_METHODS.get(step["way"], str(step["way"])) for step in steps]
    return ", then ".join(dict.fromkeys(ways))


def _describe_origin(task: Document) -> str:
    if not task.get("shares"):
        parts = (task.get("plan") or {}).get("parts", 1)
        return "by this task" if parts == 1 else f"by this task, in {parts} parts"
    if task["attempt"]:
        return "by this task"
    return f"by the run of task {task['shares'][:8]}, which asked the same"

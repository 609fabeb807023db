"""What is said of a result: how far its rows are, what a file holds, what changed between two of them. Pure: no I/O."""

from typing import NamedTuple

from webapp.presenters.task_text import describe_task
from webapp.presenters.value_text import Document, number
from webapp.results.result_request import ResultPage
from worker_tasks.analysis.artifacts import Artifact
from worker_tasks.analysis.result_diff import ResultDiff
from worker_tasks.analysis.row_query import Operator, RowQuery
from worker_tasks.results.result_store import Summary

OPERATOR_WORDS = {
    Operator.EQ: "is",
    Operator.NE: "is not",
    Operator.CONTAINS: "contains",
    Operator.STARTS: "begins with",
    Operator.GT: "is greater than",
    Operator.GTE: "is at least",
    Operator.LT: "is less than",
    Operator.LTE: "is at most",
    Operator.THERE: "has a value",
    Operator.EMPTY: "has nothing in it",
    Operator.NULL: "is null",
    Operator.MISSING: "is missing",
    Operator.UNMATCHED: "found no match",
}

#: How rows are compared that no column tells apart.
WHOLE_ROWS = (
    "No column tells the rows apart, so that whole rows are compared: one that changed is one gone and one added."
)


class Sorting(NamedTuple):
    """How rows are sorted by a column: ``state`` for ``aria-sort``, a ``sign``, and the ``offer`` of the next press."""

    state: str | None
    sign: str
    offer: str


SORTING = {
    None: Sorting(None, "", "Sort by it, lowest first"),
    False: Sorting("ascending", " ↑", "Sort by it, highest first"),
    True: Sorting("descending", " ↓", "As it was joined"),
}


def sorting_of(looked: ResultPage, column: str) -> Sorting:
    return SORTING[dict(looked.view.sort).get(column)]


def rows_sentence(looked: ResultPage) -> str:
    """Which rows are shown, or how far a worker is with them."""
    total = number(looked.summary.count)
    if looked.errors:
        return "Nothing was looked for."
    if looked.failure:
        return f"The rows can be read, but not sorted or searched: {looked.failure}"
    if looked.has_no_worker:
        return "No worker is there just now to measure, sort and search; as soon as one is, it begins."
    if looked.table.is_under_way:
        return f"A worker is measuring all {total} rows; sorting and searching begin when it is done."
    if looked.is_under_way:
        return f"A worker is {'looking through' if _is_searched(looked.view) else 'sorting'} all {total} rows."
    if looked.view.is_everything:
        return f"All {total} rows, as they were joined."
    order = ", then ".join(f"{column}{' downwards' if descending else ''}" for column, descending in looked.view.sort)
    return f"{_share_of_rows(looked)}{f', sorted by {order}' if order else ''}."


def _is_searched(view: RowQuery) -> bool:
    return bool(view.text or view.conditions)


def _share_of_rows(looked: ResultPage) -> str:
    return f"{number(looked.count)} of {number(looked.summary.count)} rows"


def leads_to_all_rows(looked: ResultPage) -> bool:
    """Whether a link to all rows stands behind the sentence."""
    if looked.errors:
        return True
    return not looked.view.is_everything and (bool(looked.failure) or not looked.is_under_way)


def columns_kept(looked: ResultPage) -> tuple[str, ...]:
    """The columns that this link keeps: none where they, or the rows, could not be shown as asked."""
    return () if looked.errors or looked.failure else looked.excerpt.columns


def pictures_note(looked: ResultPage) -> str:
    """What stands behind this link: the pictures are of all rows, also where only some are shown."""
    if looked.errors or looked.failure or not _is_searched(looked.view):
        return ""
    return " (the pictures over the columns are of those)"


def columns_words(looked: ResultPage, shown: list[str], columns: list[str]) -> str:
    """``3 of 14``, or ``all``."""
    are_some = looked.excerpt.columns or len(shown) < len(columns)
    return f"{len(shown)} of {len(columns)}" if are_some else "all"


def conditions_words(looked: ResultPage) -> str:
    """``: 2 conditions``, or nothing."""
    conditions = looked.view.conditions
    return f": {len(conditions)} {'condition' if len(conditions) == 1 else 'conditions'}" if conditions else ""


def measuring_sentence(looked: ResultPage) -> str:
    """Why the columns are not measured yet."""
    if looked.failure:
        return f"The columns could not be measured: {looked.failure}"
    if looked.has_no_worker:
        return "No worker is there just now to measure the columns; as soon as one is, it begins."
    return f"A worker is measuring all {number(looked.summary.count)} rows."


def partial_sentence(task: Document, summary: Summary) -> str:
    end = "was cancelled" if task["status"] == "REVOKED" else "met a limit"
    return f"This result is partial: it holds the {number(summary.count)} rows that were joined when the run {end}."


def excerpt_sentence(looked: ResultPage) -> str:
    """Which rows and columns a file holds."""
    if looked.excerpt.is_everything:
        return "Every row and every column."
    view, columns = looked.view, looked.excerpt.columns
    rows = "The rows that were looked for"
    if view.is_everything:
        rows = "Every row"
    elif looked.has_rows:
        rows = _share_of_rows(looked)
    parts = [f"{rows}, with {', '.join(columns)} alone" if columns else f"{rows}, with every column"]
    parts += [f"{each.column} {OPERATOR_WORDS[each.operator]} {each.value}" for each in view.conditions]
    if view.text:
        parts.append(f"with the text “{view.text}”")
    order = [f"{column}{', highest first' if descending else ''}" for column, descending in view.sort]
    if order:
        parts.append(f"by {', then '.join(order)}")
    return f"{'; '.join(parts)}."


def making_sentence(looked: ResultPage, under_way: bool) -> str:
    """How far a worker is with the files; empty where none is asked for."""
    if looked.failure:
        return f"Files can not be made: {looked.failure}"
    if looked.table.is_under_way:
        return f"A worker is measuring all {number(looked.summary.count)} rows first."
    return "A worker is on it; this page goes on by itself." if under_way else ""


def progress_of(state: Artifact | None) -> dict[str, int]:
    """The attributes of a bar that shows how far a file is; none while that is unknown."""
    return {"max": state.total, "value": state.done} if state is not None and state.total else {}


def file_progress(state: Artifact | None) -> str:
    if state is None or not state.total:
        return "being made"
    return f"{number(state.done)} of {number(state.total)} rows"


def two_runs(older: Document, newer: Document) -> str:
    """What was asked by two tasks that are compared."""
    if describe_task(older) == describe_task(newer):
        return f"Two runs: {describe_task(newer)}"
    return f"{describe_task(older)}, and {describe_task(newer)}"


def changes_sentence(found: ResultDiff) -> str:
    if not found.added + found.gone + found.changed:
        return f"Nothing changed: all {number(found.same)} rows are the same."
    return (
        f"{number(found.changed)} changed, {number(found.added)} added, {number(found.gone)} gone, "
        f"{number(found.same)} the same."
    )


def pairing_sentence(found: ResultDiff) -> str:
    """How rows were paired, and which columns only one of the results has."""
    words = WHOLE_ROWS
    if found.key:
        repeated = "; several rows have the same, and are paired in the order of their values" if found.repeated else ""
        words = f"Rows with the same {' and '.join(found.key)} are compared{repeated}."
    if found.only_newer:
        words += f" New columns: {', '.join(found.only_newer)}."
    if found.only_older:
        words += f" Columns that are gone: {', '.join(found.only_older)}."
    return words

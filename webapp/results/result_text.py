"""Sentences about a result: its rows, its files and the changes since another one. Pure: no I/O."""

from typing import NamedTuple

from webapp.presenters.task_text import describe_task
from webapp.presenters.value_text import Document, format_number
from webapp.results.result_request import ResultPage
from worker_tasks.analysis.artifacts import Artifact
from worker_tasks.analysis.result_diff import ResultDiff
from worker_tasks.analysis.row_query import Operator, RowQuery
from worker_tasks.results.summaries import Summary

OPERATOR_LABELS = {
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

#: The text for a comparison in which no column identifies a row.
WHOLE_ROWS = (
    "No column tells the rows apart, so that whole rows are compared: one that changed is one gone and one added."
)


class Sorting(NamedTuple):
    """The sorting by one column: ``state`` for ``aria-sort``, a ``sign``, and the ``offer`` for the next click."""

    state: str | None
    sign: str
    offer: str


#: The key is True for descending order, False for ascending order, and None if the column does not sort the rows.
SORTING = {
    None: Sorting(None, "", "Sort by it, lowest first"),
    False: Sorting("ascending", " ↑", "Sort by it, highest first"),
    True: Sorting("descending", " ↓", "As it was joined"),
}


def sorting_of(result: ResultPage, column: str) -> Sorting:
    return SORTING[result.sort.get(column)]


def describe_rows(result: ResultPage) -> str:
    """The rows on the page, or a worker's progress with them."""
    total = format_number(result.summary.count)
    if result.errors:
        return "Nothing was looked for."
    if result.failure:
        return f"The rows can be read, but not sorted or searched: {result.failure}"
    if result.has_no_worker:
        return "No worker is there just now to measure, sort and search; as soon as one is, it begins."
    if result.table.is_under_way:
        return f"A worker is measuring all {total} rows; sorting and searching begin when it is done."
    if result.is_under_way:
        return f"A worker is {'looking through' if _is_searched(result.query) else 'sorting'} all {total} rows."
    if result.query.is_everything:
        return f"All {total} rows, as they were joined."
    sort = ", then ".join(f"{column}{' downwards' if descending else ''}" for column, descending in result.sort.items())
    return f"{_share_of_rows(result)}{f', sorted by {sort}' if sort else ''}."


def _is_searched(view: RowQuery) -> bool:
    return bool(view.text or view.conditions)


def _share_of_rows(result: ResultPage) -> str:
    return f"{format_number(result.count)} of {format_number(result.summary.count)} rows"


def offers_all_rows(result: ResultPage) -> bool:
    """Whether the page links to all rows."""
    if result.errors:
        return True
    return not result.query.is_everything and (bool(result.failure) or not result.is_under_way)


def kept_columns(result: ResultPage) -> tuple[str, ...]:
    """The columns to keep in the link to all rows. Empty after an error."""
    return () if result.errors or result.failure else result.selection.columns


def describe_chart_scope(result: ResultPage) -> str:
    """A note behind the link to all rows, which says that the charts cover all rows even if the table does not."""
    if result.errors or result.failure or not _is_searched(result.query):
        return ""
    return " (the pictures over the columns are of those)"


def format_column_count(result: ResultPage, shown: list[str], columns: list[str]) -> str:
    """The number of shown columns, such as ``3 of 14`` or ``all``."""
    is_part = result.selection.columns or len(shown) < len(columns)
    return f"{len(shown)} of {len(columns)}" if is_part else "all"


def format_condition_count(result: ResultPage) -> str:
    """The number of conditions as a suffix, such as ``: 2 conditions``; empty if there are none."""
    conditions = result.query.conditions
    return f": {len(conditions)} {'condition' if len(conditions) == 1 else 'conditions'}" if conditions else ""


def describe_measuring(result: ResultPage) -> str:
    """The reason why the columns are not measured yet."""
    if result.failure:
        return f"The columns could not be measured: {result.failure}"
    if result.has_no_worker:
        return "No worker is there just now to measure the columns; as soon as one is, it begins."
    return f"A worker is measuring all {format_number(result.summary.count)} rows."


def describe_partial(task: Document, summary: Summary) -> str:
    end = "was cancelled" if task["status"] == "REVOKED" else "met a limit"
    rows = format_number(summary.count)
    return f"This result is partial: it holds the {rows} rows that were joined when the run {end}."


def describe_selection(result: ResultPage) -> str:
    """The rows and columns of a file."""
    if result.selection.is_everything:
        return "Every row and every column."
    query, columns = result.query, result.selection.columns
    rows = "The rows that were looked for"
    if query.is_everything:
        rows = "Every row"
    elif result.has_rows:
        rows = _share_of_rows(result)
    parts = [f"{rows}, with {', '.join(columns)} alone" if columns else f"{rows}, with every column"]
    parts += [f"{each.column} {OPERATOR_LABELS[each.operator]} {each.value}" for each in query.conditions]
    if query.text:
        parts.append(f"with the text “{query.text}”")
    sort = [f"{column}{', highest first' if descending else ''}" for column, descending in result.sort.items()]
    if sort:
        parts.append(f"by {', then '.join(sort)}")
    return f"{'; '.join(parts)}."


def describe_file_preparation(result: ResultPage, is_under_way: bool) -> str:
    """A worker's progress with the files; an empty string if none was requested."""
    if result.failure:
        return f"Files cannot be made: {result.failure}"
    if result.table.is_under_way:
        return f"A worker is measuring all {format_number(result.summary.count)} rows first."
    return "A worker is on it; this page goes on by itself." if is_under_way else ""


def progress_attributes(artifact: Artifact | None) -> dict[str, int]:
    """The attributes of a file's progress bar; empty while the total is unknown."""
    return {"max": artifact.total, "value": artifact.done} if artifact is not None and artifact.total else {}


def describe_file_progress(artifact: Artifact | None) -> str:
    if artifact is None or not artifact.total:
        return "being made"
    return f"{format_number(artifact.done)} of {format_number(artifact.total)} rows"


def describe_comparison(older: Document, newer: Document) -> str:
    """The title of a comparison of two tasks."""
    first, second = describe_task(older), describe_task(newer)
    return f"Two runs: {second}" if first == second else f"{first}, and {second}"


def describe_changes(diff: ResultDiff) -> str:
    same = format_number(diff.same)
    if not diff.added + diff.gone + diff.changed:
        return f"Nothing changed: all {same} rows are the same."
    changed, added, gone = (format_number(count) for count in (diff.changed, diff.added, diff.gone))
    return f"{changed} changed, {added} added, {gone} gone, {same} the same."


def describe_pairing(diff: ResultDiff) -> str:
    """How rows were paired, and the columns that only one of the results has."""
    text = WHOLE_ROWS
    if diff.key:
        repeated = "; several rows have the same, and are paired in the order of their values" if diff.repeated else ""
        text = f"Rows with the same {' and '.join(diff.key)} are compared{repeated}."
    if diff.only_newer:
        text += f" New columns: {', '.join(diff.only_newer)}."
    if diff.only_older:
        text += f" Columns that are gone: {', '.join(diff.only_older)}."
    return text

"""The selection of rows and columns in a URL, and the state of its computation."""

from dataclasses import dataclass, replace
from typing import Any

from flask import request

from worker_tasks.analysis import artifacts, reader, row_query
from worker_tasks.analysis.artifacts import Artifact, ArtifactSpec, ArtifactState
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.errors import InvalidInput, ServiceRefuses
from worker_tasks.queue import capacity
from worker_tasks.results.result_store import ResultGone
from worker_tasks.results.summaries import Summary

#: The time that a page waits for an artifact, in seconds. After that, it is shown without the artifact.
WAIT_SECONDS = 0.6
#: The maximum number of columns in a URL.
MAX_COLUMNS = 300


def requested_selection() -> Selection:
    """The rows and columns in the parameters of the request.

    Raises:
        InvalidInput: a parameter is not valid.
    """
    values = request.values
    columns = tuple(dict.fromkeys(values.getlist("columns")))
    if len(columns) > MAX_COLUMNS:
        raise InvalidInput({"columns": f"may name at most {MAX_COLUMNS}."})
    query = row_query.parse_row_query(
        values.getlist("sort"),
        values.get("q", ""),
        values.getlist("where"),
        values.getlist("is"),
        values.getlist("value"),
    )
    return Selection(query, columns)


def wants_provenance_embedded() -> bool:
    """Whether to embed the provenance in formats without a place for it."""
    return request.values.get("inside") == "yes"


def selection_parameters(selection: Selection) -> dict[str, Any]:
    """A selection as URL parameters."""
    query = selection.query
    parameters: dict[str, Any] = {
        "columns": list(selection.columns),
        "sort": [f"-{column}" if descending else column for column, descending in query.sort],
        "q": query.text or None,
        "where": [condition.column for condition in query.conditions],
        "is": [str(condition.operator) for condition in query.conditions],
        "value": [condition.value for condition in query.conditions],
    }
    return {name: value for name, value in parameters.items() if value}


def with_next_sort(result: "ResultPage", column: str) -> Selection:
    """The selection after a click on a column. Clicks sort in ascending, then descending, then joined order."""
    current = result.sort.get(column)
    text = {None: column, False: row_query.descending_text(column, result.names), True: ""}[current]
    sort = row_query.parse_sort([text])
    return replace(result.selection, query=replace(result.query, sort=sort))


def with_condition(selection: Selection, column: str, value: str) -> Selection:
    """The selection restricted to rows with this value."""
    condition = row_query.Condition(column, row_query.Operator.EQ, value)
    return replace(selection, query=replace(selection.query, conditions=(*selection.query.conditions, condition)))


@dataclass(frozen=True)
class ResultPage:
    """A result with the artifacts that a selection needs.

    Attributes:
        table: the table that the worker builds from the result.
        profile: the columns' statistics; None until the table is done.
        order: the row order; None if the selection has all rows in joined order.
        errors: messages by parameter if the selection does not fit the columns.
    """

    summary: Summary
    selection: Selection
    table: Artifact
    profile: Profile | None
    order: Artifact | None
    errors: dict[str, str]

    @property
    def query(self) -> RowQuery:
        return self.selection.query

    @property
    def names(self) -> list[str]:
        """The names of the columns; empty until the table is done."""
        return [] if self.profile is None else self.profile.names

    @property
    def sort(self) -> dict[str, bool]:
        """The columns that sort the rows, and whether each order is descending."""
        return dict(self.query.sort_columns(self.names))

    @property
    def is_under_way(self) -> bool:
        return self.table.is_under_way or (self.order is not None and self.order.is_under_way)

    @property
    def has_no_worker(self) -> bool:
        """Whether an artifact is under way, but no worker is running."""
        return self.is_under_way and capacity.slots() == 0

    @property
    def has_rows(self) -> bool:
        """Whether rows can be shown. A selection of rows can be shown once its row order is known."""
        return self.query.is_everything or (self.order is not None and self.order.is_done)

    @property
    def failure(self) -> str | None:
        """The reason why an artifact failed, or None."""
        return self.table.message or (self.order.message if self.order is not None else None)

    @property
    def count(self) -> int:
        """The number of selected rows, or of all rows while the order is unknown."""
        return self.order.data["rows"] if self.order is not None and self.order.is_done else self.summary.count


def prepare_result(summary: Summary, selection: Selection, seconds: float = WAIT_SECONDS) -> ResultPage:
    """Requests the artifacts for a selection and waits up to ``seconds`` for each.

    Raises:
        ResultGone: the result or an artifact disappeared meanwhile.
        ServiceUnavailable, redis.exceptions.RedisError: Redis is away.
    """
    table = _await(summary, artifacts.TABLE, seconds)
    if not table.is_done:
        return ResultPage(summary, selection, table, None, None, {})
    profile = reader.profile_of(summary)
    try:
        selection.check(profile)
    except InvalidInput as error:
        return ResultPage(summary, selection, table, profile, None, error.errors)
    if selection.query.is_everything:
        return ResultPage(summary, selection, table, profile, None, {})
    order = _await(summary, reader.row_order_spec(selection.query), seconds)
    return ResultPage(summary, selection, table, profile, order, {})


def _await(summary: Summary, spec: ArtifactSpec, seconds: float) -> Artifact:
    """The state of an artifact. If Redis refuses writes, this is a failure, because Redis can still serve rows."""
    try:
        return artifacts.await_artifact(summary, spec, seconds)
    except ServiceRefuses as error:
        return Artifact(ArtifactState.FAILED, message=error.message)


def read_page_rows(result: ResultPage, first: int, limit: int) -> list[reader.Row]:
    """The selected rows from number ``first`` on; ``result.has_rows`` must hold.

    Raises:
        ResultGone: the result disappeared meanwhile.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if result.query.is_everything:
        rows = reader.read_rows_from_start(result.summary, first, limit)
    else:
        rows = reader.read_rows(result.summary, result.query, first, limit)
    if len(rows) < min(limit, result.count - first):
        raise ResultGone(result.summary.key)
    return rows

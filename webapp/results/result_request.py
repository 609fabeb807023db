"""What an address asks of a result: which rows, in which order, which columns; and how far that is worked out."""

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
from worker_tasks.results.result_store import ResultGone, Summary

#: Seconds that a page waits for what is worked out, before it shows itself without.
WAIT_SECONDS = 0.6
#: Columns that can be named in an address.
MAX_COLUMNS = 300


def requested_selection() -> Selection:
    """The rows and columns that the request asks for.

    Raises:
        InvalidInput: names what can not be understood.
    """
    asked = request.values
    columns = tuple(dict.fromkeys(asked.getlist("columns")))
    if len(columns) > MAX_COLUMNS:
        raise InvalidInput({"columns": f"may name at most {MAX_COLUMNS}."})
    view = row_query.parse_row_query(
        asked.getlist("sort"), asked.get("q", ""), asked.getlist("where"), asked.getlist("is"), asked.getlist("value")
    )
    return Selection(view, columns)


def wants_provenance_embedded() -> bool:
    """Whether the provenance goes into formats that have no place for it."""
    return request.values.get("inside") == "yes"


def selection_parameters(selection: Selection) -> dict[str, Any]:
    """A selection as the parameters of an address."""
    view = selection.view
    parameters: dict[str, Any] = {
        "columns": list(selection.columns),
        "sort": [f"-{column}" if descending else column for column, descending in view.sort],
        "q": view.text or None,
        "where": [condition.column for condition in view.conditions],
        "is": [str(condition.operator) for condition in view.conditions],
        "value": [condition.value for condition in view.conditions],
    }
    return {name: value for name, value in parameters.items() if value}


def with_next_sort(selection: Selection, column: str) -> Selection:
    """The same with another order: by this column upwards, then downwards, then as the rows were joined."""
    now = dict(selection.view.sort).get(column)
    sort: tuple[tuple[str, bool], ...] = {None: ((column, False),), False: ((column, True),), True: ()}[now]
    return replace(selection, view=replace(selection.view, sort=sort))


def with_condition(selection: Selection, column: str, value: str) -> Selection:
    """The same, of the rows alone that have this value."""
    condition = row_query.Condition(column, row_query.Operator.EQ, value)
    return replace(selection, view=replace(selection.view, conditions=(*selection.view.conditions, condition)))


@dataclass(frozen=True)
class ResultPage:
    """How far what is asked of a result is: its table, and where not all rows are asked for, their order.

    ``profile`` is None as long as there is no table; ``errors`` name what its columns can not be asked.
    """

    summary: Summary
    selection: Selection
    table: Artifact
    profile: Profile | None
    order: Artifact | None
    errors: dict[str, str]

    @property
    def query(self) -> RowQuery:
        return self.selection.view

    @property
    def is_under_way(self) -> bool:
        return self.table.is_under_way or (self.order is not None and self.order.is_under_way)

    @property
    def has_no_worker(self) -> bool:
        """Whether nobody is there who could go on with it."""
        return self.is_under_way and capacity.slots() == 0

    @property
    def has_rows(self) -> bool:
        """Whether the rows can be shown already: all of them at once, others when they are found."""
        return self.query.is_everything or (self.order is not None and self.order.is_done)

    @property
    def failure(self) -> str | None:
        """Why something of it can not be worked out."""
        return self.table.message or (self.order.message if self.order is not None else None)

    @property
    def count(self) -> int:
        """How many rows are asked for."""
        return self.order.data["rows"] if self.order is not None and self.order.is_done else self.summary.count


def prepare_result(summary: Summary, selection: Selection, seconds: float = WAIT_SECONDS) -> ResultPage:
    """Has worked out what is asked, and waits for it for at most so many seconds.

    Raises:
        ResultGone: the result, or what was made of it, went away meanwhile.
        ServiceUnavailable, redis.exceptions.RedisError: Redis is away.
    """
    table = _followed(summary, artifacts.TABLE, seconds)
    if not table.is_done:
        return ResultPage(summary, selection, table, None, None, {})
    profile = reader.profile_of(summary)
    try:
        selection.check(profile)
    except InvalidInput as error:
        return ResultPage(summary, selection, table, profile, None, error.errors)
    if selection.view.is_everything:
        return ResultPage(summary, selection, table, profile, None, {})
    order = _followed(summary, reader.row_order_spec(selection.view), seconds)
    return ResultPage(summary, selection, table, profile, order, {})


def _followed(summary: Summary, derivation: ArtifactSpec, seconds: float) -> Artifact:
    """How far it is; a Redis that has no room for it, or takes nothing, may still have the rows."""
    try:
        return artifacts.await_artifact(summary, derivation, seconds)
    except ServiceRefuses as error:
        return Artifact(ArtifactState.FAILED, message=error.message)


def read_page_rows(reading: ResultPage, first: int, limit: int) -> list[reader.Row]:
    """Rows of a reading that has them.

    Raises:
        ResultGone: they went away meanwhile.
        redis.exceptions.RedisError: Redis does not answer.
    """
    if reading.query.is_everything:
        found = reader.read_rows_from_start(reading.summary, first, limit)
    else:
        found = reader.read_rows(reading.summary, reading.query, first, limit)
    if len(found) < min(limit, reading.count - first):
        raise ResultGone(reading.summary.key)
    return found

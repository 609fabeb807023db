"""The versioned JSON API. Submits joins; finds, changes and cancels tasks; reads and exports results."""

from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import Conflict, Gone

from webapp.api import openapi, requirements
from webapp.presenters import task_text, value_text
from webapp.results import comparisons, result_request, streaming
from webapp.support import access, metadata_edits
from webapp.support.bodies import json_object
from webapp.support.errors import Busy
from webapp.support.paging import cursor_after, requested_cursor, requested_filter, requested_limit, requested_number
from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis import export_selection as export_rules
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import run_state
from worker_tasks.joins.run.first_rows import find_first_rows
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.records import live, metadata
from worker_tasks.results import result_store, retention, summaries
from worker_tasks.results.formats import FORMATS, Format, Ready
from worker_tasks.results.result_store import ResultGone
from worker_tasks.submission import cancel, read_join, submit_join

blueprint = Blueprint("api_v1", __name__, url_prefix="/api/v1")

MAX_ROWS = 1_000
MAX_ROW_NUMBER = 10**12
Body = TypeVar("Body", bound=BaseModel)


class Asked(BaseModel):
    """A join that is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    join: dict[str, Any] = Field(description="A JoinSpec: see its own schema.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Kept with the task through its whole life.")
    fresh: bool = Field(default=False, description="Runs it anew, though its result is there or on its way.")


class MetadataChange(BaseModel):
    """Keys to set, and keys to delete."""

    model_config = ConfigDict(extra="forbid", strict=True)

    metadata: dict[str, Any] = Field(description="Each key replaces the one of this name; null deletes it.")
    expected: dict[str, Any] = Field(
        default_factory=dict,
        description="What some of these keys held when they were read; null: no such key. "
        "If somebody else changed one meanwhile, nothing is stored, and the answer is 409.",
    )


def _parse_body(model: type[Body]) -> Body:
    """The body of the request, validated.

    Raises:
        UnreadableBody: the body is not a JSON object.
        InvalidInput: the body does not match the model.
    """
    try:
        return model.model_validate(json_object())
    except ValidationError as error:
        raise InvalidInput(
            {".".join(map(str, detail["loc"])): f"{detail['msg']}." for detail in error.errors()}
        ) from None


@blueprint.post("/joins")
def ask() -> ResponseReturnValue:
    """Submits a join. Shares the run of an equal join that is running or has a live result, unless ``fresh``."""
    body = _parse_body(Asked)
    task_id = submit_join(read_join(body.join), metadata=body.metadata, fresh=body.fresh)
    response = jsonify({"task_id": task_id, "status_url": url_for("status.task_page", task_id=task_id)})
    response.headers["Location"] = url_for(".task", task_id=task_id)
    return response, HTTPStatus.ACCEPTED


@blueprint.post("/joins/check")
def check() -> ResponseReturnValue:
    """Checks a join without submitting it."""
    return jsonify(checks.check_join(read_join(_parse_body(Asked).join)).to_document())


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    """The tasks that match the filter, newest first."""
    limit = requested_limit()
    found = access.tasks_for(access.viewer(), requested_filter(), limit + 1, requested_cursor())
    response = jsonify([_task_document(task) for task in found[:limit]])
    if len(found) > limit:
        query: dict[str, Any] = request.args.to_dict() | {"limit": str(limit), "cursor": cursor_after(found[limit - 1])}
        response.headers["Link"] = f'<{url_for(".tasks", **query)}>; rel="next"'
    return response


@blueprint.get("/tasks/<task_id>")
def task(task_id: str) -> ResponseReturnValue:
    """One task with its state, metadata, outcome and progress."""
    return jsonify(_task_document(access.task_for(access.viewer(), task_id)))


def _task_document(task: Document) -> Document:
    document = task_text.as_json(task)
    document["task_id"] = document.pop("_id")
    if not task_text.is_final(task):
        alive = live.read_live(task.get("shares") or task["_id"])
        progress = alive.progress if alive else None
        document["progress"] = _progress_document(progress) if progress else None
    elif result_store.key_of(task) is not None:
        url = url_for(".result", task_id=task["_id"])
        document["links"] = {"result": url, **{name: f"{url}.{name}" for name in FORMATS}}
    return document


def _progress_document(progress: live.Progress) -> Document:
    share = progress.done / progress.total if progress.total else None
    return {**vars(progress), "share": share, "seconds_left": progress.seconds_left}


@blueprint.patch("/tasks/<task_id>")
def change_metadata(task_id: str) -> ResponseReturnValue:
    """Sets and deletes metadata keys. Works in every state of the task."""
    body = _parse_body(MetadataChange)
    unused = sorted(body.expected.keys() - body.metadata.keys())
    errors = metadata.metadata_errors(body.expected, "expected")
    errors |= {f"expected.{key}": "is not among the keys of metadata." for key in unused}
    if errors:
        raise InvalidInput(errors)

    def edit(stored: Document) -> Document:
        base = metadata.apply_changes(stored, body.expected)
        return metadata_edits.merge_edits(base, metadata.apply_changes(base, body.metadata), stored)

    metadata_edits.edit_metadata(access.viewer(), task_id, edit)
    return jsonify(_task_document(access.task_for(access.viewer(), task_id)))


@blueprint.delete("/tasks/<task_id>")
def cancel_task(task_id: str) -> ResponseReturnValue:
    """Cancels a task and ends its operations in MongoDB."""
    cancelled = cancel(access.task_for(access.viewer(), task_id)["_id"])
    task = access.task_for(access.viewer(), task_id)
    if not cancelled:
        raise Conflict(f"The task had ended: it is {task_text.describe_state(task['status']).name}.")
    return jsonify(_task_document(task)), HTTPStatus.ACCEPTED


@blueprint.get("/tasks/<task_id>/result")
def result(task_id: str) -> ResponseReturnValue:
    """A range of the selected rows, or the first rows while the join is running."""
    offset = requested_number("offset", 0, 0, MAX_ROW_NUMBER)
    limit = requested_number("limit", result_store.PAGE_ROWS, 1, MAX_ROWS)
    task = access.task_for(access.viewer(), task_id)
    if not task_text.is_final(task):
        return jsonify(_glimpse(task, limit))
    summary, selection = requirements.require_result(task), result_request.requested_selection()
    count, rows = _read_rows(summary, selection, offset, limit)
    return jsonify(
        {
            "count": count,
            "offset": offset,
            "columns": summary.columns,
            "complete": summary.complete,
            "expires_at": summary.expires_at.isoformat(),
            "rows": rows,
        }
    )


def _read_rows(summary: summaries.Summary, selection: Selection, offset: int, limit: int) -> tuple[int, list[Document]]:
    """The number of selected rows, and the rows in this range."""
    if selection.query.is_everything:
        rows = result_store.read_rows(summary, offset, limit)
        if rows is None:
            raise ResultGone(summary.key)
        return summary.count, rows
    requirements.require_table(summary, selection)
    order = requirements.require_artifact(summary, reader.row_order_spec(selection.query))
    return order.data["rows"], [row.document for row in reader.read_rows(summary, selection.query, offset, limit)]


@blueprint.post("/tasks/<task_id>/result/keeping")
def keep_result(task_id: str) -> ResponseReturnValue:
    """Keeps the result longer, for all tasks that share it."""
    summary = requirements.require_result(access.task_for(access.viewer(), task_id))
    until = retention.kept_until(summary)
    if until is None:
        raise Conflict(f"The result cannot be kept longer: it stays until {summary.expires_at.isoformat()}.")
    if not retention.keep(summary, until):
        raise ResultGone(summary.key)
    return jsonify(_task_document(access.task_for(access.viewer(), task_id)))


@blueprint.delete("/tasks/<task_id>/result")
def discard_result(task_id: str) -> ResponseReturnValue:
    """Deletes the result, for all tasks that share it."""
    summary = requirements.require_result(access.task_for(access.viewer(), task_id))
    if not retention.discard(summary):
        raise ResultGone(summary.key)
    return jsonify(_task_document(access.task_for(access.viewer(), task_id)))


def _glimpse(task: Document, limit: int) -> Document:
    """The first rows of a running join.

    Raises:
        Conflict: the task has no rows yet.
    """
    state = run_state.find_run(task.get("shares") or task["_id"])
    if state is None:
        raise Conflict(f"There are no rows yet: the task is {task_text.describe_state(task['status']).name}.")
    rows = find_first_rows(state, limit)
    columns = value_text.columns_of(rows)
    return {"count": state.rows, "offset": 0, "columns": columns, "complete": False, "expires_at": None, "rows": rows}


@blueprint.get(f"/tasks/<task_id>/result.<any({', '.join(FORMATS)}):name>")
def result_file(task_id: str, name: str) -> Response:
    """The selected rows as a file. Waits for the worker if it has to make the file."""
    task = access.task_for(access.viewer(), task_id)
    summary, selection = requirements.require_result(task), result_request.requested_selection()
    response = _stream(task_id, summary, FORMATS[name], selection)
    provenance_url = url_for(".provenance", task_id=task_id, **result_request.selection_parameters(selection))
    response.headers["Link"] = f'<{provenance_url}>; rel="describedby"'
    title, is_excerpt = task_text.describe_task(task), not selection.is_everything
    file_name = streaming.download_name(title, summary, FORMATS[name], is_excerpt=is_excerpt)
    return streaming.as_attachment(response, file_name)


def _stream(task_id: str, summary: summaries.Summary, file_format: Format, selection: Selection) -> Response:
    embed = result_request.wants_provenance_embedded()
    if not streaming.needs_no_export(file_format, selection, embed_provenance=embed):
        requirements.require_table(summary, selection)
        spec = export_spec(task_id, file_format.name, selection, embed_provenance=embed)
        return streaming.stream_export(summary, spec, requirements.require_artifact(summary, spec))
    response = streaming.stream_result(summary, file_format)
    if file_format.ready is Ready.AS_STORED:
        table = artifacts.find_artifact(summary, artifacts.TABLE)
        # The checksum is known once a worker has built the table.
        if table is not None and table.is_done:
            streaming.with_digest(response, table.data["sha256"])
    return response


@blueprint.get("/tasks/<task_id>/profile")
def profile(task_id: str) -> ResponseReturnValue:
    """The statistics of every column."""
    return jsonify(
        requirements.require_table(
            requirements.require_result(access.task_for(access.viewer(), task_id)), Selection()
        ).to_document()
    )


@blueprint.get("/tasks/<task_id>/provenance")
def provenance(task_id: str) -> ResponseReturnValue:
    """The provenance of a result or of the selected rows."""
    task = access.task_for(access.viewer(), task_id)
    summary, selection = requirements.require_result(task), result_request.requested_selection()
    sha256, rows = requirements.require_table(summary, selection).sha256, summary.count
    if not selection.query.is_everything:
        rows = requirements.require_artifact(summary, reader.row_order_spec(selection.query)).data["rows"]
    origin = access.origin_for(access.viewer(), summary)
    return jsonify(export_rules.provenance(task, origin, summary, sha256, selection, rows))


@blueprint.get("/comparison")
def comparison() -> ResponseReturnValue:
    """The changes between the results of two tasks, with rows by kind of change and values by column."""
    older, newer = comparisons.requested_tasks()
    with requirements.waiting_seconds() as seconds:
        # The two tables and the comparison share the waiting time.
        comparison_state = comparisons.compare(older, newer, request.args.getlist("key"), seconds / 3)
    if comparison_state.missing:
        raise Gone(f"There is no result any more of {', '.join(each['_id'] for each in comparison_state.missing)}.")
    if comparison_state.is_same_run:
        raise Conflict("Both have the same result: one run answered both.")
    if comparison_state.is_under_way:
        raise Busy("A worker is still on it. Ask again in a few seconds.")
    if comparison_state.diff is None:
        raise Conflict(comparison_state.message or "")
    return jsonify(comparison_state.diff.to_document())


@blueprint.get("/openapi.json")
def description() -> ResponseReturnValue:
    """The OpenAPI document of this API."""
    return jsonify(openapi.describe_api({"Asked": Asked, "MetadataChange": MetadataChange, "JoinSpec": JoinSpec}))

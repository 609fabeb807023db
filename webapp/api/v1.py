"""The same things as JSON, versioned: joins are asked for, followed, found, read, downloaded and cancelled."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Response, g, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import Conflict, Gone

from webapp.api import openapi
from webapp.presenters import task_text, value_text
from webapp.results import comparisons, result_request, streaming
from webapp.support import access, metadata_edits
from webapp.support.bodies import json_object
from webapp.support.errors import Busy
from webapp.support.paging import cursor_after, requested_cursor, requested_filter, requested_limit, requested_number
from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis import export_selection as export_rules
from worker_tasks.analysis.artifacts import Artifact, ArtifactSpec
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.analysis.profiles import Profile
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.preflight import checks
from worker_tasks.joins.run import run_state
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.records import live, metadata
from worker_tasks.results import result_store, result_writer, retention
from worker_tasks.results.formats import FORMATS, Ready
from worker_tasks.results.result_store import ResultGone
from worker_tasks.submission import cancel, read_join, submit_join

blueprint = Blueprint("api_v1", __name__, url_prefix="/api/v1")

MAX_ROWS = 1_000
MAX_ROW_NUMBER = 10**12
#: Seconds that a request waits for what workers make: platforms cut off one that has no answer after 30.
FILE_SECONDS = 20
#: Requests that wait so at once in one process, which has eight threads.
MAX_WAITING = 4

_waiting = threading.BoundedSemaphore(MAX_WAITING)

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


def _read(model: type[Body]) -> Body:
    try:
        return model.model_validate(json_object())
    except ValidationError as error:
        raise InvalidInput(
            {".".join(map(str, detail["loc"])): f"{detail['msg']}." for detail in error.errors()}
        ) from None


@blueprint.post("/joins")
def ask() -> ResponseReturnValue:
    """Records a join and has it run, or shares the run or the live result of the same one."""
    asked = _read(Asked)
    task_id = submit_join(read_join(asked.join), metadata=asked.metadata, fresh=asked.fresh)
    response = jsonify({"task_id": task_id, "status_url": url_for("status.task_page", task_id=task_id)})
    response.headers["Location"] = url_for(".task", task_id=task_id)
    return response, HTTPStatus.ACCEPTED


@blueprint.post("/joins/check")
def check() -> ResponseReturnValue:
    """Looks at a join before it runs; nothing is recorded."""
    return jsonify(checks.check_join(read_join(_read(Asked).join)).to_document())


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    """The tasks, newest first, of this state, with this metadata, in which this text occurs."""
    limit = requested_limit()
    found = access.tasks_for(access.viewer(), requested_filter(), limit + 1, requested_cursor())
    response = jsonify([_shown(task) for task in found[:limit]])
    if len(found) > limit:
        query: dict[str, Any] = request.args.to_dict() | {"limit": str(limit), "cursor": cursor_after(found[limit - 1])}
        response.headers["Link"] = f'<{url_for(".tasks", **query)}>; rel="next"'
    return response


@blueprint.get("/tasks/<task_id>")
def task(task_id: str) -> ResponseReturnValue:
    """One task: what was asked, why, what became of it, how far it is."""
    return jsonify(_shown(access.task_for(access.viewer(), task_id)))


def _shown(task: Document) -> Document:
    shown = task_text.as_json(task)
    shown["task_id"] = shown.pop("_id")
    if not task_text.is_final(task):
        alive = live.read_live(task.get("shares") or task["_id"])
        progress = alive.progress if alive else None
        shown["progress"] = _progress(progress) if progress else None
    elif result_store.key_of(task) is not None:
        address = url_for(".result", task_id=task["_id"])
        shown["links"] = {"result": address, **{name: f"{address}.{name}" for name in FORMATS}}
    return shown


def _progress(progress: live.Progress) -> Document:
    share = progress.done / progress.total if progress.total else None
    return {**vars(progress), "share": share, "seconds_left": progress.seconds_left}


@blueprint.patch("/tasks/<task_id>")
def change_metadata(task_id: str) -> ResponseReturnValue:
    """Sets and deletes keys of the metadata, whatever state the task is in."""
    asked = _read(MetadataChange)
    alone = sorted(asked.expected.keys() - asked.metadata.keys())
    if errors := metadata.metadata_errors(asked.expected, "expected") | {
        f"expected.{key}": "is not among the keys of metadata." for key in alone
    }:
        raise InvalidInput(errors)

    def edited(stored: Document) -> Document:
        base = metadata.changed(stored, asked.expected)
        return metadata_edits.merge_edits(base, metadata.changed(base, asked.metadata), stored)

    metadata_edits.edit_metadata(access.viewer(), task_id, edited)
    return jsonify(_shown(access.task_for(access.viewer(), task_id)))


@blueprint.delete("/tasks/<task_id>")
def cancel_task(task_id: str) -> ResponseReturnValue:
    """Cancels a task; what of it is under way in MongoDB is ended at once."""
    cancelled = cancel(access.task_for(access.viewer(), task_id)["_id"])
    task = access.task_for(access.viewer(), task_id)
    if not cancelled:
        raise Conflict(f"The task had ended: it is {task_text.describe_state(task['status']).name}.")
    return jsonify(_shown(task)), HTTPStatus.ACCEPTED


@blueprint.get("/tasks/<task_id>/result")
def result(task_id: str) -> ResponseReturnValue:
    """Some rows of a result, found and sorted as asked; the first ones while they are still being joined."""
    offset = requested_number("offset", 0, 0, MAX_ROW_NUMBER)
    limit = requested_number("limit", result_store.PAGE_ROWS, 1, MAX_ROWS)
    found = access.task_for(access.viewer(), task_id)
    if not task_text.is_final(found):
        return jsonify(_glimpse(found, limit))
    summary, selection = _summary(found), result_request.requested_selection()
    count = summary.count
    if selection.view.is_everything:
        rows = result_store.read_rows(summary, offset, limit)
        if rows is None:
            raise ResultGone(summary.key)
    else:
        _require_table(summary, selection)
        order = _worked_out(summary, reader.row_order_spec(selection.view))
        count = order.data["rows"]
        rows = [row.document for row in reader.read_rows(summary, selection.view, offset, limit)]
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


@blueprint.post("/tasks/<task_id>/result/keeping")
def keep_result(task_id: str) -> ResponseReturnValue:
    """Keeps the result longer, for all who share it."""
    summary = _summary(access.task_for(access.viewer(), task_id))
    until = retention.kept_until(summary)
    if until is None:
        raise Conflict(f"The result cannot be kept longer: it stays until {summary.expires_at.isoformat()}.")
    if not retention.keep(summary, until):
        raise ResultGone(summary.key)
    return jsonify(_shown(access.task_for(access.viewer(), task_id)))


@blueprint.delete("/tasks/<task_id>/result")
def discard_result(task_id: str) -> ResponseReturnValue:
    """Deletes the result at once, for all who share it."""
    summary = _summary(access.task_for(access.viewer(), task_id))
    if not retention.discard(summary):
        raise ResultGone(summary.key)
    return jsonify(_shown(access.task_for(access.viewer(), task_id)))


def _glimpse(task: Document, limit: int) -> Document:
    state = run_state.find_run(task.get("shares") or task["_id"])
    if state is None:
        raise Conflict(f"There are no rows yet: the task is {task_text.describe_state(task['status']).name}.")
    rows = result_writer.glimpse(state.first_key, limit)
    columns = value_text.columns_of(rows)
    return {"count": state.rows, "offset": 0, "columns": columns, "complete": False, "expires_at": None, "rows": rows}


@blueprint.get(f"/tasks/<task_id>/result.<any({', '.join(FORMATS)}):name>")
def result_file(task_id: str, name: str) -> Response:
    """The result, or what of it is asked for, as a file; one that a worker has to make is waited for."""
    task = access.task_for(access.viewer(), task_id)
    summary, selection = _summary(task), result_request.requested_selection()
    file_format, inside = FORMATS[name], result_request.wants_provenance_embedded()
    if streaming.needs_no_export(file_format, selection, inside=inside):
        response = streaming.stream_result(summary, file_format)
        # Of the value as it is in Redis, once somebody has looked at it.
        table = artifacts.find_artifact(summary, artifacts.TABLE) if file_format.ready is Ready.AS_STORED else None
        if table is not None and table.is_done:
            streaming.with_digest(response, table.data["sha256"])
    else:
        _require_table(summary, selection)
        file = export_spec(task_id, name, selection, inside=inside)
        response = streaming.stream_export(summary, file, _worked_out(summary, file))
    card = url_for(".provenance", task_id=task_id, **result_request.selection_parameters(selection))
    response.headers["Link"] = f'<{card}>; rel="describedby"'
    title, is_excerpt = task_text.describe_task(task), not selection.is_everything
    file_name = streaming.download_name(title, summary, file_format, is_excerpt=is_excerpt)
    return streaming.as_attachment(response, file_name)


def _require_table(summary: result_store.Summary, selection: Selection) -> Profile:
    """The columns of a result, measured, which go with what is asked of it.

    Raises:
        InvalidInput: they do not.
        Busy: a worker is still measuring them.
        Conflict: they can not be measured.
    """
    _worked_out(summary, artifacts.TABLE)
    profile = reader.profile_of(summary)
    selection.check(profile)
    return profile


@contextmanager
def _waiting_seconds() -> Iterator[float]:
    """How long this request may still wait: not at all where as many wait already as leave threads for others."""
    until = g.setdefault("waits_until", time.monotonic() + FILE_SECONDS)
    if not _waiting.acquire(blocking=False):
        yield 0
        return
    try:
        yield max(0, until - time.monotonic())
    finally:
        _waiting.release()


def _worked_out(summary: result_store.Summary, derivation: ArtifactSpec) -> Artifact:
    """What a worker makes of a result, waited for as long as threads are left that answer others.

    Raises:
        Busy: it is still being made.
        Conflict: it can not be made.
    """
    with _waiting_seconds() as seconds:
        found = artifacts.await_artifact(summary, derivation, seconds)
    if found.is_under_way:
        raise Busy("A worker is still on it. Ask again in a few seconds.")
    if not found.is_done:
        raise Conflict(found.message or "")
    return found


@blueprint.get("/tasks/<task_id>/profile")
def profile(task_id: str) -> ResponseReturnValue:
    """Every column of a result, in figures."""
    return jsonify(_require_table(_summary(access.task_for(access.viewer(), task_id)), Selection()).to_document())


@blueprint.get("/tasks/<task_id>/provenance")
def provenance(task_id: str) -> ResponseReturnValue:
    """Where a result, or what of it is asked for, comes from."""
    task = access.task_for(access.viewer(), task_id)
    summary, selection = _summary(task), result_request.requested_selection()
    sha256, rows = _require_table(summary, selection).sha256, summary.count
    if not selection.view.is_everything:
        rows = _worked_out(summary, reader.row_order_spec(selection.view)).data["rows"]
    origin = access.origin_for(access.viewer(), summary)
    return jsonify(export_rules.provenance(task, origin, summary, sha256, selection, rows))


@blueprint.get("/comparison")
def comparison() -> ResponseReturnValue:
    """What changed between the results of two tasks: how many rows, by which key, in which columns."""
    older, newer = comparisons.requested_tasks()
    with _waiting_seconds() as seconds:
        # For the tables of both, and for what comes of them.
        compared = comparisons.compare(older, newer, request.args.getlist("key"), seconds / 3)
    if compared.missing:
        raise Gone(f"There is no result any more of {', '.join(each['_id'] for each in compared.missing)}.")
    if compared.same_run:
        raise Conflict("Both have the same result: one run answered both.")
    if compared.under_way:
        raise Busy("A worker is still on it. Ask again in a few seconds.")
    if compared.found is None:
        raise Conflict(compared.message or "")
    return jsonify(compared.found.to_document())


def _summary(task: Document) -> result_store.Summary:
    """The result of a task.

    Raises:
        Conflict: it has none.
        Gone: it expired, was discarded or lost, or another run took its place.
    """
    key = result_store.key_of(task)
    if key is None:
        raise Conflict(f"The task has no result: it is {task_text.describe_state(task['status']).name}.")
    summary = result_store.find_task_result(task)
    if summary is None:
        newer = result_store.find_result(key)
        raise Gone(
            f"{task_text.FATE_SENTENCES[retention.fate_of(task, newer)]} Ask for the join again."
            if newer is None
            else f"A newer run took the place of this result: that of the task {newer.task_id}."
        )
    return summary


@blueprint.get("/openapi.json")
def description() -> ResponseReturnValue:
    """This API, described."""
    return jsonify(openapi.describe_api({"Asked": Asked, "MetadataChange": MetadataChange, "JoinSpec": JoinSpec}))

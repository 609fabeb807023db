"""Find: the list of tasks, as a page for people and as JSON for programs."""

import base64
import binascii
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp import presentation
from webapp.errors import prefers_json
from worker_tasks import ledger
from worker_tasks.errors import InvalidInput

blueprint = Blueprint("history", __name__)

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    limit = _limit()
    cursor = _read_cursor(request.args.get("cursor"))
    # One more than asked for tells whether there is a next page.
    found = ledger.newest(limit + 1, cursor)
    shown = found[:limit]
    more = url_for(".tasks", limit=limit, cursor=_cursor_after(shown[-1])) if len(found) > limit else None
    response = _as_json(shown, more) if prefers_json() else _as_page(shown, more, cursor)
    response.headers["Vary"] = "Accept"
    return response


def _as_json(shown: list[dict[str, Any]], more: str | None) -> Response:
    response = jsonify([presentation.as_json(task) for task in shown])
    if more:
        response.headers["Link"] = f'<{more}>; rel="next"'
    return response


def _as_page(shown: list[dict[str, Any]], more: str | None, cursor: ledger.Cursor | None) -> Response:
    return Response(render_template("history/tasks.html", tasks=shown, more=more, first=cursor is None))


def _limit() -> int:
    asked = request.args.get("limit", str(DEFAULT_LIMIT))
    if not asked.isdecimal() or not 1 <= int(asked) <= MAX_LIMIT:
        raise InvalidInput({"limit": f"must be a number from 1 to {MAX_LIMIT}."})
    return int(asked)


def _cursor_after(task: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(f"{task['queued_at'].isoformat()} {task['_id']}".encode()).decode()


def _read_cursor(text: str | None) -> ledger.Cursor | None:
    if text is None:
        return None
    try:
        queued_at, task_id = base64.urlsafe_b64decode(text).decode().split(" ", 1)
        return ledger.Cursor(datetime.fromisoformat(queued_at), task_id)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput({"cursor": "is not one that a list of tasks gave."}) from error

"""Find: the list of tasks, as a page for people and as JSON for programs."""

from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp import presentation
from webapp.errors import prefers_json
from webapp.paging import cursor_after, cursor_asked, limit_asked, wanted
from worker_tasks import finding

blueprint = Blueprint("history", __name__)


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    limit = limit_asked()
    cursor = cursor_asked()
    # One more than asked for tells whether there is a next page.
    found = finding.search(wanted(), limit + 1, cursor)
    shown = found[:limit]
    query = {name: text for name, text in request.args.items() if text and name not in {"limit", "cursor"}}
    query |= {"limit": str(limit)}
    more = url_for(".tasks", **query, cursor=cursor_after(shown[-1])) if len(found) > limit else None  # type: ignore[arg-type]
    response = _as_json(shown, more) if prefers_json() else _as_page(shown, more, cursor)
    response.headers["Vary"] = "Accept"
    return response


def _as_json(shown: list[dict[str, Any]], more: str | None) -> Response:
    response = jsonify([presentation.as_json(task) for task in shown])
    if more:
        response.headers["Link"] = f'<{more}>; rel="next"'
    return response


def _as_page(shown: list[dict[str, Any]], more: str | None, cursor: finding.Cursor | None) -> Response:
    return Response(render_template("history/tasks.html", tasks=shown, more=more, first=cursor is None))

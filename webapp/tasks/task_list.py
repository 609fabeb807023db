"""The list of tasks, as a page and as JSON, and actions on several of them."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, flash, jsonify, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.presenters import task_text
from webapp.results import comparisons
from webapp.support import access
from webapp.support.errors import prefers_json
from webapp.support.paging import DEFAULT_LIMIT, cursor_after, requested_cursor, requested_filter, requested_limit
from worker_tasks import submission
from worker_tasks.infra.errors import InvalidInput, TaskNotFound
from worker_tasks.records.task_search import Cursor

blueprint = Blueprint("history", __name__)

#: The polling interval of the first page, in seconds.
POLL_SECONDS = 5
#: The maximum number of tasks in one action, which is also the default length of the list.
MAX_SELECTED = DEFAULT_LIMIT
#: The number of tasks in a comparison.
TO_COMPARE = 2


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    limit, cursor = requested_limit(), requested_cursor()
    # One extra task shows whether there is a next page.
    found = access.tasks_for(access.viewer(), requested_filter(), limit + 1, cursor)
    shown = found[:limit]
    next_url = _list_url(limit=str(limit), cursor=cursor_after(shown[-1])) if len(found) > limit else None
    response = _as_json(shown, next_url) if prefers_json() else _as_page(shown, next_url, cursor)
    response.headers["Vary"] = "Accept, HX-Request"
    return response


def _requested_filters() -> dict[str, str]:
    return {name: text for name, text in request.args.items() if text and name not in {"limit", "cursor"}}


def _list_url(**more: str) -> str:
    """The URL of this list, with the same filters."""
    return url_for(".tasks", **_requested_filters(), **more)  # type: ignore[arg-type]


def _as_json(shown: list[dict[str, Any]], next_url: str | None) -> Response:
    response = jsonify([task_text.as_json(task) for task in shown])
    if next_url:
        response.headers["Link"] = f'<{next_url}>; rel="next"'
    return response


def _as_page(shown: list[dict[str, Any]], next_url: str | None, cursor: Cursor | None) -> Response:
    tag = _tag_of(shown, next_url)
    if request.headers.get("HX-PTag") == tag:
        return make_response("", 304)
    is_fragment = request.headers.get("HX-Request") is not None
    response = make_response(
        render_template(
            "tasks/_tasks.html" if is_fragment else "tasks/tasks.html",
            tasks=shown,
            next_url=next_url,
            is_first_page=cursor is None,
            tag=tag,
            list_url=_list_url(**({"limit": request.args["limit"]} if "limit" in request.args else {})),
            poll_seconds=POLL_SECONDS,
            filters=_requested_filters(),
            states=list(task_text.STATE_TEXTS.values()),
            **({} if is_fragment else _choices()),
        )
    )
    response.headers["HX-PTag"] = tag
    return response


def _choices() -> dict[str, Any]:
    """The suggestions in the filter form: metadata keys, people and joins."""
    found = access.choices_for(access.viewer())
    joins = [(task["fingerprint"], task_text.describe_task(task)) for task in found.joins]
    counts = Counter(title for _, title in joins)
    return {
        "metadata_keys": found.metadata_keys,
        "people": found.people,
        # Different joins with the same title show part of their fingerprint.
        "joins": [
            (fingerprint, f"{title} ({fingerprint[:6]})" if counts[title] > 1 else title)
            for fingerprint, title in joins
        ],
    }


def _tag_of(shown: list[dict[str, Any]], next_url: str | None) -> str:
    """A tag that changes with every change of the list."""
    state = [next_url or "", *(f"{task['_id']} {task.get('version')}" for task in shown)]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]


@blueprint.post("/tasks/selection")
def selection() -> ResponseReturnValue:
    """Cancels the selected tasks, runs them again, or compares two of them.

    Raises:
        InvalidInput: the action is unknown, or too many tasks are selected. Nothing has been done.
    """
    ids = list(dict.fromkeys(request.form.getlist("task")))
    match request.form.get("do"):
        case "cancel":
            flash(_apply_to_each(ids, submission.cancel, "cancelled", "had ended before"))
        case "again":
            flash(_apply_to_each(ids, submission.submit_again, "submitted again", "could not be"))
        case "compare" if len(ids) == TO_COMPARE:
            return redirect(
                comparisons.comparison_url(*(access.task_for(access.viewer(), task_id) for task_id in ids)), 303
            )
        case "compare":
            flash(f"Select two tasks to compare them; {len(ids)} {'was' if len(ids) == 1 else 'were'} selected.")
        case _:
            raise InvalidInput({"do": "must be cancel, again or compare. Nothing was done."})
    return redirect(_return_url(request.form.get("list", "")), 303)


def _apply_to_each(ids: list[str], act: Callable[[str], Any], done: str, not_done: str) -> str:
    """Applies an action to each of these tasks and describes the outcome in a sentence.

    Raises:
        InvalidInput: too many tasks. Nothing has been done.
    """
    if not ids:
        return "No task was selected."
    if len(ids) > MAX_SELECTED:
        raise InvalidInput({"task": f"may name at most {MAX_SELECTED} tasks, not {len(ids):,}. Nothing was done."})
    succeeded = 0
    for task_id in ids:
        try:
            succeeded += bool(act(access.task_for(access.viewer(), task_id)["_id"]))
        except (TaskNotFound, InvalidInput):
            continue
    left = len(ids) - succeeded
    text = f"{succeeded} {'task was' if succeeded == 1 else 'tasks were'} {done}"
    return f"{text}; {left} {not_done}." if left else f"{text}."


def _return_url(address: str) -> str:
    """The list on which the tasks were selected. Never the URL of another site."""
    own = url_for(".tasks")
    return address if address == own or address.startswith(f"{own}?") else own

"""Find: the list of tasks, as a page for people and as JSON for programs; several of them cancelled or run again."""

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

#: Seconds between two looks at whether the first page of a list has changed.
POLL_SECONDS = 5
#: Most tasks cancelled or run again in one request: one page of the list at its default length.
MAX_SELECTED = DEFAULT_LIMIT
#: Tasks that are compared with each other.
TO_COMPARE = 2


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    limit, cursor = requested_limit(), requested_cursor()
    # One more than asked for tells whether there is a next page.
    found = access.tasks_for(access.viewer(), requested_filter(), limit + 1, cursor)
    shown = found[:limit]
    more = _address(limit=str(limit), cursor=cursor_after(shown[-1])) if len(found) > limit else None
    response = _as_json(shown, more) if prefers_json() else _as_page(shown, more, cursor)
    response.headers["Vary"] = "Accept, HX-Request"
    return response


def _address(**more: str) -> str:
    """This list, or another page of it."""
    asked = {name: text for name, text in request.args.items() if text and name not in {"limit", "cursor"}}
    return url_for(".tasks", **asked, **more)  # type: ignore[arg-type]


def _as_json(shown: list[dict[str, Any]], more: str | None) -> Response:
    response = jsonify([task_text.as_json(task) for task in shown])
    if more:
        response.headers["Link"] = f'<{more}>; rel="next"'
    return response


def _as_page(shown: list[dict[str, Any]], more: str | None, cursor: Cursor | None) -> Response:
    tag = _tag_of(shown, more)
    if request.headers.get("HX-PTag") == tag:
        return make_response("", 304)
    fragment = request.headers.get("HX-Request") is not None
    response = make_response(
        render_template(
            "history/_tasks.html" if fragment else "history/tasks.html",
            tasks=shown,
            more=more,
            first=cursor is None,
            tag=tag,
            this_list=_address(**({"limit": request.args["limit"]} if "limit" in request.args else {})),
            poll_seconds=POLL_SECONDS,
            filters={name: text for name, text in request.args.items() if text and name not in {"limit", "cursor"}},
            states=list(task_text.STATE_TEXTS.values()),
            **({} if fragment else _choices()),
        )
    )
    response.headers["HX-PTag"] = tag
    return response


def _choices() -> dict[str, Any]:
    """What the form offers: keys of the metadata, people, joins."""
    found = access.choices_for(access.viewer())
    joins = [(task["fingerprint"], task_text.describe_task(task)) for task in found.joins]
    alike = Counter(said for _, said in joins)
    return {
        "metadata_keys": found.metadata_keys,
        "people": found.people,
        # Joins that differ only in what a sentence does not say.
        "joins": [(mark, f"{said} ({mark[:6]})" if alike[said] > 1 else said) for mark, said in joins],
    }


def _tag_of(shown: list[dict[str, Any]], more: str | None) -> str:
    """Another one as soon as something in the list is another."""
    state = [more or "", *(f"{task['_id']} {task.get('version')}" for task in shown)]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]


@blueprint.post("/tasks/selection")
def selection() -> ResponseReturnValue:
    """Cancels the selected tasks, runs them again, or compares two of them.

    Raises:
        InvalidInput: the action is unknown, or too many tasks are selected; nothing was done.
    """
    ids = list(dict.fromkeys(request.form.getlist("task")))
    match request.form.get("do"):
        case "cancel":
            flash(_told(ids, submission.cancel, "cancelled", "had ended before"))
        case "again":
            flash(_told(ids, submission.submit_again, "submitted again", "could not be"))
        case "compare" if len(ids) == TO_COMPARE:
            return redirect(comparisons.comparison_url(*(access.task_for(access.viewer(), each) for each in ids)), 303)
        case "compare":
            flash(f"Select two tasks to compare them; {len(ids)} {'was' if len(ids) == 1 else 'were'} selected.")
        case _:
            raise InvalidInput({"do": "must be cancel, again or compare. Nothing was done."})
    return redirect(_back_to(request.form.get("list", "")), 303)


def _told(ids: list[str], act: Callable[[str], Any], done: str, not_done: str) -> str:
    """Applies an action to each of these tasks and describes the outcome in a sentence.

    Raises:
        InvalidInput: there are too many tasks; nothing was done.
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
    told = f"{succeeded} {'task was' if succeeded == 1 else 'tasks were'} {done}"
    return f"{told}; {left} {not_done}." if left else f"{told}."


def _back_to(address: str) -> str:
    """The list that the selection was made in; never another site."""
    own = url_for(".tasks")
    return address if address == own or address.startswith(f"{own}?") else own

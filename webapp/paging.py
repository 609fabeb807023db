"""Lists of tasks as an address asks for them: which ones, how many, and from behind which entry on."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

from flask import request

from webapp import presentation
from worker_tasks import metadata
from worker_tasks.errors import InvalidInput
from worker_tasks.task_search import Cursor, TaskFilter

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
#: Characters of a text that is looked for.
MAX_TEXT = 300


def number_asked(name: str, default: int, least: int, most: int) -> int:
    """A number in the query of the request.

    Raises:
        InvalidInput: it is none, or not in these bounds.
    """
    asked = request.args.get(name, str(default))
    if not (asked.isascii() and asked.isdecimal()) or not least <= int(asked) <= most:
        raise InvalidInput({name: f"must be a number from {least} to {most:,}."})
    return int(asked)


def limit_asked() -> int:
    """How many entries a page is to have.

    Raises:
        InvalidInput: it is no number, or too many.
    """
    return number_asked("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def cursor_asked() -> Cursor | None:
    """The entry that the page begins behind; None for the first page.

    Raises:
        InvalidInput: no list gave this cursor.
    """
    text = request.args.get("cursor")
    if text is None:
        return None
    try:
        queued_at, task_id = base64.urlsafe_b64decode(text).decode().split(" ", 1)
        return Cursor(datetime.fromisoformat(queued_at), task_id)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput({"cursor": "is not one that a list of tasks gave."}) from error


def cursor_after(task: dict[str, Any]) -> str:
    """The cursor of the page behind this task."""
    return base64.urlsafe_b64encode(f"{task['queued_at'].isoformat()} {task['_id']}".encode()).decode()


#: What may stand in the address of a list beside ``metadata.<key>``.
KNOWN = frozenset({"status", "key", "value", "by", "join", "q", "since", "until", "limit", "cursor"})


def filter_asked() -> TaskFilter:
    """Which tasks are asked for.

    Raises:
        InvalidInput: names what can not be understood.
    """
    labels = []
    for name, text in request.args.items():
        if name.startswith("metadata."):
            labels.append((_key(name, name.removeprefix("metadata.")), text))
        elif name not in KNOWN:
            known = "status, q, by, join, since, until, metadata.<key>, limit and cursor"
            raise InvalidInput({name: f"is not known here: there are {known}."})
    if key := request.args.get("key"):
        labels.append((_key("key", key), request.args.get("value", "")))
    status, sought = request.args.get("status"), request.args.get("q")
    if sought is not None and len(sought) > MAX_TEXT:
        raise InvalidInput({"q": f"must be text of 1 to {MAX_TEXT} characters."})
    return TaskFilter(
        status=presentation.stored_state(status) if status else None,
        labels=tuple(labels),
        requested_by=request.args.get("by") or None,
        fingerprint=request.args.get("join") or None,
        text=sought or None,
        since=_instant("since"),
        until=_instant("until"),
    )


def _key(name: str, key: str) -> str:
    if complaint := metadata.key_complaint(key):
        raise InvalidInput({name: complaint})
    return key


def _instant(name: str) -> datetime | None:
    text = request.args.get(name)
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput({name: "must be a date or an instant, such as 2026-01-31 or 2026-01-31T18:30."}) from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)

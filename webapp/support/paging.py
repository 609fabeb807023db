"""Lists of tasks as an address asks for them: which ones, how many, and from behind which entry on."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flask import request

from webapp.presenters import task_text
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.records import metadata
from worker_tasks.records.task_search import Cursor, TaskFilter

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
#: Characters of a text that is looked for.
MAX_TEXT = 300
#: Digits of a number that can be meant; Python itself refuses to read thousands of them.
MAX_DIGITS = 18
#: Words of sentences about joins that say nothing of what is joined.
FILLERS = frozenset(
    {"a", "all", "and", "each", "for", "have", "match", "of", "row", "that", "the", "their", "them", "with", "without"}
)


def requested_number(name: str, default: int, least: int, most: int) -> int:
    """A number in the query of the request.

    Raises:
        InvalidInput: it is none, or not in these bounds.
    """
    asked = request.args.get(name, str(default))
    if not _is_number(asked) or len(asked) > MAX_DIGITS or not least <= int(asked) <= most:
        raise InvalidInput({name: f"must be a number from {least} to {most:,}."})
    return int(asked)


def number_or_last(name: str, most: int) -> int:
    """A number in the query of the request, from 1 on; the last one where it is beyond.

    Raises:
        InvalidInput: it is none.
    """
    asked = request.args.get(name, "1")
    is_beyond = _is_number(asked) and (len(asked) > MAX_DIGITS or int(asked) > most)
    return most if is_beyond else requested_number(name, 1, 1, most)


class Neighbours(NamedTuple):
    """The numbers of the pages before and after one; None where there is none."""

    before: int | None
    after: int | None


def pages_around(number: int, pages: int) -> Neighbours:
    return Neighbours(number - 1 if number > 1 else None, number + 1 if number < pages else None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def requested_limit() -> int:
    """How many entries a page is to have.

    Raises:
        InvalidInput: it is no number, or too many.
    """
    return requested_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def requested_cursor() -> Cursor | None:
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


def requested_filter() -> TaskFilter:
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
    key, value = request.args.get("key"), request.args.get("value")
    if key and value:
        labels.append((_key("key", key), value))
    status, sought = request.args.get("status"), request.args.get("q")
    if sought is not None and len(sought) > MAX_TEXT:
        raise InvalidInput({"q": f"must be text of 1 to {MAX_TEXT} characters."})
    since, until = _instant("since"), _instant("until")
    if since is not None and until is not None and since >= until:
        raise InvalidInput({"until": "must be later than since: it is the first instant that is not wanted any more."})
    # What a task is called has words that nothing of it has.
    words = [word for word in (sought or "").split() if word.lower().strip(",.") not in FILLERS] or (
        sought or ""
    ).split()
    return TaskFilter(
        status=task_text.stored_state(status) if status else None,
        labels=tuple(labels),
        requested_by=request.args.get("by") or None,
        fingerprint=request.args.get("join") or None,
        words=tuple(words),
        keys=(_key("key", key),) if key and not value else (),
        value=value if value and not key else None,
        since=since,
        until=until,
    )


def _key(name: str, key: str) -> str:
    if complaint := metadata.key_error(key):
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

"""The query parameters of lists: filter, limit, cursor and page number."""

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
#: The maximum length of a search text.
MAX_TEXT = 300
#: The maximum number of digits in a number, because Python refuses to parse thousands of digits.
MAX_DIGITS = 18
#: Words that appear in the titles of tasks but in no searchable field, so that a search ignores them.
FILLERS = frozenset(
    {"a", "all", "and", "each", "for", "have", "match", "of", "row", "that", "the", "their", "them", "with", "without"}
)


def requested_number(name: str, default: int, minimum: int, maximum: int) -> int:
    """The number in a query parameter.

    Raises:
        InvalidInput: the parameter is not a number, or is out of bounds.
    """
    text = request.args.get(name, str(default))
    if not _is_number(text) or len(text) > MAX_DIGITS or not minimum <= int(text) <= maximum:
        raise InvalidInput({name: f"must be a number from {minimum} to {maximum:,}."})
    return int(text)


def number_or_last(name: str, maximum: int) -> int:
    """The number in a query parameter, from 1 to ``maximum``; larger numbers become ``maximum``.

    Raises:
        InvalidInput: the parameter is not a number, or is less than 1.
    """
    text = request.args.get(name, "1")
    is_beyond = _is_number(text) and (len(text) > MAX_DIGITS or int(text) > maximum)
    return maximum if is_beyond else requested_number(name, 1, 1, maximum)


class Neighbours(NamedTuple):
    """The numbers of the previous and the next page, or None."""

    before: int | None
    after: int | None


def pages_around(number: int, pages: int) -> Neighbours:
    return Neighbours(number - 1 if number > 1 else None, number + 1 if number < pages else None)


def page_count(entries: int, per_page: int) -> int:
    """The number of pages; 1 if there are no entries."""
    return max(1, -(-entries // per_page))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def requested_limit() -> int:
    """The number of entries for a page.

    Raises:
        InvalidInput: the parameter is not a number from 1 to ``MAX_LIMIT``.
    """
    return requested_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def requested_cursor() -> Cursor | None:
    """The position after which the page starts; None for the first page.

    Raises:
        InvalidInput: the cursor does not come from a list.
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
    """The cursor for the page that starts after this task."""
    return base64.urlsafe_b64encode(f"{task['queued_at'].isoformat()} {task['_id']}".encode()).decode()


#: Query parameters of a list, in addition to ``metadata.<key>``.
LIST_PARAMETERS = frozenset({"status", "key", "value", "by", "join", "q", "since", "until", "limit", "cursor"})


def requested_filter() -> TaskFilter:
    """The filter in the query of the request.

    Raises:
        InvalidInput: a parameter is unknown or invalid.
    """
    key, value = request.args.get("key"), request.args.get("value")
    labels = _requested_labels()
    if key and value:
        labels.append((_valid_key("key", key), value))
    status, words = request.args.get("status"), _requested_words()
    since, until = _instant("since"), _instant("until")
    if since is not None and until is not None and since >= until:
        raise InvalidInput({"until": "must be later than since: it is the first instant that is not wanted any more."})
    return TaskFilter(
        status=task_text.stored_state(status) if status else None,
        labels=tuple(labels),
        requested_by=request.args.get("by") or None,
        fingerprint=request.args.get("join") or None,
        words=words,
        keys=(_valid_key("key", key),) if key and not value else (),
        value=value if value and not key else None,
        since=since,
        until=until,
    )


def _requested_labels() -> list[tuple[str, str]]:
    """The parameters ``metadata.<key>`` as pairs of key and value."""
    labels = []
    for name, text in request.args.items():
        if name.startswith("metadata."):
            labels.append((_valid_key(name, name.removeprefix("metadata.")), text))
        elif name not in LIST_PARAMETERS:
            known = "status, q, by, join, since, until, metadata.<key>, limit and cursor"
            raise InvalidInput({name: f"is not known here: there are {known}."})
    return labels


def _requested_words() -> tuple[str, ...]:
    """The words of the search text. Leaves out filler words, unless the text has no other words."""
    text = request.args.get("q", "")
    if len(text) > MAX_TEXT:
        raise InvalidInput({"q": f"must be text of 1 to {MAX_TEXT} characters."})
    words = text.split()
    return tuple(word for word in words if word.lower().strip(",.") not in FILLERS) or tuple(words)


def _valid_key(name: str, key: str) -> str:
    if error := metadata.key_error(key):
        raise InvalidInput({name: error})
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

"""Lists newest first, a page at a time: how many, and from behind which entry on."""

import base64
import binascii
from datetime import datetime
from typing import Any

from flask import request

from worker_tasks.errors import InvalidInput
from worker_tasks.ledger import Cursor

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


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

"""Completes task documents written by the original application, a stock backend or an older version."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from celery import states

from worker_tasks.infra.connections import Document
from worker_tasks.records.metadata import labels_of

#: The status that the original application stores for a waiting task.
ORIGINAL_WAITING = "QUEUED"
#: The expected types of fields. A stock backend does not check types, so values of any other type are ignored.
FIELD_TYPES: dict[str, type] = {
    "status": str,
    "result": str,
    "metadata": dict,
    "kwargs": dict,
    "args": list,
    "children": list,
    "timeline": list,
}
#: The result of a failed task whose document has none.
NO_REASON = json.dumps({"exc_type": "Exception", "exc_message": ["No reason was recorded."], "exc_module": "builtins"})

NewDocument = Callable[[str], Document]


@cache
def all_fields(new_document: NewDocument) -> frozenset[str]:
    """The names of all fields of a task document."""
    return frozenset(new_document(""))


def complete_document(task: Document, new_document: NewDocument) -> Document:
    """Adds the fields that readers rely on. Returns the document itself if it has all of them."""
    if task.keys() >= all_fields(new_document):
        return task
    usable = {field: value for field, value in task.items() if isinstance(value, FIELD_TYPES.get(field, object))}
    ended = usable.get("date_done")
    if not isinstance(ended, datetime):
        ended = usable["date_done"] = None
    if usable.get("status") == ORIGINAL_WAITING:
        usable["status"] = states.PENDING
    complete: dict[str, Any] = new_document(task["_id"])
    # The time of submission is unknown. The closest known time is the end.
    times: dict[str, Any] = {"queued_at": ended, "changed_at": ended} if ended else {}
    complete |= times | usable
    if "timeline" not in usable:
        at, note = complete["date_done"] or complete["queued_at"], "recorded without a timeline"
        complete["timeline"] = [{"at": at, "status": complete["status"], "note": note}]
    if complete["status"] == states.FAILURE and "result" not in usable:
        complete["result"] = NO_REASON
    if "labels" not in usable:
        complete["labels"] = labels_of(complete["metadata"])
    return complete

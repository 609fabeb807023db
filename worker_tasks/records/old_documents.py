"""Task documents that lack fields, because the original application, a stock backend or an older version wrote them."""

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from celery import states

from worker_tasks.infra.connections import Document
from worker_tasks.records.metadata import labels_of

#: What the original application stores of a task that waits.
ORIGINAL_WAITING = "QUEUED"
#: What a field has to be to be read; a stock backend writes what it is given.
TYPES: dict[str, type] = {
    "status": str,
    "result": str,
    "metadata": dict,
    "kwargs": dict,
    "args": list,
    "children": list,
    "timeline": list,
}
#: The result of a failed task that has none.
NO_REASON = json.dumps({"exc_type": "Exception", "exc_message": ["No reason was recorded."], "exc_module": "builtins"})

NewDocument = Callable[[str], Document]


@cache
def all_fields(new_document: NewDocument) -> frozenset[str]:
    """The names of the fields of a task document."""
    return frozenset(new_document(""))


def complete_document(task: Document, new_document: NewDocument) -> Document:
    """The document with every field that readers rely on; as it is where it has them all."""
    if task.keys() >= all_fields(new_document):
        return task
    usable = {field: value for field, value in task.items() if isinstance(value, TYPES.get(field, object))}
    ended = usable.get("date_done")
    if not isinstance(ended, datetime):
        ended = usable["date_done"] = None
    if usable.get("status") == ORIGINAL_WAITING:
        usable["status"] = states.PENDING
    whole: dict[str, Any] = new_document(task["_id"])
    # When it was asked for is not known; it was not after its end.
    begun: dict[str, Any] = {"queued_at": ended, "changed_at": ended} if ended else {}
    whole |= begun | usable
    if "timeline" not in usable:
        at, note = whole["date_done"] or whole["queued_at"], "recorded without a timeline"
        whole["timeline"] = [{"at": at, "status": whole["status"], "note": note}]
    if whole["status"] == states.FAILURE and "result" not in usable:
        whole["result"] = NO_REASON
    if "labels" not in usable:
        whole["labels"] = labels_of(whole["metadata"])
    return whole

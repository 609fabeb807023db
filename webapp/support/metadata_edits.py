"""Merges concurrent edits of metadata. Changes of the same key to different values are a conflict."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from werkzeug.exceptions import Conflict

from webapp.support import access
from webapp.support.access import Viewer
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.records import metadata, task_fields

#: How long to retry an edit if the task keeps changing, in seconds.
RETRY_SECONDS = 5


class ConflictingValues(NamedTuple):
    """The two values of a key that two people changed. None means deleted."""

    yours: Any
    stored: Any


class EditConflict(Conflict):
    """Somebody else has changed the same keys; nothing was stored.

    ``conflicts`` has both values of each such key, ``stored`` the metadata as stored now.
    """

    def __init__(self, conflicts: Mapping[str, ConflictingValues], stored: Document):
        self.conflicts = conflicts
        self.stored = stored
        keys = ", ".join(f"“{key}”" for key in conflicts)
        super().__init__(f"Somebody else changed {keys} meanwhile. Nothing was stored.")


def merge_edits(base: Document, mine: Document, stored: Document) -> Document:
    """The stored metadata with the changes from ``base`` to ``mine``.

    Raises:
        EditConflict: both sides changed the same key to different values.
    """
    merge = metadata.merge(base, mine, stored)
    if merge.conflicts:
        raise EditConflict({key: ConflictingValues(mine.get(key), stored.get(key)) for key in merge.conflicts}, stored)
    return merge.metadata


def edit_metadata(viewer: Viewer, task_id: str, edit: Callable[[Document], Document]) -> None:
    """Replaces a task's metadata with the return value of ``edit``, all or nothing.

    Args:
        edit: gets the stored metadata. It is called again if the task changes in the meantime.

    Raises:
        InvalidInput: the new metadata is not valid.
        Conflict: raised by ``edit``, or the task kept changing for ``RETRY_SECONDS``.
        TaskNotFound: no task has this id, or the viewer may not see it.
        pymongo.errors.PyMongoError: the write may or may not have happened.
    """
    deadline = time.monotonic() + RETRY_SECONDS
    while time.monotonic() < deadline:
        task = access.task_for(viewer, task_id)
        new = edit(task["metadata"])
        if errors := metadata.metadata_errors(new):
            raise InvalidInput(errors)
        # The values are compared as text, because 1 == True in Python.
        if metadata.text_of(new) == metadata.text_of(task["metadata"]):
            return
        if task_fields.set_metadata(task_id, new, task["version"]):
            return
    raise Conflict("The task changes too fast just now; try again.")

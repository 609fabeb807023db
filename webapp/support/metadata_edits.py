"""Metadata changed by several people at once: what each of them changed is kept."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from werkzeug.exceptions import Conflict

from webapp.support import access
from webapp.support.access import Viewer
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.records import metadata, task_fields

#: How long a change is tried again that meets other changes of the task.
TRY_SECONDS = 5


class ConflictingValues(NamedTuple):
    """The values of a key that two people changed; None where one deleted it."""

    yours: Any
    stored: Any


class EditConflict(Conflict):
    """Somebody else changed the same keys meanwhile; nothing was stored.

    ``conflicts`` has both values of each such key, ``stored`` all of what is stored now.
    """

    def __init__(self, conflicts: Mapping[str, ConflictingValues], stored: Document):
        self.conflicts = conflicts
        self.stored = stored
        keys = ", ".join(f"“{key}”" for key in conflicts)
        super().__init__(f"Somebody else changed {keys} meanwhile. Nothing was stored.")


def merge_edits(base: Document, mine: Document, stored: Document) -> Document:
    """What is stored, with what ``mine`` changed in ``base``.

    Raises:
        EditConflict: a key was changed on both sides, differently.
    """
    merge = metadata.merge(base, mine, stored)
    if merge.conflicts:
        raise EditConflict({key: ConflictingValues(mine.get(key), stored.get(key)) for key in merge.conflicts}, stored)
    return merge.metadata


def edit_metadata(viewer: Viewer, task_id: str, edited: Callable[[Document], Document]) -> None:
    """Stores what ``edited`` makes of a task's metadata, all of it or nothing.

    Args:
        edited: is called again with the newest metadata whenever the task changed meanwhile.

    Raises:
        InvalidInput: the outcome cannot be kept.
        Conflict: ``edited`` raised it, or the task was changed all the time for ``TRY_SECONDS``.
        TaskNotFound: there is none, or the viewer may not see it.
        pymongo.errors.PyMongoError: not known to be stored.
    """
    give_up = time.monotonic() + TRY_SECONDS
    while time.monotonic() < give_up:
        task = access.task_for(viewer, task_id)
        outcome = edited(task["metadata"])
        if errors := metadata.metadata_errors(outcome):
            raise InvalidInput(errors)
        # As text, because 1 and True are equal.
        if metadata.text_of(outcome) == metadata.text_of(task["metadata"]):
            return
        if task_fields.set_metadata(task_id, outcome, task["version"]):
            return
    raise Conflict("The task changes too fast just now; try again.")

"""The viewer of a request and the tasks that the viewer may see. Routes find tasks only through this module."""

from dataclasses import dataclass

from flask import g

from worker_tasks.infra.connections import Document
from worker_tasks.records import ledger, task_search
from worker_tasks.records.task_search import Cursor, FilterChoices, TaskFilter
from worker_tasks.results.summaries import Summary


@dataclass(frozen=True)
class Viewer:
    """The person or API client behind a request. ``name`` is their ``requested_by``, None if anonymous."""

    name: str | None = None


def viewer() -> Viewer:
    """The viewer of the current request, created once."""
    if "viewer" not in g:
        # Without accounts, everybody is anonymous and may see everything.
        g.viewer = Viewer()
    return g.viewer


def task_for(viewer: Viewer, task_id: str) -> Document:
    """The task with this id.

    Raises:
        TaskNotFound: no task has this id, or the viewer may not see it.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return ledger.find_task(task_id)


def tasks_for(viewer: Viewer, task_filter: TaskFilter, limit: int, after: Cursor | None = None) -> list[Document]:
    """At most ``limit`` tasks, newest first, starting after the cursor.

    Raises:
        SearchTooSlow: the search exceeded its time limit.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return task_search.search(task_filter, limit, after)


def choices_for(viewer: Viewer) -> FilterChoices:
    """The metadata keys, people and joins among the newest tasks.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return task_search.filter_choices()


def metadata_keys_for(viewer: Viewer) -> list[str]:
    """The metadata keys among the newest tasks, the most frequent first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return task_search.metadata_keys()


def previous_run_for(viewer: Viewer, task: Document) -> Document | None:
    """The previous run of the same join, or None.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return task_search.previous_run(task)


def origin_for(viewer: Viewer, summary: Summary) -> Document:
    """The task whose run produced a result. Other tasks may share the result.

    Raises:
        TaskNotFound: the task no longer exists.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return ledger.find_task(summary.task_id)

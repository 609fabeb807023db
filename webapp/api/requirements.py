"""Finds the result or artifact that an API request needs; waits while a worker makes the artifact."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import g
from werkzeug.exceptions import Conflict, Gone

from webapp.presenters import task_text
from webapp.support.errors import Busy
from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis.artifacts import Artifact, ArtifactSpec
from worker_tasks.analysis.export_selection import Selection
from worker_tasks.analysis.profiles import Profile
from worker_tasks.infra.connections import Document
from worker_tasks.results import result_store, retention, summaries

#: The maximum time that a request waits for workers, in seconds. Hosting platforms close requests after 30 seconds.
FILE_SECONDS = 20
#: The maximum number of requests that wait at the same time in one process. A process has eight threads.
MAX_WAITING = 4

_waiting = threading.BoundedSemaphore(MAX_WAITING)


def require_result(task: Document) -> summaries.Summary:
    """The result of a task.

    Raises:
        Conflict: the task has no result.
        Gone: the result expired, or was discarded, lost or replaced by another run.
    """
    key = result_store.key_of(task)
    if key is None:
        raise Conflict(f"The task has no result: it is {task_text.describe_state(task['status']).name}.")
    summary = result_store.find_task_result(task)
    if summary is None:
        newer = result_store.find_result(key)
        raise Gone(
            f"{task_text.FATE_SENTENCES[retention.fate_of(task, newer)]} Ask for the join again."
            if newer is None
            else f"A newer run took the place of this result: that of the task {newer.task_id}."
        )
    return summary


def require_table(summary: summaries.Summary, selection: Selection) -> Profile:
    """The profile of a result's columns, checked against the selection.

    Raises:
        InvalidInput: the selection does not fit the columns.
        Busy: a worker is still building the table.
        Conflict: the table cannot be built.
    """
    require_artifact(summary, artifacts.TABLE)
    profile = reader.profile_of(summary)
    selection.check(profile)
    return profile


def require_artifact(summary: summaries.Summary, spec: ArtifactSpec) -> Artifact:
    """A finished artifact of a result. Waits until a worker has made it, unless too many requests are waiting.

    Raises:
        Busy: a worker is still making the artifact.
        Conflict: the artifact cannot be made.
    """
    with waiting_seconds() as seconds:
        artifact = artifacts.await_artifact(summary, spec, seconds)
    if artifact.is_under_way:
        raise Busy("A worker is still on it. Ask again in a few seconds.")
    if not artifact.is_done:
        raise Conflict(artifact.message or "")
    return artifact


@contextmanager
def waiting_seconds() -> Iterator[float]:
    """The seconds that this request may still wait; 0 if ``MAX_WAITING`` requests are already waiting."""
    deadline = g.setdefault("waits_until", time.monotonic() + FILE_SECONDS)
    if not _waiting.acquire(blocking=False):
        yield 0
        return
    try:
        yield max(0, deadline - time.monotonic())
    finally:
        _waiting.release()

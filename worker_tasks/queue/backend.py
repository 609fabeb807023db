"""MetadataBackend: Celery's MongoDB result backend, on task documents that keep their metadata."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import states
from celery.backends.mongodb import MongoBackend
from celery.exceptions import BackendStoreError, Reject
from celery.utils.log import get_logger
from pymongo import MongoClient
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import MONGODB_FAILURES, DovetailError, TaskNotFound, rebuild_error
from worker_tasks.infra.settings import settings
from worker_tasks.queue.claim import CELERY_PREFIX, ClaimedTask, is_task_id
from worker_tasks.records import ledger
from worker_tasks.records.indexes import CELERY_RESULTS

GROUPS_COLLECTION = "task_groups"
#: The modules that stored failures name: the current one, and the one that held the classes in older versions.
FAILURE_MODULES = (DovetailError.__module__, "worker_tasks.errors")

logger = get_logger(__name__)


def requires_redelivery(error: BaseException) -> bool:
    """Whether this says nothing of how a task went: its outcome could not be stored, or its retry not published.

    A task that rejects its own message gives a reason in words, and that is its end.
    """
    return isinstance(error, BackendStoreError) or (isinstance(error, Reject) and isinstance(error.reason, Exception))


class MetadataBackend(MongoBackend):
    """Stores every state through the ledger, which keeps the rest of the document as it is.

    Where the documents are is said by the settings alone, not by a URL of the backend: without one the
    inherited class would silently talk to a server on this machine.
    """

    def __init__(self, app: Any = None, **options: Any):
        options.pop("url", None)
        super().__init__(app, **options)

    def _get_connection(self) -> MongoClient[Document]:
        # The inherited one parses the URI and feeds the result back, which divides time-outs by 1000 twice.
        return connections().mongodb

    @property
    def collection(self) -> Collection[Document]:
        # The inherited one is cached across forks and makes an index that collides with any TTL on date_done.
        return connections().tasks

    @property
    def group_collection(self) -> Collection[Document]:
        return connections().tasks.database[GROUPS_COLLECTION]

    def exception_safe_to_retry(self, error: Exception) -> bool:
        """Without this, an outcome that meets a MongoDB fail-over is lost and its message acknowledged."""
        return isinstance(error, MONGODB_FAILURES)

    def prepare_exception(self, exc: Exception, serializer: str | None = None) -> Any:
        """A named failure is stored by its code, not by the name of its class."""
        stored = super().prepare_exception(exc, serializer)
        if isinstance(exc, DovetailError) and isinstance(stored, dict):
            stored |= {"exc_type": exc.code, "exc_module": FAILURE_MODULES[0]}
        return stored

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """The exception that was stored; a named failure by the table of codes."""
        if not isinstance(exc, dict) or exc.get("exc_module") not in FAILURE_MODULES or "exc_type" not in exc:
            return super().exception_to_python(exc)
        stored = exc.get("exc_message", "")
        return rebuild_error(exc["exc_type"], *(stored if isinstance(stored, list | tuple) else [stored]))

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """A result that is to be ignored is not kept; that the task has ended is."""
        if self._has_document(request) and (not store_result or request.ignore_result):
            self.store_result(task_id, None, state, request=request)
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(self, task_id: str, exc: Exception, *arguments: Any, **options: Any) -> Any:
        """Celery takes what cannot be stored or published for the task's failure; here its message goes back."""
        if requires_redelivery(exc):
            logger.error("task %s: not recorded as its failure: %r", task_id, exc)
            return None
        if self._has_document(options.get("request")):
            options["store_result"] = True
        return super().mark_as_failure(task_id, exc, *arguments, **options)

    def mark_as_revoked(self, task_id: str, *arguments: Any, **options: Any) -> Any:
        """Recorded even if the result is to be ignored, as its end."""
        if self._has_document(options.get("request")):
            options["store_result"] = True
        return super().mark_as_revoked(task_id, *arguments, **options)

    def _has_document(self, request: Any) -> bool:
        if request is None or getattr(request, "is_eager", False):
            return False
        return isinstance(self.app.tasks.get(getattr(request, "task", None)), ClaimedTask)

    def mark_as_retry(self, task_id: str, *arguments: Any, **options: Any) -> Any:
        """The retry is published by now: where its record is missing, the next beginning is recorded all the same."""
        try:
            return super().mark_as_retry(task_id, *arguments, **options)
        except BackendStoreError as error:
            logger.error("task %s is tried again, and its document does not say so: %s", task_id, error)
            return None

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if not is_task_id(task_id):
            logger.error("%s of a task without an id is not recorded: %r", state, result)
            return result
        meta = self._get_result_meta(
            result=self.encode(result), state=state, traceback=traceback, request=request, format_date=False
        )
        if str(getattr(request, "task", None)).startswith(CELERY_PREFIX) and not self._is_recorded(task_id):
            whole = {"_id": task_id, **meta}
            self.collection.database[CELERY_RESULTS].replace_one({"_id": task_id}, whole, upsert=True)
            return result
        # Only a claimed attempt knows its number; what Celery's main process reports of a lost child does not, and is
        # taken for the attempt that its count of retries suggests. Of a task with an unknown name it has not even that.
        attempt = getattr(request, "attempt", None) or (getattr(request, "retries", 0) or 0) + 1 if request else None
        outcome: Document = getattr(request, "outcome", None) or {}
        fields = {field: meta[field] for field in ("result", "traceback", "children", "date_done")}
        if state == states.RETRY:
            fields["crashes"] = 0
        ledger.transition(task_id, state, attempt=attempt, fields=fields | outcome)
        return result

    def _is_recorded(self, task_id: str) -> bool:
        """One of Celery's own may end another task, which was replaced by a group, under that one's id."""
        return self.collection.find_one({"_id": task_id}, {"_id": True}) is not None

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        try:
            task = ledger.find_task(task_id)
        except TaskNotFound:
            found = self.collection.database[CELERY_RESULTS].find_one({"_id": task_id})
            if found is None:
                return {"status": states.PENDING, "result": None}
            task = found
        return self.meta_from_decoded(
            {
                "task_id": task["_id"],
                "status": task["status"],
                "result": self.decode(task["result"]),
                "date_done": task["date_done"],
                "traceback": task["traceback"],
                "children": task["children"],
            }
        )

    def cleanup(self) -> None:
        """Deletes groups past ``result_expires``; task documents are history, and end by ``expires_at`` alone."""
        if self.expires:
            oldest = datetime.now(UTC) - timedelta(seconds=self.expires)
            self.group_collection.delete_many({"date_done": {"$lt": oldest}})

    def as_uri(self, include_password: bool = False) -> str:
        uri = settings().mongodb_uri
        # kombu's own masking takes several hosts for one with a strange port, and fails.
        return uri if include_password else re.sub(r"(://[^:/@]+:)[^@]*@", r"\1**@", uri)

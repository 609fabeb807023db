"""A MongoDB result backend for Celery that writes through the ledger, so that metadata survives."""

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
#: The module names that stored failures can have: the current one, and the one that older versions used.
FAILURE_MODULES = (DovetailError.__module__, "worker_tasks.errors")

logger = get_logger(__name__)


def requires_redelivery(error: BaseException) -> bool:
    """Whether the message must go back to the queue, because an outcome was not stored or a retry was not published.

    If a task rejects its own message, the reason is a string, not an exception. That counts as a failure of the task.
    """
    return isinstance(error, BackendStoreError) or (isinstance(error, Reject) and isinstance(error.reason, Exception))


class MetadataBackend(MongoBackend):
    """Stores every state through the ledger, which leaves the other fields of the document untouched.

    Ignores the backend URL and finds the documents through the settings. Without a URL, the inherited class would
    silently connect to a server on localhost.
    """

    def __init__(self, app: Any = None, **options: Any):
        options.pop("url", None)
        super().__init__(app, **options)

    def _get_connection(self) -> MongoClient[Document]:
        # The inherited method passes the options of the parsed URI to a client, which divides timeouts by 1000 again.
        return connections().mongodb

    @property
    def collection(self) -> Collection[Document]:
        # The inherited property is cached across forks, and its index on date_done would conflict with a TTL index.
        return connections().tasks

    @property
    def group_collection(self) -> Collection[Document]:
        return connections().tasks.database[GROUPS_COLLECTION]

    def exception_safe_to_retry(self, error: Exception) -> bool:
        """Whether to retry a write. By default, Celery never does, and loses outcomes when MongoDB fails over."""
        return isinstance(error, MONGODB_FAILURES)

    def prepare_exception(self, exc: Exception, serializer: str | None = None) -> Any:
        """Returns an exception in its stored form. Named errors have their code in place of the class name."""
        stored = super().prepare_exception(exc, serializer)
        if isinstance(exc, DovetailError) and isinstance(stored, dict):
            stored |= {"exc_type": exc.code, "exc_module": FAILURE_MODULES[0]}
        return stored

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Rebuilds a stored exception. Named errors are found by their code."""
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
        """Records that the task has ended, even if its result is ignored."""
        if self._has_document(request) and (not store_result or request.ignore_result):
            self.store_result(task_id, None, state, request=request)
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(self, task_id: str, exc: Exception, *arguments: Any, **options: Any) -> Any:
        """Records a failure, unless the message must be redelivered. Celery calls this method in both cases."""
        if requires_redelivery(exc):
            logger.error("task %s: error not recorded as a failure of the task: %r", task_id, exc)
            return None
        if self._has_document(options.get("request")):
            options["store_result"] = True
        return super().mark_as_failure(task_id, exc, *arguments, **options)

    def mark_as_revoked(self, task_id: str, *arguments: Any, **options: Any) -> Any:
        """Records the revocation as the task's end, even if its result is ignored."""
        if self._has_document(options.get("request")):
            options["store_result"] = True
        return super().mark_as_revoked(task_id, *arguments, **options)

    def _has_document(self, request: Any) -> bool:
        if request is None or getattr(request, "is_eager", False):
            return False
        return isinstance(self.app.tasks.get(getattr(request, "task", None)), ClaimedTask)

    def mark_as_retry(self, task_id: str, *arguments: Any, **options: Any) -> Any:
        """Records a retry. Only logs an error, because the retry is published and its claim will record the start."""
        try:
            return super().mark_as_retry(task_id, *arguments, **options)
        except BackendStoreError as error:
            logger.error("task %s will be retried, but its document does not say so: %s", task_id, error)
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
            logger.error("state %s of a task without an id is not recorded: %r", state, result)
            return result
        meta = self._get_result_meta(
            result=self.encode(result), state=state, traceback=traceback, request=request, format_date=False
        )
        if str(getattr(request, "task", None)).startswith(CELERY_PREFIX) and not self._is_recorded(task_id):
            document = {"_id": task_id, **meta}
            self.collection.database[CELERY_RESULTS].replace_one({"_id": task_id}, document, upsert=True)
            return result
        # Only a claimed request has an attempt number. If Celery's main process reports a lost child, the number comes
        # from the count of retries. A task with an unknown name has no request, so its attempt remains unknown.
        attempt = getattr(request, "attempt", None) or (getattr(request, "retries", 0) or 0) + 1 if request else None
        outcome: Document = getattr(request, "outcome", None) or {}
        fields = {field: meta[field] for field in ("result", "traceback", "children", "date_done")}
        if state == states.RETRY:
            fields["crashes"] = 0
        ledger.transition(task_id, state, attempt=attempt, fields=fields | outcome)
        return result

    def _is_recorded(self, task_id: str) -> bool:
        """Whether the id has a task document.

        If a task replaces itself with a group, Celery's own task ``celery.accumulate`` collects the results under the
        id of the replaced task.
        """
        return self.collection.find_one({"_id": task_id}, {"_id": True}) is not None

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        try:
            task = ledger.find_task(task_id)
        except TaskNotFound:
            celery_result = self.collection.database[CELERY_RESULTS].find_one({"_id": task_id})
            if celery_result is None:
                return {"status": states.PENDING, "result": None}
            task = celery_result
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
        """Deletes groups older than ``result_expires``. Task documents expire on their own, at ``expires_at``."""
        if self.expires:
            oldest = datetime.now(UTC) - timedelta(seconds=self.expires)
            self.group_collection.delete_many({"date_done": {"$lt": oldest}})

    def as_uri(self, include_password: bool = False) -> str:
        uri = settings().mongodb_uri
        # kombu's own masking fails, because it takes a list of hosts for one host with an invalid port.
        return uri if include_password else re.sub(r"(://[^:/@]+:)[^@]*@", r"\1**@", uri)

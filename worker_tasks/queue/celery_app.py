"""The Celery application and its settings."""

from collections.abc import Callable
from typing import Any

from celery import Celery, Task, states
from celery.signals import celeryd_init
from celery.utils import uuid
from celery.utils.log import get_task_logger
from kombu.entity import Exchange, Queue
from pymongo.errors import PyMongoError

from worker_tasks.infra import redis_memory
from worker_tasks.infra.connections import Document, sentinel_options
from worker_tasks.infra.errors import NotPublished, is_refusal
from worker_tasks.infra.settings import settings
from worker_tasks.queue import broker
from worker_tasks.queue.capacity import Announcer
from worker_tasks.queue.claim import CELERY_PREFIX, MAX_ID_LENGTH, ClaimedTask, is_task_id
from worker_tasks.records import ledger

#: Seconds that a publisher waits for the broker. If the broker is frozen, the publisher waits three times: once for its
#: open connection, once for a new connection, and once more when it retries.
PUBLISH_TIMEOUT = 0.6
#: A worker replaces its broker connection after this many seconds without data. The limit must exceed the one second
#: for which kombu's BRPOP blocks, but not by much: a worker that stops while Redis is frozen waits this long.
WORKER_SOCKET_TIMEOUT = 3.0

#: The queues of joins and of artifacts. Workers take tasks from both in turn, so that sorting a result does not wait
#: behind a hundred joins, and a join does not wait behind a hundred artifacts.
DEFAULT_QUEUE, ANALYSIS_QUEUE = "celery", "reading"
#: The name of the task that computes artifacts. Messages contain it, so it kept its name when the module was renamed.
DERIVE_TASK = "worker_tasks.reading.tasks.derive"

logger = get_task_logger(__name__)


class RecordingCelery(Celery):
    """Records every task before publishing it, so that every message has a task document.

    All of Celery's publishing methods call :meth:`send_task`. Signals such as ``before_task_publish`` would not work,
    because Celery swallows the exceptions of their handlers.
    """

    def _task_from_fun(
        self, fun: Callable[..., Any], name: str | None = None, base: type[Task] | None = None, **options: Any
    ) -> Task:
        """Creates a task. Celery's own tasks get Celery's base class, so that they run without a claim."""
        if base is None and name is not None and name.startswith(CELERY_PREFIX):
            base = Task
        return super()._task_from_fun(fun, name, base, **options)

    def send_task(  # noqa: PLR0913 - Celery's and two more
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        *,
        task_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        requested_by: str | None = None,
        fields: Document | None = None,
        **options: Any,
    ) -> Any:
        """Records a task, then publishes it.

        Takes Celery's arguments, and three more that go into the task document: ``metadata``, ``requested_by`` and
        other ``fields``. Unless noted otherwise, an error means that the task was neither recorded nor published.

        Raises:
            StorageFull: the queue has no room.
            redis.exceptions.RedisError: Redis is unavailable or refuses.
            pymongo.errors.PyMongoError: MongoDB is unavailable.
            kombu.exceptions.OperationalError: the task was recorded, but not published: see
                :meth:`record_unpublished`.
            kombu.exceptions.EncodeError: MongoDB cannot store the arguments, or JSON cannot encode them. In the second
                case, the task is recorded as failed.
            ValueError: the value cannot be a task id.
        """
        task_id = task_id or uuid()
        if not is_task_id(task_id):
            raise ValueError(f"task_id must be text of 1 to {MAX_ID_LENGTH} characters")
        newly_waiting = False
        document: Document = {}
        # A retry belongs to a task that was recorded at its first submission.
        if not (name.startswith(CELERY_PREFIX) or options.get("retries")):
            queue = options.get("queue")
            document = ledger.new_document(
                task_id,
                name,
                args or (),
                kwargs,
                queue=getattr(queue, "name", queue),
                metadata=metadata,
                requested_by=requested_by,
            ) | (fields or {})
            redis_memory.require_queue()
            newly_waiting = ledger.record(document)
        try:
            return super().send_task(name, args, kwargs, task_id=task_id, **options)
        except Exception as error:
            # A task that was already waiting may still have its earlier message, so its document must not change.
            if newly_waiting:
                self.record_unpublished(document, error)
            raise

    def connection_for_write(self, *arguments: Any, **options: Any) -> Any:
        """Opens a connection with the short timeout of publishers, even in a worker, which also publishes."""
        connection = super().connection_for_write(*arguments, **options)
        connection.transport_options = connection.transport_options | {"socket_timeout": PUBLISH_TIMEOUT}
        return connection

    def publish_recorded(self, task: Document) -> None:
        """Publishes a task that the caller has just recorded.

        Raises:
            kombu.exceptions.OperationalError: the task was not published: see :meth:`record_unpublished`.
        """
        try:
            self.publish_again(task)
        except Exception as error:
            self.record_unpublished(task, error)
            raise

    def publish_again(self, task: Document) -> None:
        """Publishes a recorded task again, under the same id. Does not change its document.

        Raises:
            kombu.exceptions.OperationalError: Redis is unavailable; the task was not published.
        """
        super().send_task(task["name"], task["args"], task["kwargs"], task_id=task["_id"], queue=task["queue"])

    def publish_part(self, task: Document, run: str, number: int) -> None:
        """Publishes a message for one part of a running join. The part has no task document.

        Raises:
            kombu.exceptions.OperationalError: Redis is unavailable; the message was not published.
        """
        part = [task["_id"], run, number]
        super().send_task("worker_tasks.tasks.join_part", part, task_id=f"{run}.{number}", queue=task["queue"])

    def publish_artifact(self, key: str, task_id: str, run: str, kind: str, options: Document) -> None:
        """Publishes a message for the computation of an artifact. The computation has no task document.

        Args:
            key: the Redis key of the result.
            task_id: the task that published the result.
            run: the run that wrote the result.
            kind: the kind of artifact.
            options: the options of the artifact's ArtifactSpec.

        Raises:
            kombu.exceptions.OperationalError: Redis is unavailable; the message was not published.
        """
        arguments = [key, task_id, run, kind, options]
        super().send_task(DERIVE_TASK, arguments, task_id=uuid(), queue=ANALYSIS_QUEUE)

    def record_unpublished(self, task: Document, cause: Exception, *, sent: bool = True) -> None:
        """Withdraws the record of a task whose message was not sent. Logs MongoDB errors instead of raising them.

        If Redis may have accepted the message after all, keeps the record and marks the task as failed. If the message
        then arrives, the task does not run.

        Args:
            cause: the error that kept the message from being sent.
            sent: False if the caller did not try to send the message.
        """
        failure = NotPublished(f"The queue did not take the task ({type(cause).__name__}); it will not run.")
        try:
            if (is_refusal(cause) or not sent) and ledger.withdraw(task):
                return
            self.record_failure(task["_id"], failure, note="not published")
        except PyMongoError as error:
            logger.error("task %s waits unpublished, and MongoDB does not answer: %s", task["_id"], error)

    def record_failure(
        self, task_id: str, failure: Exception, note: str | None = None, fields: Document | None = None
    ) -> None:
        """Records that a task has failed. For callers other than the worker that runs the task.

        Raises:
            pymongo.errors.PyMongoError: the failure may not have been recorded.
        """
        result = self.backend.encode(self.backend.prepare_exception(failure))
        fields = {"result": result, "date_done": ledger.now(), **(fields or {})}
        ledger.transition(task_id, states.FAILURE, fields=fields, note=note)


def celery_settings() -> dict[str, Any]:
    """Builds Celery's settings from the environment. Called when the application is first used, not on import."""
    ours = settings()
    sentinel = {"master_name": ours.redis_sentinel_master, "sentinel_kwargs": sentinel_options(ours)}
    return {
        "broker_url": ours.kombu_broker_url,
        # Celery would prefer the raw CELERY_BROKER_URL to the line above, but the raw URL lacks the certificates.
        "broker_read_url": ours.kombu_broker_url,
        "broker_write_url": ours.kombu_broker_url,
        "broker_connection_retry_on_startup": True,
        # Retry forever: the default gives up after 100 tries.
        "broker_connection_max_retries": None,
        # These options would raise TypeError in the URL. Without them, a frozen broker blocks a publisher forever.
        "broker_transport_options": {
            "socket_timeout": PUBLISH_TIMEOUT,
            "socket_connect_timeout": PUBLISH_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Can be short, because lease.py renews the leases of tasks in progress.
            "visibility_timeout": ours.visibility_timeout_seconds,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            **(sentinel if ours.sentinels else {}),
        },
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        "result_backend": "worker_tasks.queue.backend:MetadataBackend",
        # All threads of a process share one backend, and therefore one connection pool.
        "result_backend_thread_safe": True,
        # Retry storing an outcome for up to about ten seconds, in case MongoDB fails over. By default, a worker would
        # block without limit.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 8,
        # Each queue needs its own exchange, because two queues bound to one exchange would both get every message.
        "task_queues": [Queue(DEFAULT_QUEUE), Queue(ANALYSIS_QUEUE, Exchange(ANALYSIS_QUEUE), ANALYSIS_QUEUE)],
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # Acknowledge a message when its task has ended, so that another worker gets the tasks of a killed one.
        "task_acks_late": True,
        # Applies to tasks without a claim. Their redeliveries are not counted, so a task that always kills its worker
        # would come back forever.
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": True,
        # The claim itself stores STARTED, in the write that checks whether the task may start.
        "task_track_started": False,
        "worker_prefetch_multiplier": 1,
        # If a brief loss of the broker cancelled a task, the task would have to wait for the visibility timeout.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": ours.worker_soft_shutdown_seconds,
        # Celery need not store the arguments. The ledger does, after checking that MongoDB can store them.
        "result_extended": False,
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
    }


broker.install()
app = RecordingCelery("dovetail", task_cls=ClaimedTask, include=["worker_tasks.tasks", "worker_tasks.analysis.tasks"])
app.add_defaults(celery_settings)
app.steps["consumer"].add(Announcer)
# Refers to the steps by name, because they import the joins, and the joins import this module.
app.steps["worker"] |= {"worker_tasks.worker.lease:Lease", "worker_tasks.worker.reconciler:Reconciler"}


@celeryd_init.connect
def _wait_longer_for_the_broker(conf: Any, **_: Any) -> None:
    """Lengthens the broker timeout in workers, because they block on their queues."""
    conf.broker_transport_options = conf.broker_transport_options | {"socket_timeout": WORKER_SOCKET_TIMEOUT}

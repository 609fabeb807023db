"""The Celery application and its settings, each unusual one with its reason."""

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

#: Seconds that a publisher waits for the broker. On one that is frozen it waits three times: for the connection it
#: has, for a new one, and for another new one in its one retry.
PUBLISH_TIMEOUT = 0.6
#: Seconds without a byte after which a worker drops its broker connection and makes a new one: above the one
#: second that kombu's BRPOP blocks, and short, because a worker that stops while Redis is frozen waits for it.
WORKER_SOCKET_TIMEOUT = 3.0

#: The queue of what is worked out from results. A worker takes from it and from the default one in turn, so that who
#: sorts a result does not wait behind a hundred joins, nor a join behind those who read.
DEFAULT_QUEUE, ANALYSIS_QUEUE = "celery", "reading"
#: The task that computes artifacts. Its name is older than its module, and messages carry it.
DERIVE_TASK = "worker_tasks.reading.tasks.derive"

logger = get_task_logger(__name__)


class RecordingCelery(Celery):
    """Records every task before it is published: no message without a task document.

    Every way of publishing ends in :meth:`send_task`. Signals such as ``before_task_publish`` can not do
    this, because Celery swallows what they raise.
    """

    def _task_from_fun(
        self, fun: Callable[..., Any], name: str | None = None, base: type[Task] | None = None, **options: Any
    ) -> Task:
        """A plain task of what is Celery's own, whatever the others are."""
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
        """Takes more options than Celery's, kept with the task: ``metadata``, ``requested_by``, and further ``fields``.

        Raises:
            StorageFull: the queue has no room; neither recorded nor published.
            redis.exceptions.RedisError: Redis is away, or refuses; neither recorded nor published.
            pymongo.errors.PyMongoError: MongoDB is away; neither recorded nor published.
            kombu.exceptions.OperationalError: not published: see :meth:`record_unpublished`.
            kombu.exceptions.EncodeError: MongoDB can not store the arguments; neither recorded nor published.
            ValueError: the id cannot be one; neither recorded nor published.
        """
        task_id = task_id or uuid()
        if not is_task_id(task_id):
            raise ValueError(f"task_id must be text of 1 to {MAX_ID_LENGTH} characters")
        waits_by_this = False
        document: Document = {}
        # A retry is of a task that was recorded when it was first asked for.
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
            waits_by_this = ledger.record(document)
        try:
            return super().send_task(name, args, kwargs, task_id=task_id, **options)
        except Exception as error:
            # A task that was there before may still have its message, so nothing is said of that one.
            if waits_by_this:
                self.record_unpublished(document, error)
            raise

    def connection_for_write(self, *arguments: Any, **options: Any) -> Any:
        """Of a worker too: it publishes, events among others, and need not wait as it does for its queue."""
        connection = super().connection_for_write(*arguments, **options)
        connection.transport_options = connection.transport_options | {"socket_timeout": PUBLISH_TIMEOUT}
        return connection

    def publish_recorded(self, task: Document) -> None:
        """Publishes a task that was recorded just now.

        Raises:
            kombu.exceptions.OperationalError: not published: see :meth:`record_unpublished`.
        """
        try:
            self.publish_again(task)
        except Exception as error:
            self.record_unpublished(task, error)
            raise

    def publish_again(self, task: Document) -> None:
        """Publishes a recorded task once more, under its own id; its document stays as it is.

        Raises:
            kombu.exceptions.OperationalError: Redis is away; not published.
        """
        super().send_task(task["name"], task["args"], task["kwargs"], task_id=task["_id"], queue=task["queue"])

    def publish_part(self, task: Document, run: str, number: int) -> None:
        """Publishes one part of a running join. It is no task of its own: nothing is recorded.

        Raises:
            kombu.exceptions.OperationalError: Redis is away; not published.
        """
        part = [task["_id"], run, number]
        super().send_task("worker_tasks.tasks.join_part", part, task_id=f"{run}.{number}", queue=task["queue"])

    def publish_artifact(self, key: str, task_id: str, run: str, kind: str, options: Document) -> None:
        """Publishes what is to be worked out from a result: derived.py. Nothing is recorded.

        Raises:
            kombu.exceptions.OperationalError: Redis is away; not published.
        """
        what = [key, task_id, run, kind, options]
        super().send_task(DERIVE_TASK, what, task_id=uuid(), queue=ANALYSIS_QUEUE)

    def record_unpublished(self, task: Document, cause: Exception, *, sent: bool = True) -> None:
        """Undoes the record of a task whose message was not sent; an error of MongoDB is logged, never raised.

        Where Redis may have taken the message all the same, the document stays and says that the task failed: a late
        message must meet a final state.
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
        """Ends a task outside of its own worker.

        Raises:
            pymongo.errors.PyMongoError: not known to be recorded.
        """
        result = self.backend.encode(self.backend.prepare_exception(failure))
        fields = {"result": result, "date_done": ledger.now(), **(fields or {})}
        ledger.transition(task_id, states.FAILURE, fields=fields, note=note)


def celery_settings() -> dict[str, Any]:
    """Celery's settings, from the environment's; read when the application is first used, not at import."""
    ours = settings()
    sentinel = {"master_name": ours.redis_sentinel_master, "sentinel_kwargs": sentinel_options(ours)}
    return {
        "broker_url": ours.kombu_broker_url,
        # Celery itself prefers the raw CELERY_BROKER_URL to the line above; it says nothing of certificates.
        "broker_read_url": ours.kombu_broker_url,
        "broker_write_url": ours.kombu_broker_url,
        "broker_connection_retry_on_startup": True,
        # For ever: the default gives up after 100 tries.
        "broker_connection_max_retries": None,
        # In the URL these raise TypeError; without them a frozen broker hangs a publisher for ever.
        "broker_transport_options": {
            "socket_timeout": PUBLISH_TIMEOUT,
            "socket_connect_timeout": PUBLISH_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Short, because lease.py renews the lease of what is being worked on.
            "visibility_timeout": ours.visibility_timeout_seconds,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            **(sentinel if ours.sentinels else {}),
        },
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        "result_backend": "worker_tasks.queue.backend:MetadataBackend",
        # One backend, and so one connection pool, for all threads of a process.
        "result_backend_thread_safe": True,
        # An outcome that meets a fail-over is stored by the next try, about ten seconds of them at most:
        # the default would block the worker without limit.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 8,
        # Each with an exchange of its own: of two queues bound to one, both get what is sent to it.
        "task_queues": [Queue(DEFAULT_QUEUE), Queue(ANALYSIS_QUEUE, Exchange(ANALYSIS_QUEUE), ANALYSIS_QUEUE)],
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # Acknowledged when done: a killed worker's tasks go to another one.
        "task_acks_late": True,
        # Of tasks that no claim counts: rejecting what took its worker down redelivers it for ever.
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": True,
        # The claim stores STARTED itself, in the write that asks whether the task may begin.
        "task_track_started": False,
        "worker_prefetch_multiplier": 1,
        # Stopping a task because the broker blinked would strand it until its visibility expires.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": ours.worker_soft_shutdown_seconds,
        # Raw arguments are kept by the ledger, which checks that they can be.
        "result_extended": False,
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
    }


broker.install()
app = RecordingCelery("dovetail", task_cls=ClaimedTask, include=["worker_tasks.tasks", "worker_tasks.analysis.tasks"])
app.add_defaults(celery_settings)
app.steps["consumer"].add(Announcer)
# By name, because they run joins and repair them, and joins import this module to publish.
app.steps["worker"] |= {"worker_tasks.worker.lease:Lease", "worker_tasks.worker.reconciler:Reconciler"}


@celeryd_init.connect
def _wait_longer_for_the_broker(conf: Any, **_: Any) -> None:
    """A publisher must answer a person within seconds; a worker blocks on its queue and may wait longer."""
    conf.broker_transport_options = conf.broker_transport_options | {"socket_timeout": WORKER_SOCKET_TIMEOUT}

"""The reconciler: repairs unfinished tasks whose messages are lost.

A message can vanish on its way from the queue to a worker. It can also vanish when Redis loses its memory, or when a
worker acknowledges it while MongoDB cannot store the outcome. The task would then wait forever.

If the task's result exists, the reconciler records the result as the outcome. Otherwise, it publishes the task again
under the same id. A duplicate message does no harm, because a worker must claim the task before running it.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

from celery import bootsteps, states
from kombu.utils.encoding import bytes_to_str
from pymongo.errors import PyMongoError
from redis.exceptions import LockError

from worker_tasks.infra import scratch_folders
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import MONGODB_FAILURES, REDIS_FAILURES, TaskLost, TaskNotFound
from worker_tasks.infra.settings import settings
from worker_tasks.joins.run import lifecycle, sharing
from worker_tasks.records import ledger, task_search
from worker_tasks.records.indexes import ensure_indexes
from worker_tasks.results import result_store

#: The largest number of tasks to repair in one pass.
BATCH = 500
#: Seconds before the second check. On its way from the queue to a worker, a message is briefly in neither place.
RECHECK_SECONDS = 2.0
#: Seconds until the lock of a worker that died during a pass expires.
LOCK_SECONDS = 60
#: The number of messages to read from a queue at once.
PAGE = 500

logger = logging.getLogger(__name__)


def reconcile(app: Any, quiet_for: timedelta) -> list[str]:
    """Repairs unfinished tasks that have not changed for ``quiet_for`` and have no message.

    Returns:
        The ids of the repaired tasks.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is unavailable. The next pass continues.
    """
    suspects = _without_message(app, task_search.unchanged_since(ledger.now() - quiet_for))
    if not suspects:
        return []
    time.sleep(RECHECK_SECONDS)
    lost = _without_message(app, task_search.filter_unchanged(suspects))
    return [task["_id"] for task in lost if _repair(app, task)]


def _repair(app: Any, task: Document) -> bool:
    """Finishes a lost task or publishes it again. Returns False, and does nothing, if the task has changed since."""
    task_id, version = task["_id"], task["version"]
    if task.get("shares"):
        return _repair_follower(app, task)
    summary = result_store.find_published(task_id)
    if summary is not None:
        logger.warning("task %s: outcome found in Redis, recorded", task_id)
        fields = {"result": json.dumps(summary.outcome), "date_done": ledger.now(), **summary.fields}
        return ledger.transition(task_id, states.SUCCESS, version=version, fields=fields, note="outcome found in Redis")
    if task["name"] is None:
        app.record_failure(task_id, TaskLost("Its message is lost, and nothing says what it was to do."), note="lost")
        return True
    if not ledger.transition(task_id, states.PENDING, version=version, note="message lost, published again"):
        return False
    logger.warning("task %s: its message is lost, published again", task_id)
    app.publish_again(task)
    return True


def _repair_follower(app: Any, task: Document) -> bool:
    """Repairs a follower whose leader ended without answering it. Returns False while the leader is unfinished."""
    try:
        if ledger.find_task(task["shares"])["status"] in ledger.UNFINISHED_STATES:
            return False
        logger.warning("task %s: the task that it follows ended without answering it", task["_id"])
        sharing.release(app, task["shares"])
    except TaskNotFound:
        sharing.hand_over(app, task["shares"])
    return True


def _without_message(app: Any, tasks: Iterable[Document]) -> list[Document]:
    """Up to ``BATCH`` of these tasks that have no message."""
    with_message = set(_message_ids(app))
    return list(islice((task for task in tasks if (task.get("shares") or task["_id"]) not in with_message), BATCH))


def _message_ids(app: Any) -> Iterator[str]:
    """The task ids of all messages that are queued, or delivered and not acknowledged."""
    queue = connections().queue
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        # Look at all queues known to the broker, not only at this worker's. Add the queues of waiting tasks, because
        # a Redis that has lost its memory does not know a queue until a process connects to it.
        bindings = queue.scan_iter(match=channel.keyprefix_queue % "*")
        names = {bytes_to_str(binding).split(channel.sep)[-1] for key in bindings for binding in queue.smembers(key)}
        names |= {name or app.conf.task_default_queue for name in task_search.active_queues()}
        keys = [
            channel._q_for_pri(name, step)  # noqa: SLF001 - kombu has no public way
            for name in names
            for step in channel.priority_steps
        ]
        unacked_key = channel.unacked_key
    for key in keys:
        yield from _ids(_pages(queue, key))
    yield from _ids(json.loads(entry)[0] for _, entry in queue.hscan_iter(unacked_key, count=PAGE))


def _pages(queue: Any, key: str) -> Iterator[Any]:
    start = 0
    while page := queue.lrange(key, start, start + PAGE - 1):
        yield from (json.loads(message) for message in page)
        start += PAGE


def _ids(messages: Iterable[Any]) -> Iterator[str]:
    """Yields the task ids of these messages.

    The id of a part starts with the id of its task and a full stop, so the text before a full stop counts as an id too.
    """
    for message in messages:
        if isinstance(task_id := message.get("headers", {}).get("id"), str):
            yield task_id
            yield task_id.partition(".")[0]


class Reconciler(bootsteps.StartStopStep):
    """Runs the reconciler in a thread of the worker's main process. A lock lets only one worker do so at a time."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any):
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_indexes = False
        super().__init__(worker, **options)

    def start(self, worker: Any) -> None:
        self._thread = threading.Thread(target=self._run, args=(worker.app,), name="reconciler", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        self._stopped.set()

    terminate = stop

    def _run(self, app: Any) -> None:
        interval = settings().reconcile_seconds
        self._has_indexes = self._make_indexes()
        while not self._stopped.wait(interval):
            try:
                # Not part of the pass, because each machine has its own.
                if removed := scratch_folders.remove_abandoned():
                    logger.warning("%d temporary folders of killed processes deleted", removed)
                self._has_indexes = self._has_indexes or self._make_indexes()
                self._pass(app, timedelta(seconds=interval))
            except (*MONGODB_FAILURES, *REDIS_FAILURES) as error:
                logger.warning("not reconciled, a server is away: %s", error)
            except Exception:
                # An unexpected error must not end the thread: the next pass may succeed.
                logger.exception("not reconciled")

    def _make_indexes(self) -> bool:
        """Creates missing indexes, in case the release phase was skipped. Returns whether all of them exist.

        Without the indexes, the reconciler could not find lost tasks, and two tasks could lead the same join.
        """
        try:
            # Ping first, because creating indexes can take a long time.
            connections().mongodb.admin.command("ping")
            ensure_indexes()
        except MONGODB_FAILURES as error:
            logger.warning("indexes not checked, MongoDB is away: %s", error)
            return False
        except PyMongoError as error:
            logger.error("some indexes are missing, run `python -m worker_tasks.release`: %s", error)
            return False
        return True

    def _pass(self, app: Any, quiet_for: timedelta) -> None:
        lock = connections().results.lock("reconciler", timeout=LOCK_SECONDS, blocking=False)
        if not lock.acquire():
            return
        try:
            reconcile(app, quiet_for)
            lifecycle.clear_ended_runs()
        finally:
            try:
                lock.release()
            except LockError:
                logger.warning("a pass took longer than %d s", LOCK_SECONDS)

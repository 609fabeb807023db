"""What repairs: a task that has not ended, but whose message is nowhere.

A message can vanish between the queue and the worker's own notes, with a Redis that lost its memory, or
acknowledged while MongoDB could not store the outcome. Such a task would wait for ever. It is finished from
its result if there is one, and published again under its own id if not; the claim keeps that harmless.
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

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import MONGODB_FAILURES, REDIS_FAILURES, TaskLost, TaskNotFound
from worker_tasks.infra.settings import settings
from worker_tasks.joins.run import lifecycle, sharing
from worker_tasks.records import ledger, task_search
from worker_tasks.records.indexes import ensure_indexes
from worker_tasks.results import result_store

#: Tasks repaired in one pass.
BATCH = 500
#: Seconds between the two looks: a message on its way from the queue to a worker is in neither for a moment.
SECOND_LOOK_SECONDS = 2.0
#: Seconds after which the lock of a worker that died in a pass is free again.
LOCK_SECONDS = 60
#: Messages read from the queue at once.
PAGE = 500

logger = logging.getLogger(__name__)


def reconcile(app: Any, quiet_for: timedelta) -> list[str]:
    """Repairs every task that has not changed for a while and whose message is nowhere.

    Returns:
        The ids of the tasks that were finished or published again.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server is away; the next pass goes on.
    """
    suspects = _without_message(app, task_search.unchanged_since(ledger.now() - quiet_for))
    if not suspects:
        return []
    time.sleep(SECOND_LOOK_SECONDS)
    lost = _without_message(app, task_search.filter_unchanged(suspects))
    return [task["_id"] for task in lost if _repair(app, task)]


def _repair(app: Any, task: Document) -> bool:
    """False where the task changed since it was found to be lost; nothing is done then."""
    task_id, version = task["_id"], task["version"]
    if task.get("shares"):
        return _repair_follower(app, task)
    found = result_store.find_published(task_id)
    if found is not None:
        logger.warning("task %s: outcome found in Redis, recorded", task_id)
        fields = {"result": json.dumps(found.outcome), "date_done": ledger.now(), **found.fields}
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
    """Whoever it follows ended and told it nothing; as long as that one is unfinished, it is repaired instead."""
    try:
        if ledger.find_task(task["shares"])["status"] in ledger.UNFINISHED_STATES:
            return False
        logger.warning("task %s: what it followed ended without answering it", task["_id"])
        sharing.release(app, task["shares"])
    except TaskNotFound:
        sharing.hand_over(app, task["shares"])
    return True


def _without_message(app: Any, tasks: Iterable[Document]) -> list[Document]:
    """The first of these tasks that no message is known of."""
    known = set(_message_ids(app))
    return list(islice((task for task in tasks if (task.get("shares") or task["_id"]) not in known), BATCH))


def _message_ids(app: Any) -> Iterator[str]:
    """The task id of every message that is queued, or delivered and not acknowledged."""
    queue = connections().queue
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        # Every queue that the broker knows, not only those of this worker; and those that tasks were submitted to,
        # because a broker that lost its memory learns of a queue only from the next process that connects anew.
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
    """The ids of the tasks; what comes after a full stop may be a part of one."""
    for message in messages:
        if isinstance(task_id := message.get("headers", {}).get("id"), str):
            yield task_id
            yield task_id.partition(".")[0]


class Reconciler(bootsteps.StartStopStep):
    """A thread in the worker's main process; of all workers one reconciles at a time."""

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
                self._has_indexes = self._has_indexes or self._make_indexes()
                self._pass(app, timedelta(seconds=interval))
            except (*MONGODB_FAILURES, *REDIS_FAILURES) as error:
                logger.warning("not reconciled, a server is away: %s", error)
            except Exception:
                # A task that can not be repaired must not keep the others from it for ever.
                logger.exception("not reconciled")

    def _make_indexes(self) -> bool:
        """Where the release phase was left out, nothing would be found to repair, and two tasks might lead."""
        try:
            # Asked first, because making indexes may take long.
            connections().mongodb.admin.command("ping")
            ensure_indexes()
        except MONGODB_FAILURES as error:
            logger.warning("the indexes are not looked at, MongoDB is away: %s", error)
            return False
        except PyMongoError as error:
            logger.error("not all indexes are there, run `python -m worker_tasks.release`: %s", error)
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

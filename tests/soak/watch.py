"""Recounts new results, finds leftovers, and probes the workers. All reads bypass the proxies of the stack."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis
from pymongo.errors import PyMongoError

from tests.soak import checks
from tests.soak.data import Document
from tests.soak.ledger import Ledger, Submission
from tests.soak.stack import PRACTICE_SECONDS, Stack

#: The prefixes of the keys that a running join uses. These keys must disappear when the join has ended.
RUN_KEYS = ("staging:", "join_run:", "join_plan:", "join_finish:")
QUEUES = ("celery", "reading")
COMMENT = {"$regex": "^dovetail:"}
OPERATIONS: list[Document] = [
    {"$currentOp": {"allUsers": False, "idleCursors": True}},
    {"$match": {"$or": [{"command.comment": COMMENT}, {"cursor.originatingCommand.comment": COMMENT}]}},
]
#: Seconds between two audits.
AUDIT_SECONDS = 1.0
#: The number of tasks that test at the end whether each worker uses all of its slots, and the slots of each worker.
PROBES, SLOTS = 16, 2
SERVER_IS_DOWN = (PyMongoError, redis.RedisError)


def tasks_of(stack: Stack, query: Document | None = None) -> list[Document]:
    """Returns the task documents that match the query, or all of them.

    Raises:
        pymongo.errors.PyMongoError: MongoDB is down.
    """
    with stack.mongodb(20) as client:
        return list(client.tasks.task_results.find(query or {}))


def result_reader(store: redis.Redis) -> checks.ResultReader:
    """Returns a function that reads results without the proxies."""

    def read(key: str) -> bytes | None:
        value: Any = store.get(key)
        return None if value is None else bytes(value)

    return read


class Auditor:
    """Recounts each result as soon as its task has ended, before a newer run can replace it."""

    def __init__(self, stack: Stack, ledger: Ledger) -> None:
        self._stack = stack
        self._ledger = ledger
        self._stop = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(AUDIT_SECONDS):
            try:
                self._audit()
            except SERVER_IS_DOWN as error:
                self._ledger.note("auditor", away=repr(error)[:200])
            except Exception as error:  # noqa: BLE001 - an error in the soak itself must be reported, not end a thread
                self._ledger.report(None, "the soak itself failed", f"auditor: {error!r}")

    def _audit(self) -> None:
        pending = {each.task_id: each for each in self._ledger.accepted() if each.task_id not in self._seen}
        query = {"_id": {"$in": list(pending)}, "status": {"$in": sorted(checks.FINAL)}}
        with self._stack.redis(2) as store:
            for task in tasks_of(self._stack, query):
                submission = pending[task["_id"]]
                if submission.answer is not None and task["status"] in {"SUCCESS", "REVOKED"}:
                    for title, detail in checks.check_result(task, submission.answer, result_reader(store)):
                        self._ledger.report(task["_id"], f"{title}, when the task ended", detail)
                    self._ledger.recounted += 1
                self._seen.add(task["_id"])
                self._ledger.first_final[task["_id"]] = task["status"]
                self._ledger.ended_at[task["_id"]] = time.time()
                self._ledger.note("ended", task_id=task["_id"], status=task["status"], attempt=task["attempt"])


def unfinished(stack: Stack) -> int:
    """Counts the tasks that are not in a final state, including recorded tasks whose submission was refused."""
    with stack.mongodb() as client:
        return client.tasks.task_results.count_documents({"status": {"$nin": sorted(checks.FINAL)}})


def settle(stack: Stack, within: float) -> float:
    """Waits until every task is in a final state, for at most ``within`` seconds; returns the seconds it took."""
    began = time.monotonic()
    _wait_for(stack, lambda: unfinished(stack) == 0, within)
    return time.monotonic() - began


def _wait_for(stack: Stack, condition: Callable[[], bool], within: float) -> None:
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            if condition():
                return
        except SERVER_IS_DOWN:
            pass  # it has just been restarted
        stack.pause(0.5)


def leftovers(stack: Stack) -> Document:
    """Finds everything that must not exist when no task runs; returns an empty document if there is nothing.

    Raises:
        pymongo.errors.PyMongoError, redis.RedisError: a server is down.
    """
    with stack.redis(2) as store, stack.redis(0) as queue, stack.mongodb() as client:
        keys = [key.decode() for key in store.scan_iter(count=1000)]
        left: Document = Counter(f"{key.partition(':')[0]}:*" for key in keys if key.startswith(RUN_KEYS))
        found: Document = {
            "keys": dict(left),
            "keys that never expire": sorted(key for key in keys if store.ttl(key) == -1)[:20],
            "unacknowledged": [_describe_message(each) for each in queue.hvals("unacked")],
            "queued": {name: length for name in QUEUES if (length := queue.llen(name))},
            "operations": [_operation(each) for each in client.admin.aggregate(OPERATIONS)],
            "leads": [task["_id"] for task in client.tasks.task_results.find({"leads": {"$exists": True}})],
        }
    return {name: value for name, value in found.items() if value}


def _describe_message(entry: bytes) -> str:
    headers = json.loads(entry)[0]["headers"]
    return f"{headers['task']} {headers['id']}"


def _operation(found: Document) -> Document:
    command = found.get("command") or {}
    cursor = (found.get("cursor") or {}).get("originatingCommand") or {}
    return {"type": found["type"], "comment": command.get("comment") or cursor.get("comment")}


def final_leftovers(stack: Stack, within: float) -> Document:
    """Waits up to ``within`` seconds for leftovers to disappear; returns the remaining ones."""
    remaining: Document = {"unknown": "a server was down"}

    def is_clean() -> bool:
        nonlocal remaining
        remaining = leftovers(stack)
        return not remaining

    _wait_for(stack, is_clean, within)
    return remaining


def probe(stack: Stack, submit: Callable[[], Submission], within: float) -> list[checks.Defect]:
    """Submits tasks for all workers; a worker that does not use all of its slots is a defect."""
    ids = [submission.task_id for submission in (submit() for _ in range(PROBES)) if submission.task_id is not None]
    if len(ids) < PROBES:
        return [checks.Defect("refused at the end", f"{PROBES - len(ids)} of {PROBES} tasks, without a fault")]
    query = {"_id": {"$in": ids}, "status": "SUCCESS"}
    _wait_for(stack, lambda: len(tasks_of(stack, query)) == PROBES, within)
    done = tasks_of(stack, query)
    if len(done) < PROBES:
        detail = f"{len(done)} of {PROBES} tasks of {PRACTICE_SECONDS} s ended within {within:.0f} s"
        return [checks.Defect("too few tasks finished at the end", detail)]
    defects = []
    for name in stack.worker_names:
        mine = [task for task in done if task["worker"] == f"{name}@soak"]
        # If a task started twice, its times come from two workers, whose clocks may differ. Then expect one slot only.
        slots = SLOTS if all(task["attempt"] == 1 for task in done) else 1
        if (used := max_concurrency(mine)) < slots:
            detail = f"{name} took {len(mine)} of {PROBES} tasks, {used} at once with {SLOTS} slots"
            defects.append(checks.Defect("a worker does not use all of its slots", detail))
    return defects


def max_concurrency(tasks: list[Document]) -> int:
    """Returns the maximum number of these tasks that ran at the same time."""
    steps: list[tuple[Any, int]] = []
    for task in tasks:
        steps += [(task["started_at"], 1), (task["date_done"], -1)]
    steps.sort()
    running = maximum = 0
    for _, step in steps:
        running += step
        maximum = max(maximum, running)
    return maximum

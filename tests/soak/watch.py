"""Looks at the stack past its proxies: at results as soon as they are there, at what is left, at whether all work."""

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
from tests.soak.ledger import Asked, Ledger
from tests.soak.stack import PRACTICE_SECONDS, Stack

#: Keys of joins that are under way: nothing of them may be left.
OF_RUNS = ("staging:", "join_run:", "join_plan:", "join_finish:")
QUEUES = ("celery", "reading")
COMMENT = {"$regex": "^dovetail:"}
OPERATIONS: list[Document] = [
    {"$currentOp": {"allUsers": False, "idleCursors": True}},
    {"$match": {"$or": [{"command.comment": COMMENT}, {"cursor.originatingCommand.comment": COMMENT}]}},
]
#: Seconds between two looks of the auditor.
LOOK_SECONDS = 1.0
#: Tasks that show at the end whether each worker takes work with all of its slots, and how many each has.
PROBES, SLOTS = 16, 2
SERVER_IS_AWAY = (PyMongoError, redis.RedisError)


def tasks_of(stack: Stack, query: Document | None = None) -> list[Document]:
    """Task documents, all unless there is a query.

    Raises:
        pymongo.errors.PyMongoError: MongoDB is away.
    """
    with stack.mongodb(20) as client:
        return list(client.tasks.task_results.find(query or {}))


def reader_of(store: redis.Redis) -> checks.Stored:
    """Reads results past the proxies."""

    def read(key: str) -> bytes | None:
        found: Any = store.get(key)
        return found if found is None else bytes(found)

    return read


class Auditor:
    """Recounts each result as soon as its task has ended, before a newer run can take its place."""

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
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._look()
            except SERVER_IS_AWAY as error:
                self._ledger.note("auditor", away=repr(error)[:200])
            except Exception as error:  # noqa: BLE001 - a mistake of the soak itself must be seen, not end a thread
                self._ledger.complain(None, "the soak itself failed", f"auditor: {error!r}")

    def _look(self) -> None:
        open_ones = {asked.task_id: asked for asked in self._ledger.accepted() if asked.task_id not in self._seen}
        query = {"_id": {"$in": list(open_ones)}, "status": {"$in": sorted(checks.FINAL)}}
        with self._stack.redis(2) as store:
            for task in tasks_of(self._stack, query):
                asked = open_ones[task["_id"]]
                if asked.answer is not None and task["status"] in {"SUCCESS", "REVOKED"}:
                    for what, detail in checks.of_results(task, asked.answer, reader_of(store)):
                        self._ledger.complain(task["_id"], f"{what}, as the task ended", detail)
                    self._ledger.recounted += 1
                self._seen.add(task["_id"])
                self._ledger.first_final[task["_id"]] = task["status"]
                self._ledger.ended_at[task["_id"]] = time.time()
                self._ledger.note("ended", task_id=task["_id"], status=task["status"], attempt=task["attempt"])


def unfinished(stack: Stack) -> int:
    """How many tasks are in no final state; those that were refused and are recorded count too."""
    with stack.mongodb() as client:
        return client.tasks.task_results.count_documents({"status": {"$nin": sorted(checks.FINAL)}})


def settle(stack: Stack, within: float) -> float:
    """Pauses until everything is in a final state, for at most so many seconds; how many it took."""
    began = time.monotonic()
    _patiently(stack, lambda: unfinished(stack) == 0, within)
    return time.monotonic() - began


def _patiently(stack: Stack, look: Callable[[], bool], within: float) -> None:
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            if look():
                return
        except SERVER_IS_AWAY:
            pass  # it was started again just now
        stack.pause(0.5)


def leftovers(stack: Stack) -> Document:
    """What must not be there when nothing runs; empty where all is well.

    Raises:
        pymongo.errors.PyMongoError, redis.RedisError: a server is away.
    """
    with stack.redis(2) as store, stack.redis(0) as queue, stack.mongodb() as client:
        keys = [key.decode() for key in store.scan_iter(count=1000)]
        left: Document = Counter(f"{key.partition(':')[0]}:*" for key in keys if key.startswith(OF_RUNS))
        found: Document = {
            "keys": dict(left),
            "keys that never expire": sorted(key for key in keys if store.ttl(key) == -1)[:20],
            "unacknowledged": [_task_of(each) for each in queue.hvals("unacked")],
            "queued": {name: length for name in QUEUES if (length := queue.llen(name))},
            "operations": [_operation(each) for each in client.admin.aggregate(OPERATIONS)],
            "leads": [task["_id"] for task in client.tasks.task_results.find({"leads": {"$exists": True}})],
        }
    return {name: value for name, value in found.items() if value}


def _task_of(entry: bytes) -> str:
    headers = json.loads(entry)[0]["headers"]
    return f"{headers['task']} {headers['id']}"


def _operation(found: Document) -> Document:
    command = found.get("command") or {}
    cursor = (found.get("cursor") or {}).get("originatingCommand") or {}
    return {"type": found["type"], "comment": command.get("comment") or cursor.get("comment")}


def last_leftovers(stack: Stack, within: float) -> Document:
    """What is still left when this many seconds have gone by."""
    last: Document = {"not known": "a server was away"}

    def look() -> bool:
        nonlocal last
        last = leftovers(stack)
        return not last

    _patiently(stack, look, within)
    return last


def probe(stack: Stack, ask: Callable[[], Asked], within: float) -> list[checks.Defect]:
    """Has every worker work; those that take nothing, or use not all of their slots, are defects."""
    ids = [asked.task_id for asked in (ask() for _ in range(PROBES)) if asked.task_id is not None]
    if len(ids) < PROBES:
        return [checks.Defect("refused at the end", f"{PROBES - len(ids)} of {PROBES} tasks, with nothing wrong")]
    query = {"_id": {"$in": ids}, "status": "SUCCESS"}
    _patiently(stack, lambda: len(tasks_of(stack, query)) == PROBES, within)
    done = tasks_of(stack, query)
    if len(done) < PROBES:
        detail = f"{len(done)} of {PROBES} tasks of {PRACTICE_SECONDS} s ended within {within:.0f} s"
        return [checks.Defect("too little is worked on at the end", detail)]
    defects = []
    for name in stack.worker_names:
        mine = [task for task in done if task["worker"] == f"{name}@soak"]
        # Of one that was begun twice the times are of two workers, perhaps by two clocks; that is a defect of its own.
        slots = SLOTS if all(task["attempt"] == 1 for task in done) else 1
        if (used := at_once(mine)) < slots:
            detail = f"{name} took {len(mine)} of {PROBES} tasks, {used} at once with {SLOTS} slots"
            defects.append(checks.Defect("a worker does not take what it could", detail))
    return defects


def at_once(tasks: list[Document]) -> int:
    """How many of these tasks were under way at the same time, at most."""
    steps: list[tuple[Any, int]] = []
    for task in tasks:
        steps += [(task["started_at"], 1), (task["date_done"], -1)]
    steps.sort()
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most

"""Simulated people, who submit tasks at a limited rate, edit, cancel and read them, and record each response."""

import heapq
import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.soak import data
from tests.soak.data import ITEMS, ORDERS, USERS, Answer, Document, KnownJoin, OrdersOf
from tests.soak.ledger import Ledger, Patch, Reply, Submission
from tests.soak.proxy import HOST

#: The time after which a simulated person stops waiting for a response, in seconds.
PATIENCE = 30.0
#: The number of threads, and the number of overdue actions above which submissions pause.
PEOPLE, MAX_WAITING = 12, 40
#: The response statuses that are not defects. 410 means that a newer run replaced the result.
EXPECTED_STATUSES = frozenset({0, 200, 202, 409, 410, 503})
#: The number of different joins of each kind, small enough that joins are submitted again.
STREAMS, DIVIDED = 40, 25


@dataclass(order=True)
class _Due:
    at: float
    order: int
    action: Callable[[], None] = field(compare=False)


class People:
    """Threads that act as people from :meth:`start` to :meth:`stop`."""

    def __init__(self, port: int, ledger: Ledger, seed: int, rate: float) -> None:
        self._port = port
        self._ledger = ledger
        self._rng = random.Random(f"work {seed}")
        self._mark = f"{seed}"
        self._pause = 1 / rate
        self._agenda: list[_Due] = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._ends = False
        self._streams = [self._stream() for _ in range(STREAMS)]
        self._divided = [self._divided_join() for _ in range(DIVIDED)]
        self._threads = [threading.Thread(target=self._person, daemon=True) for _ in range(PEOPLE)]
        self._submitter = threading.Thread(target=self._submit_continuously, daemon=True)

    def start(self) -> None:
        for thread in (*self._threads, self._submitter):
            thread.start()

    def stop(self) -> None:
        """Stops all threads after their current action."""
        with self._changed:
            self._ends = True
            self._agenda = []
            self._changed.notify_all()
        for thread in (self._submitter, *self._threads):
            thread.join(2 * PATIENCE)

    def submit_practice(self) -> Submission:
        """Submits the practice task at once, in this thread."""
        self._submission("practice", "/create-task", {"task_input": "soak"}, None)()
        return self._ledger.submissions[-1]

    # ---- submissions

    def _stream(self) -> KnownJoin:
        if self._rng.random() < 0.3:
            low = self._rng.randrange(0, ORDERS - 500)
            kind = self._rng.choice(["left", "inner", "semi", "anti"])
            return KnownJoin("orders", "userId", "users", "_id", low, low + self._rng.randrange(100, 500), kind)
        low = self._rng.randrange(0, ITEMS - 10_000)
        return self._items(low, low + self._rng.randrange(500, 10_000), divisible=False)

    def _divided_join(self) -> KnownJoin:
        low = self._rng.randrange(0, ITEMS // 3)
        return self._items(low, low + self._rng.randrange(5_000, ITEMS * 2 // 3), divisible=True)

    def _items(self, low: int, high: int, *, divisible: bool) -> KnownJoin:
        kind = self._rng.choice(["left", "left", "left", "inner", "semi", "anti"])
        shape = self._rng.choice(["rows", "rows", "array", "count"])
        return KnownJoin("items", "key", "tags", "key", low, high, kind, shape, divisible)

    def _submit_continuously(self) -> None:
        due = time.monotonic()
        kinds = ["practice", "user-orders", "stream", "parts", "identical"]
        while not self._ends:
            kind = self._rng.choices(kinds, [4, 4, 4, 3, 1])[0]
            count = self._submit_some(kind)
            due = max(due + count * self._pause, time.monotonic() - 1)
            with self._changed:
                self._changed.wait_for(lambda: self._ends, max(0.0, due - time.monotonic()))
                waiting = sum(each.at < time.monotonic() for each in self._agenda)
                if waiting > MAX_WAITING:
                    self._changed.wait_for(lambda: self._ends, 1)

    def _submit_some(self, kind: str) -> int:
        """Schedules one or more submissions of this kind; returns their number."""
        if kind == "practice":
            self._later(0, self._submission(kind, "/create-task", {"task_input": "soak"}, None))
            return 1
        if kind == "user-orders":
            # Some of these users do not exist.
            user = OrdersOf(f"u{self._rng.randrange(USERS + 5)}")
            path = "/api/v1/joins/user-orders"
            self._later(0, self._submission(kind, path, {"user_id": user.user_id}, user))
            return 1
        joins = {"stream": self._streams, "parts": self._divided, "identical": self._streams + self._divided}
        join = self._rng.choice(joins[kind])
        body: Document = {"join": join.spec()}
        if kind != "identical":
            body["fresh"] = self._rng.random() < 0.5
            self._later(0, self._submission(kind, "/api/v1/joins", body, join))
            return 1
        # A join with a range of its own, so that no result exists yet; everyone submits it at the same moment.
        high = join.high - self._rng.randrange(1, 400)
        identical = KnownJoin(**vars(join) | {"high": max(high, join.low + 1)})
        count = self._rng.randrange(3, 7)
        for _ in range(count):
            self._later(0, self._submission(kind, "/api/v1/joins", {"join": identical.spec()}, identical))
        return count

    def _submission(self, kind: str, path: str, body: Document, answer: Answer | None) -> Callable[[], None]:
        """Returns the action that submits this; draws all its random choices now, in a reproducible order."""
        rng, number = self._rng, next(self._numbers)
        metadata = {
            "soak": f"{self._mark}-{number}",
            "reason": f"{kind}, ü{number} 漢",
            "nested": {"list": [number, None]},
        }
        submission = Submission(number, kind, metadata, answer)
        body = body | metadata if kind == "practice" else body | {"metadata": metadata}
        cancels = [rng.expovariate(1.2)] if rng.random() < (0.3 if kind == "identical" else 0.12) else []
        if cancels and rng.random() < 0.2:
            cancels.append(cancels[0] + rng.random())
        patches = [rng.uniform(0, 4) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
        reads = [rng.uniform(0.2, 12) for _ in range(rng.choice([0, 1, 2]))]
        pages = [rng.choice(["task", "page", "page", "sorted", "lines", "html", "status", "list"]) for _ in reads]
        row = rng.random()

        def submit() -> None:
            reply = self._request("POST", path, body)
            submission.submitted_at, submission.seconds, submission.status = reply.at, reply.seconds, reply.status
            if submission.is_accepted:
                submission.task_id = reply.body if isinstance(reply.body, str) else _field(reply.body, "task_id")
            else:
                submission.body = reply.body
            self._ledger.add(submission)
            if submission.task_id is None:
                return
            for pause in cancels:
                self._later(pause, partial(self._cancel, submission))
            for place, pause in enumerate(patches):
                self._later(pause, partial(self._patch, submission, f"edit{place}"))
            for page, pause in zip(pages, reads, strict=True):
                self._later(pause, partial(self._read, submission, page, row))

        return submit

    # ---- follow-up actions

    def _cancel(self, submission: Submission) -> None:
        reply = self._request("DELETE", f"/api/v1/tasks/{submission.task_id}")
        submission.cancels.append(reply.status)
        self._ledger.note("cancel", task_id=submission.task_id, status=reply.status, seconds=round(reply.seconds, 3))

    def _patch(self, submission: Submission, key: str) -> None:
        value = {"by": key, "number": submission.number}
        reply = self._request("PATCH", f"/api/v1/tasks/{submission.task_id}", {"metadata": {key: value}})
        submission.patches.append(Patch(key, value, reply.status))
        self._ledger.note("patch", task_id=submission.task_id, key=key, status=reply.status)

    def _read(self, submission: Submission, page: str, place: float) -> None:
        task = f"/api/v1/tasks/{submission.task_id}"
        if page == "task":
            reply = self._request("GET", task)
            if reply.status == 200 and (error := submission.metadata_error(_without_edits(submission, reply.body))):
                self._ledger.report(submission.task_id, "metadata read over the API is wrong", error)
        elif page in {"html", "status", "list"}:
            end = {"html": "", "status": "/status"}
            self._request("GET", "/tasks" if page == "list" else f"/tasks/{submission.task_id}{end[page]}")
        elif submission.answer is not None:
            self._read_result(submission, submission.answer, page, place)

    def _read_result(self, submission: Submission, answer: Answer, page: str, place: float) -> None:
        total = data.expected(answer)[0]
        if page == "sorted" and total == 0:
            return  # an empty result has no column to sort by
        address = f"/api/v1/tasks/{submission.task_id}/result"
        offset = int(place * total)
        query = {"page": f"?offset={offset}&limit=100", "sorted": f"?sort=-_id&offset={offset}&limit=50"}
        reply = self._request("GET", f"{address}.ndjson" if page == "lines" else address + query[page])
        if reply.status != 200:
            return
        if page == "lines":
            # The result of a cancelled join may be partial, and its file does not show this.
            rows, complete = reply.body, not submission.cancels
            count = len(reply.body) if isinstance(reply.body, list) else None
        else:
            rows, complete, count = (_field(reply.body, name) for name in ("rows", "complete", "count"))
        self._ledger.pages_read += 1
        title = f"result read over the API is wrong ({page})"
        if not isinstance(rows, list):
            self._ledger.report(submission.task_id, title, f"no rows but {reply.body!r:.200}")
            return
        expected = data.all_rows(answer)
        unexpected = [row for row in map(data.canonical, rows) if row not in expected]
        if unexpected:
            detail = f"{len(unexpected)} rows are not in the join: {unexpected[0]:.200}"
            self._ledger.report(submission.task_id, title, detail)
        if complete and count != total:
            self._ledger.report(submission.task_id, title, f"count {count}, not {total}")

    def _request(self, method: str, path: str, body: Document | None = None) -> Reply:
        """Sends a request and records the response."""
        at, began = time.time(), time.monotonic()
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)
        status, content = 0, b""
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {} if text is None else {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            status = response.status
        except (OSError, http.client.HTTPException) as error:
            content = json.dumps(repr(error)).encode()
        finally:
            connection.close()
        reply = Reply(
            method, path, at, time.monotonic() - began, status, _parsed(content, lines=path.endswith(".ndjson"))
        )
        self._ledger.add_reply(reply)
        if status not in EXPECTED_STATUSES:
            self._ledger.report(None, f"answer {status}", f"{method} {path}: {content.decode(errors='replace'):.300}")
        return reply

    # ---- threads

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        with self._changed:
            if not self._ends:
                heapq.heappush(self._agenda, _Due(time.monotonic() + seconds, next(self._order), action))
                self._changed.notify()

    def _person(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - an error in the soak itself must be reported, not end a thread
                self._ledger.report(None, "the soak itself failed", repr(error))

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._ends:
                if self._agenda and (left := self._agenda[0].at - time.monotonic()) <= 0:
                    return heapq.heappop(self._agenda).action
                self._changed.wait(left if self._agenda else None)
        return None


def _parsed(text: bytes, *, lines: bool) -> Any:
    try:
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except ValueError:
        return text[:500].decode(errors="replace")


def _field(body: Any, name: str) -> Any:
    return body.get(name) if isinstance(body, dict) else None


def _without_edits(submission: Submission, body: Any) -> Any:
    """Returns the metadata in a response, with acknowledged edits only, because others may still be in progress."""
    metadata = _field(body, "metadata")
    if not isinstance(metadata, dict):
        return metadata
    edits = {patch.key: patch.value for patch in submission.patches if patch.status == 200}
    return {key: value for key, value in metadata.items() if not key.startswith("edit")} | edits

"""The people: they ask for tasks and joins at a bounded rate, edit, cancel and read, and note each answer."""

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
from tests.soak.data import ITEMS, ORDERS, USERS, Answer, Document, Known, OrdersOf
from tests.soak.ledger import Asked, Ledger, Patch, Reply
from tests.soak.proxy import HOST

#: Seconds after which a person gives up.
PATIENCE = 30.0
#: Threads that ask, and things to do that are due and wait, beyond which nothing new is asked for.
PEOPLE, MOST_WAITING = 12, 40
#: What a person may be told: anything else is wrong. 410: a newer run took the place of a result.
USUAL = frozenset({0, 200, 202, 409, 410, 503})
#: How many different joins of each kind there are: a result is asked for again, and made again.
STREAMS, DIVIDED = 40, 25


@dataclass(order=True)
class _Due:
    at: float
    order: int
    action: Callable[[], None] = field(compare=False)


class People:
    """As a context manager they ask until the end; what they follow up on is done by then."""

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
        self._asker = threading.Thread(target=self._ask_on, daemon=True)

    def start(self) -> None:
        for thread in (*self._threads, self._asker):
            thread.start()

    def stop(self) -> None:
        """No one asks any more; what is under way is brought to its end."""
        with self._changed:
            self._ends = True
            self._agenda = []
            self._changed.notify_all()
        for thread in (self._asker, *self._threads):
            thread.join(2 * PATIENCE)

    def ask_practice(self) -> Asked:
        """Asks for the practice task at once, in this thread."""
        self._submission("practice", "/create-task", {"task_input": "soak"}, None)()
        return self._ledger.asked[-1]

    # ---- what is asked for

    def _stream(self) -> Known:
        if self._rng.random() < 0.3:
            low = self._rng.randrange(0, ORDERS - 500)
            kind = self._rng.choice(["left", "inner", "semi", "anti"])
            return Known("orders", "userId", "users", "_id", low, low + self._rng.randrange(100, 500), kind)
        low = self._rng.randrange(0, ITEMS - 10_000)
        return self._items(low, low + self._rng.randrange(500, 10_000), divisible=False)

    def _divided_join(self) -> Known:
        low = self._rng.randrange(0, ITEMS // 3)
        return self._items(low, low + self._rng.randrange(5_000, ITEMS * 2 // 3), divisible=True)

    def _items(self, low: int, high: int, *, divisible: bool) -> Known:
        kind = self._rng.choice(["left", "left", "left", "inner", "semi", "anti"])
        shape = self._rng.choice(["rows", "rows", "array", "count"])
        return Known("items", "key", "tags", "key", low, high, kind, shape, divisible)

    def _ask_on(self) -> None:
        due = time.monotonic()
        kinds = ["practice", "user-orders", "stream", "parts", "identical"]
        while not self._ends:
            kind = self._rng.choices(kinds, [4, 4, 4, 3, 1])[0]
            count = self._ask(kind)
            due = max(due + count * self._pause, time.monotonic() - 1)
            with self._changed:
                self._changed.wait_for(lambda: self._ends, max(0.0, due - time.monotonic()))
                waiting = sum(each.at < time.monotonic() for each in self._agenda)
                if waiting > MOST_WAITING:
                    self._changed.wait_for(lambda: self._ends, 1)

    def _ask(self, kind: str) -> int:
        """Has something asked for; how many submissions that is."""
        if kind == "practice":
            self._later(0, self._submission(kind, "/create-task", {"task_input": "soak"}, None))
            return 1
        if kind == "user-orders":
            # Some are of users that there are not.
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
        # One of its own kind, so that there is no live result yet; everyone asks at the same moment.
        high = join.high - self._rng.randrange(1, 400)
        alike = Known(**vars(join) | {"high": max(high, join.low + 1)})
        count = self._rng.randrange(3, 7)
        for _ in range(count):
            self._later(0, self._submission(kind, "/api/v1/joins", {"join": alike.spec()}, alike))
        return count

    def _submission(self, kind: str, path: str, body: Document, answer: Answer | None) -> Callable[[], None]:
        """What a person does to submit this; all that chance decides about it is decided now."""
        rng, number = self._rng, next(self._numbers)
        metadata = {
            "soak": f"{self._mark}-{number}",
            "reason": f"{kind}, ü{number} 漢",
            "nested": {"list": [number, None]},
        }
        asked = Asked(number, kind, metadata, answer)
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
            asked.asked_at, asked.seconds, asked.status = reply.at, reply.seconds, reply.status
            if asked.is_accepted:
                asked.task_id = reply.body if isinstance(reply.body, str) else _field(reply.body, "task_id")
            else:
                asked.body = reply.body
            self._ledger.add(asked)
            if asked.task_id is None:
                return
            for pause in cancels:
                self._later(pause, partial(self._cancel, asked))
            for place, pause in enumerate(patches):
                self._later(pause, partial(self._patch, asked, f"edit{place}"))
            for page, pause in zip(pages, reads, strict=True):
                self._later(pause, partial(self._read, asked, page, row))

        return submit

    # ---- what follows

    def _cancel(self, asked: Asked) -> None:
        reply = self._request("DELETE", f"/api/v1/tasks/{asked.task_id}")
        asked.cancels.append(reply.status)
        self._ledger.note("cancel", task_id=asked.task_id, status=reply.status, seconds=round(reply.seconds, 3))

    def _patch(self, asked: Asked, key: str) -> None:
        value = {"by": key, "number": asked.number}
        reply = self._request("PATCH", f"/api/v1/tasks/{asked.task_id}", {"metadata": {key: value}})
        asked.patches.append(Patch(key, value, reply.status))
        self._ledger.note("patch", task_id=asked.task_id, key=key, status=reply.status)

    def _read(self, asked: Asked, page: str, place: float) -> None:
        task = f"/api/v1/tasks/{asked.task_id}"
        if page == "task":
            reply = self._request("GET", task)
            if reply.status == 200 and (wrong := asked.metadata_complaint(_without_edits(asked, reply.body))):
                self._ledger.complain(asked.task_id, "metadata as it was read", wrong)
        elif page in {"html", "status", "list"}:
            end = {"html": "", "status": "/status"}
            self._request("GET", "/tasks" if page == "list" else f"/tasks/{asked.task_id}{end[page]}")
        elif asked.answer is not None:
            self._read_result(asked, asked.answer, page, place)

    def _read_result(self, asked: Asked, answer: Answer, page: str, place: float) -> None:
        total = data.expected(answer)[0]
        if page == "sorted" and total == 0:
            return  # it has no column to sort by
        address = f"/api/v1/tasks/{asked.task_id}/result"
        offset = int(place * total)
        query = {"page": f"?offset={offset}&limit=100", "sorted": f"?sort=-_id&offset={offset}&limit=50"}
        reply = self._request("GET", f"{address}.ndjson" if page == "lines" else address + query[page])
        if reply.status != 200:
            return
        if page == "lines":
            # A file does not say that it is of a partial result, which a cancelled join leaves.
            rows, complete = reply.body, not asked.cancels
            count = len(reply.body) if isinstance(reply.body, list) else None
        else:
            rows, complete, count = (_field(reply.body, name) for name in ("rows", "complete", "count"))
        self._ledger.pages_read += 1
        if not isinstance(rows, list):
            self._ledger.complain(asked.task_id, f"result as it was read ({page})", f"no rows but {reply.body!r:.200}")
            return
        known = data.all_rows(answer)
        strange = [row for row in map(data.canonical, rows) if row not in known]
        if strange:
            self._ledger.complain(
                asked.task_id,
                f"result as it was read ({page})",
                f"{len(strange)} rows are not of the join: {strange[0]:.200}",
            )
        if complete and count != total:
            self._ledger.complain(asked.task_id, f"result as it was read ({page})", f"count {count}, not {total}")

    def _request(self, method: str, path: str, body: Document | None = None) -> Reply:
        at, began = time.time(), time.monotonic()
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)
        status, found = 0, b""
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {} if text is None else {"Content-Type": "application/json"})
            response = connection.getresponse()
            found = response.read()
            status = response.status
        except (OSError, http.client.HTTPException) as error:
            found = json.dumps(repr(error)).encode()
        finally:
            connection.close()
        reply = Reply(
            method, path, at, time.monotonic() - began, status, _parsed(found, lines=path.endswith(".ndjson"))
        )
        self._ledger.add_reply(reply)
        if status not in USUAL:
            self._ledger.complain(None, f"answer {status}", f"{method} {path}: {found.decode(errors='replace'):.300}")
        return reply

    # ---- who does it

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        with self._changed:
            if not self._ends:
                heapq.heappush(self._agenda, _Due(time.monotonic() + seconds, next(self._order), action))
                self._changed.notify()

    def _person(self) -> None:
        while (action := self._next()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - a mistake of the soak itself must be seen, not end a thread
                self._ledger.complain(None, "the soak itself failed", repr(error))

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


def _without_edits(asked: Asked, body: Any) -> Any:
    """The metadata of a task as it was read; edits that are under way may be in it or not."""
    found = _field(body, "metadata")
    if not isinstance(found, dict):
        return found
    edits = {patch.key: patch.value for patch in asked.patches if patch.status == 200}
    return {key: value for key, value in found.items() if not key.startswith("edit")} | edits

"""What the soak asked for, what it was told, and what must therefore be so: in memory, and as lines of JSON."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.data import Answer, Document

ACCEPTED = frozenset({200, 202})


@dataclass
class Patch:
    """A key of metadata that was changed after submitting; ``status`` 0 where no answer came."""

    key: str
    value: Any
    status: int


@dataclass
class Asked:
    """One submission. ``status`` is 0 where no answer came: nobody was told whether it was taken."""

    number: int
    kind: str
    metadata: Document
    answer: Answer | None
    asked_at: float = 0.0
    status: int = 0
    seconds: float = 0.0
    task_id: str | None = None
    body: Any = None
    patches: list[Patch] = field(default_factory=list)
    #: The answers to attempts to cancel it.
    cancels: list[int] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        return self.status in ACCEPTED

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody was told that it is."""
        return 202 in self.cancels

    @property
    def may_be_cancelled(self) -> bool:
        """Whether somebody asked for it and was not told the contrary."""
        return any(status != 409 for status in self.cancels)

    def metadata_complaint(self, found: Any) -> str | None:
        """What is wrong with the metadata of its document."""
        must = self.metadata | {patch.key: patch.value for patch in self.patches if patch.status == 200}
        may = must | {patch.key: patch.value for patch in self.patches if patch.status in {0, 503}}
        if not isinstance(found, dict):
            return f"metadata is {found!r}"
        lost = {key: value for key, value in must.items() if found.get(key) != value}
        strange = {key: value for key, value in found.items() if key not in may or may[key] != value}
        return f"metadata lost {lost}, has {strange}" if lost or strange else None


@dataclass(frozen=True)
class Reply:
    """An answer of the web process to any request; ``status`` is 0 where none came."""

    method: str
    path: str
    at: float
    seconds: float
    status: int
    body: Any


class Ledger:
    """Threads write, the verdict reads."""

    def __init__(self, path: Path) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = []
        #: What was seen to be wrong while it happened, with the id of the task if it is about one.
        self.seen_wrong: list[tuple[str | None, str, str]] = []
        #: The final state in which each task was seen first.
        self.first_final: dict[str, str] = {}
        #: When that was, in seconds since 1970.
        self.ended_at: dict[str, float] = {}
        #: How many results were recounted, and whole pages read.
        self.recounted = 0
        self.pages_read = 0
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")

    def note(self, event: str, **more: Any) -> None:
        """Writes a line."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **more}, ensure_ascii=False, default=str)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def add(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)
        self.note("asked", **{key: value for key, value in vars(asked).items() if key not in {"patches", "cancels"}})

    def add_reply(self, reply: Reply) -> None:
        with self._lock:
            self.replies.append(Reply(reply.method, reply.path, reply.at, reply.seconds, reply.status, None))

    def complain(self, task_id: str | None, what: str, detail: str) -> None:
        """Notes a defect that was seen as it happened."""
        with self._lock:
            self.seen_wrong.append((task_id, what, detail))
        self.note("wrong", task_id=task_id, what=what, detail=detail)

    def accepted(self) -> list[Asked]:
        with self._lock:
            return [asked for asked in self.asked if asked.is_accepted]

    def close(self) -> None:
        with self._lock:
            self._file.close()

"""The soak's record of its submissions and the responses, in memory and as lines of JSON."""

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
    """A later change of one metadata key; ``status`` is 0 if no response came."""

    key: str
    value: Any
    status: int


@dataclass
class Submission:
    """One submission. ``status`` is 0 if no response came, so that it may or may not be accepted."""

    number: int
    kind: str
    metadata: Document
    answer: Answer | None
    submitted_at: float = 0.0
    status: int = 0
    seconds: float = 0.0
    task_id: str | None = None
    body: Any = None
    patches: list[Patch] = field(default_factory=list)
    #: The response statuses of attempts to cancel it.
    cancels: list[int] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        return self.status in ACCEPTED

    @property
    def is_cancelled(self) -> bool:
        """Whether a cancellation was accepted."""
        return 202 in self.cancels

    @property
    def may_be_cancelled(self) -> bool:
        """Whether a cancellation was attempted and not refused."""
        return any(status != 409 for status in self.cancels)

    def metadata_error(self, found: Any) -> str | None:
        """Compares the metadata of the task document with the submission; returns None if they agree."""
        must = self.metadata | {patch.key: patch.value for patch in self.patches if patch.status == 200}
        may = must | {patch.key: patch.value for patch in self.patches if patch.status in {0, 503}}
        if not isinstance(found, dict):
            return f"metadata is {found!r}"
        lost = {key: value for key, value in must.items() if found.get(key) != value}
        unexpected = {key: value for key, value in found.items() if key not in may or may[key] != value}
        return f"metadata lost {lost}, has {unexpected}" if lost or unexpected else None


@dataclass(frozen=True)
class Reply:
    """A response of the web process; ``status`` is 0 if none came."""

    method: str
    path: str
    at: float
    seconds: float
    status: int
    body: Any


class Ledger:
    """Written by several threads, and read by the checks at the end."""

    def __init__(self, path: Path) -> None:
        self.submissions: list[Submission] = []
        self.replies: list[Reply] = []
        #: Defects observed during the run, as (task id if any, title, detail).
        self.observed_defects: list[tuple[str | None, str, str]] = []
        #: The first final state in which each task was seen.
        self.first_final: dict[str, str] = {}
        #: When that state was first seen, in seconds since 1970.
        self.ended_at: dict[str, float] = {}
        #: The numbers of recounted results and of pages read.
        self.recounted = 0
        self.pages_read = 0
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8")

    def note(self, event: str, **more: Any) -> None:
        """Appends an event to the file."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **more}, ensure_ascii=False, default=str)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def add(self, submission: Submission) -> None:
        with self._lock:
            self.submissions.append(submission)
        fields = {key: value for key, value in vars(submission).items() if key not in {"patches", "cancels"}}
        self.note("submitted", **fields)

    def add_reply(self, reply: Reply) -> None:
        with self._lock:
            self.replies.append(Reply(reply.method, reply.path, reply.at, reply.seconds, reply.status, None))

    def report(self, task_id: str | None, title: str, detail: str) -> None:
        """Records a defect observed during the run."""
        with self._lock:
            self.observed_defects.append((task_id, title, detail))
        self.note("defect", task_id=task_id, title=title, detail=detail)

    def accepted(self) -> list[Submission]:
        with self._lock:
            return [submission for submission in self.submissions if submission.is_accepted]

    def close(self) -> None:
        with self._lock:
            self._file.close()

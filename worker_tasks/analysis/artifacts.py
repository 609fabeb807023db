"""What is worked out from a result once, by a worker, and kept beside it: asked for, followed, found.

Nothing here is a task of its own: whoever looks at a result asks, and asks again as long as they look, so that what
died with its worker, or with its message, is begun anew. All keys end with the result they were made of, or before.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import named_driver_errors
from worker_tasks.infra.redis_memory import require_room
from worker_tasks.queue.celery_app import app
from worker_tasks.results import result_store
from worker_tasks.results.result_store import CHUNK_BYTES, Summary

#: Seconds until what no worker has begun is asked for once more.
REQUESTED_SECONDS = 30
#: The name of the key that says how far it is.
STATE = "state"
#: Seconds between two looks of one who waits for it, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25

_ASK = lua_scripts.load("artifacts/ask")


class ArtifactKind(StrEnum):
    """What can be derived from a result."""

    TABLE = "table"
    ORDER = "order"
    FILE = "file"
    COMPARISON = "comparison"


class ArtifactState(StrEnum):
    REQUESTED = "asked"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class ArtifactSpec:
    """What is to be worked out: the same ``options`` of the same kind are worked out once for a result."""

    kind: ArtifactKind
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        if not self.options:
            return str(self.kind)
        text = json.dumps(self.options, sort_keys=True)
        return f"{self.kind}.{hashlib.sha256(text.encode()).hexdigest()[:20]}"


#: The columns of a result, each in figures; its rows with typed values; and where each row is.
TABLE = ArtifactSpec(ArtifactKind.TABLE)


@dataclass(frozen=True)
class Artifact:
    """How far it is: ``done`` of ``total`` rows while it is worked on; ``message`` says why it can not be done.

    When it is done ``parts`` are the names of what was written, and ``data`` is what else there is to know of it.
    """

    state: ArtifactState
    done: int = 0
    total: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    parts: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return self.state is ArtifactState.DONE

    @property
    def is_under_way(self) -> bool:
        return self.state in {ArtifactState.REQUESTED, ArtifactState.BEGUN}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        read = json.loads(text)
        return cls(**read | {"state": ArtifactState(read["state"])})


def key_of(summary: Summary, derivation: ArtifactSpec, name: str = STATE) -> str:
    """Where a part of what is derived is, or how far it is."""
    return f"derived:{summary.run}:{derivation.name}:{name}"


def request_artifact(summary: Summary, derivation: ArtifactSpec) -> Artifact:
    """How far this is; if nothing of it is there, a worker is told to begin.

    Raises:
        ServiceRefuses: Redis takes nothing; nothing was asked for.
        ServiceUnavailable: Redis is away; nothing was asked for.
    """
    with named_driver_errors():
        return _ask(summary, derivation)


def _ask(summary: Summary, derivation: ArtifactSpec) -> Artifact:
    asked = Artifact(ArtifactState.REQUESTED)
    key = key_of(summary, derivation)
    store = connections().results
    there = store.eval(_ASK, 1, key, asked.to_json(), REQUESTED_SECONDS)
    if there:
        return Artifact.from_json(ensure_bytes(there))
    try:
        require_room()
        app.publish_artifact(summary.key, summary.task_id, summary.run, derivation.kind, derivation.options)
    except Exception:
        store.unlink(key)
        raise
    return asked


def find_artifact(summary: Summary, derivation: ArtifactSpec) -> Artifact | None:
    """How far this is; None where nobody asked for it, or it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    there = connections().results.get(key_of(summary, derivation))
    return None if there is None else Artifact.from_json(ensure_bytes(there))


def read_range(summary: Summary, derivation: ArtifactSpec, name: str, start: int = 0, end: int = -1) -> bytes:
    """Some bytes of what was derived, ``end`` included; empty where it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return ensure_bytes(connections().results.getrange(key_of(summary, derivation, name), start, end))


def read_artifact(summary: Summary, derivation: ArtifactSpec, name: str, size: int) -> Iterator[bytes]:
    """A part of so many bytes, a chunk at a time.

    Raises:
        ResultGone: it expired meanwhile; what was read so far is not all.
        redis.exceptions.RedisError: Redis does not answer.
    """
    for start in range(0, size, CHUNK_BYTES):
        chunk = read_range(summary, derivation, name, start, start + CHUNK_BYTES - 1)
        if len(chunk) != min(CHUNK_BYTES, size - start):
            raise result_store.ResultGone(f"{summary.key}: {derivation.name}")
        yield chunk


def await_artifact(summary: Summary, derivation: ArtifactSpec, seconds: float) -> Artifact:
    """Asks, and waits for it to be done for at most so many seconds.

    Raises:
        ServiceUnavailable: as for :func:`ask`.
    """
    until = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while (found := request_artifact(summary, derivation)).is_under_way and (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE)
    return found

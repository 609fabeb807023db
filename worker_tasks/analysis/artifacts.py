"""Artifacts, which workers compute once from a result and cache next to it in Redis.

An artifact has no task document. Pages and API calls keep requesting an artifact while someone waits for it, so a job
that was lost with its worker or its message starts again. All keys of an artifact expire with the result or earlier.
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
from worker_tasks.results.result_store import CHUNK_BYTES
from worker_tasks.results.summaries import Summary

#: If no worker starts on a request within this many seconds, the request is sent again.
REQUESTED_SECONDS = 30
#: The name of the part that holds an artifact's state.
STATE = "state"
#: The first and the longest pause between two polls of an artifact, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25

_ASK = lua_scripts.load("artifacts/ask")


class ArtifactKind(StrEnum):
    """The kinds of artifacts a result can have."""

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
    """Identifies an artifact of a result. Specs with the same kind and options share one artifact."""

    kind: ArtifactKind
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        if not self.options:
            return str(self.kind)
        text = json.dumps(self.options, sort_keys=True)
        return f"{self.kind}.{hashlib.sha256(text.encode()).hexdigest()[:20]}"


#: The result as a table of typed columns, with a profile of the columns and the offset of each row.
TABLE = ArtifactSpec(ArtifactKind.TABLE)


@dataclass(frozen=True)
class Artifact:
    """The state of an artifact.

    Attributes:
        done: the number of rows done so far.
        total: the number of rows to do; None if unknown.
        data: more information about a finished artifact.
        message: the reason why the artifact failed.
        parts: the names of the stored parts of a finished artifact.
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
        stored = json.loads(text)
        return cls(**stored | {"state": ArtifactState(stored["state"])})


def key_of(summary: Summary, spec: ArtifactSpec, name: str = STATE) -> str:
    """The Redis key of a part of an artifact. By default, the key of its state."""
    return f"derived:{summary.run}:{spec.name}:{name}"


def request_artifact(summary: Summary, spec: ArtifactSpec) -> Artifact:
    """Returns the state of an artifact. If there is none, sends a job to the workers.

    Raises:
        ServiceRefuses: Redis accepts no writes; no job was sent.
        ServiceUnavailable: Redis is unavailable; no job was sent.
    """
    with named_driver_errors():
        return _request(summary, spec)


def _request(summary: Summary, spec: ArtifactSpec) -> Artifact:
    requested = Artifact(ArtifactState.REQUESTED)
    key = key_of(summary, spec)
    store = connections().results
    stored = store.eval(_ASK, 1, key, requested.to_json(), REQUESTED_SECONDS)
    if stored:
        return Artifact.from_json(ensure_bytes(stored))
    try:
        require_room()
        app.publish_artifact(summary.key, summary.task_id, summary.run, spec.kind, spec.options)
    except Exception:
        store.unlink(key)
        raise
    return requested


def find_artifact(summary: Summary, spec: ArtifactSpec) -> Artifact | None:
    """The state of an artifact; None if it was not requested or has expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    stored = connections().results.get(key_of(summary, spec))
    return None if stored is None else Artifact.from_json(ensure_bytes(stored))


def read_range(summary: Summary, spec: ArtifactSpec, name: str, start: int = 0, end: int = -1) -> bytes:
    """The bytes of an artifact's part from ``start`` to ``end``, both included. Empty if the part has expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return ensure_bytes(connections().results.getrange(key_of(summary, spec, name), start, end))


def read_artifact(summary: Summary, spec: ArtifactSpec, name: str, size: int) -> Iterator[bytes]:
    """Yields a part of ``size`` bytes in chunks.

    Raises:
        ResultGone: the part expired during the read, so the chunks yielded so far are incomplete.
        redis.exceptions.RedisError: Redis does not answer.
    """
    for start in range(0, size, CHUNK_BYTES):
        chunk = read_range(summary, spec, name, start, start + CHUNK_BYTES - 1)
        if len(chunk) != min(CHUNK_BYTES, size - start):
            raise result_store.ResultGone(f"{summary.key}: {spec.name}")
        yield chunk


def await_artifact(summary: Summary, spec: ArtifactSpec, seconds: float) -> Artifact:
    """Requests an artifact and waits up to ``seconds`` for it. Returns its latest state.

    Raises:
        ServiceRefuses, ServiceUnavailable: as for :func:`request_artifact`.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while (artifact := request_artifact(summary, spec)).is_under_way and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE)
    return artifact

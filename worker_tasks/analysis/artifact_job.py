"""A worker's job of computing one artifact.

Only one worker at a time has the job. It sends heartbeats while it works. If they stop, another worker can start over.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from worker_tasks.analysis.artifacts import STATE, Artifact, ArtifactSpec, ArtifactState, key_of
from worker_tasks.infra import lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.redis_memory import require_room
from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger
from worker_tasks.results import result_store, summaries
from worker_tasks.results.summaries import Summary

#: Seconds without a heartbeat after which a job counts as lost.
HEARTBEAT_TIMEOUT = 12
#: Seconds until a failed artifact may be requested again. The second number applies if there was no room for it.
FAILED_SECONDS, NO_ROOM_SECONDS = 120, 10
#: A job counts as failed after this many attempts in which the worker died.
MAX_ATTEMPTS = 3
#: The shortest lifetime of a staged part, in milliseconds. If the key expired too soon, the next write would create it
#: again, without an expiry.
MIN_MILLISECONDS = 60_000
GIVEN_UP = "It was begun several times, and each time its worker went away. It is not tried again for a while."

logger = logging.getLogger(__name__)

_BEGIN = lua_scripts.load("artifact_job/begin")
_HOLD = lua_scripts.load("artifact_job/hold")
_LEAVE = lua_scripts.load("artifact_job/leave")
_WRITE = lua_scripts.load("artifact_job/write")
_SAY = lua_scripts.load("artifact_job/if_mine", "artifact_job/say")
_END = lua_scripts.load("artifact_job/if_mine", "artifact_job/end")


class ArtifactJob:
    """The computation of one artifact of a result, by one worker at a time."""

    def __init__(self, summary: Summary, spec: ArtifactSpec):
        self.summary, self.spec = summary, spec
        self._mark = uuid4().hex
        self._progress = Artifact(ArtifactState.BEGUN)
        self._written: list[str] = []
        self._over = threading.Event()
        self._deadline = self._new_deadline()

    @staticmethod
    def _new_deadline() -> float:
        return time.monotonic() + settings().reading_seconds

    def report(self, done: int, total: int | None = None) -> None:
        """Sets the number of rows done. The next heartbeat publishes it.

        Raises:
            TookTooLong: the job has passed the time limit in the settings. engine.py enforces the limit during
                queries, and this method enforces it between them.
        """
        if time.monotonic() > self._deadline:
            raise TookTooLong
        self._progress = replace(self._progress, done=done, total=total)

    def write(self, name: str, chunks: Iterable[bytes]) -> int:
        """Writes a part of the artifact and returns its size in bytes. Readers see the part only after :meth:`end`.

        Raises:
            StorageFull: Redis has no room for it.
            redis.exceptions.RedisError: Redis is unavailable or refuses.
        """
        key = self._staged(name)
        self._written.append(name)
        store = connections().results
        size = 0
        remaining = int((self.summary.expires_at - ledger.now()).total_seconds() * 1000)
        # Register the key with the result, so that both are deleted together even if this worker dies.
        store.eval(_WRITE, 2, key, summaries.artifacts_key(self.summary.run), max(MIN_MILLISECONDS, remaining))
        for chunk in chunks:
            require_room(len(chunk))
            store.setrange(key, size, chunk)
            size += len(chunk)
        return size

    def _staged(self, name: str) -> str:
        return f"{key_of(self.summary, self.spec, name)}:{self._mark}"

    def _keys(self) -> list[str]:
        own = [key_of(self.summary, self.spec, name) for name in ("mark", STATE, "times")]
        return [*own, summaries.artifacts_key(self.summary.run)]

    def begin(self) -> int:
        """Claims the job.

        Returns:
            The number of this attempt, counted from 1; 0 if another worker has the job or the artifact is done.
        """
        mark, state, times, _ = self._keys()
        attempt: Any = connections().results.eval(
            _BEGIN,
            3,
            state,
            mark,
            times,
            self._progress.to_json(),
            HEARTBEAT_TIMEOUT,
            self._mark,
            HEARTBEAT_TIMEOUT * 10,
        )
        return int(attempt)

    def hold(self) -> bool:
        """Starts over after an outage: discards the written parts and renews the claim, which may have expired.

        Returns:
            False if another worker has the job or the artifact is done.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        self.discard()
        self._written.clear()
        self._progress = Artifact(ArtifactState.BEGUN)
        self._deadline = self._new_deadline()
        mark, state, *_ = self._keys()
        held = connections().results.eval(
            _HOLD, 2, mark, state, self._mark, self._progress.to_json(), HEARTBEAT_TIMEOUT
        )
        return bool(held)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Sends heartbeats while the context is active."""
        thread = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _send_heartbeats(self) -> None:
        # Send heartbeats more often while there is progress to show, so that people see it even in very short jobs.
        while not self._over.wait(0.5 if self._progress.total else HEARTBEAT_TIMEOUT / 4):
            try:
                self._publish_state(self._progress, HEARTBEAT_TIMEOUT)
            except RedisError as error:
                logger.warning("no heartbeat for %s: %s", self.spec.name, error)

    def _publish_state(self, artifact: Artifact, seconds: int) -> None:
        mark, state, *_ = self._keys()
        connections().results.eval(_SAY, 2, mark, state, self._mark, artifact.to_json(), seconds)

    def end(self, data: dict[str, Any], until: datetime | None = None) -> None:
        """Publishes the artifact with all its parts.

        Args:
            data: more information about the artifact.
            until: the time when the artifact expires. By default, and at the latest, it expires with the result.

        Raises:
            ResultGone: the result expired or was discarded in the meantime.
            redis.exceptions.RedisError: the artifact may not have been published.
        """
        result = result_store.find_run_result(self.summary.key, self.summary.task_id, self.summary.run)
        if result is None:
            self.discard()
            raise result_store.ResultGone(self.summary.key)
        expires_at = min(until or result.expires_at, result.expires_at)
        done = Artifact(ArtifactState.DONE, data=data, parts=self._written)
        arguments = {
            "state": done.to_json(),
            "parts": [(self._staged(name), key_of(self.summary, self.spec, name)) for name in self._written],
            "expires_at": _milliseconds(expires_at),
            "result_expires_at": _milliseconds(result.expires_at),
        }
        keys = self._keys()
        connections().results.eval(_END, len(keys), *keys, self._mark, json.dumps(arguments))

    def fail(self, message: str, seconds: int | None = None) -> None:
        """Publishes the reason why the artifact cannot be computed.

        Args:
            seconds: the time until the artifact may be requested again, by default ``FAILED_SECONDS``.

        Raises:
            redis.exceptions.RedisError: the failure may not have been published.
        """
        self.discard()
        remembered = FAILED_SECONDS if seconds is None else seconds
        self._publish_state(Artifact(ArtifactState.FAILED, message=message), remembered)

    def release(self) -> None:
        """Deletes the job, so that the next request starts a new one.

        Raises:
            redis.exceptions.RedisError: the job may still exist.
        """
        self.discard()
        mark, state, *_ = self._keys()
        connections().results.unlink(mark, state)

    def leave(self) -> None:
        """Gives up the claim without counting the attempt, so that the next request starts a new job.

        Raises:
            redis.exceptions.RedisError: the claim may still exist.
        """
        self.discard()
        connections().results.eval(_LEAVE, 3, *self._keys()[:3], self._mark)

    def discard(self) -> None:
        """Deletes the written parts.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        if self._written:
            connections().results.unlink(*(self._staged(name) for name in self._written))


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)

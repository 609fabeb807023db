"""What a worker does while it works something out: begins, says how far it is, writes, makes it seen, or says why not.

Of several workers one begins. It gives signs of life; when they stop, another one begins anew.
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
from worker_tasks.results import result_store
from worker_tasks.results.result_store import Summary

#: Seconds without a sign of life after which what a worker had begun counts as lost.
BEGUN_SECONDS = 12
#: Seconds that a failure is remembered before somebody may ask again; the same where there was no room just then.
FAILED_SECONDS, NO_ROOM_SECONDS = 120, 10
#: How often something is begun without coming to an end before it counts as failed.
MAX_TIMES = 3
#: Milliseconds that what is being written stays at least: written anew after its end it would stay for ever.
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
    """Something that is being worked out, by one worker at a time."""

    def __init__(self, summary: Summary, derivation: ArtifactSpec):
        self.summary, self.derivation = summary, derivation
        self._mark = uuid4().hex
        self._progress = Artifact(ArtifactState.BEGUN)
        self._written: list[str] = []
        self._over = threading.Event()
        self._until = self._limit()

    @staticmethod
    def _limit() -> float:
        return time.monotonic() + settings().reading_seconds

    def report(self, done: int, total: int | None = None) -> None:
        """Says how far it is; told to others at the next sign of life.

        Raises:
            TookTooLong: longer than the settings allow; a query is ended by engine.py, what is done beside them here.
        """
        if time.monotonic() > self._until:
            raise TookTooLong
        self._progress = replace(self._progress, done=done, total=total)

    def write(self, name: str, chunks: Iterable[bytes]) -> int:
        """Writes a part, seen by nobody before all is done; its size in bytes.

        Raises:
            StorageFull: Redis has no room for it.
            redis.exceptions.RedisError: Redis does not take it.
        """
        key = self._staged(name)
        self._written.append(name)
        store = connections().results
        size = 0
        left = max(MIN_MILLISECONDS, int((self.summary.expires_at - ledger.now()).total_seconds() * 1000))
        # Noted with the result, so that it goes with it even if this worker dies.
        store.eval(_WRITE, 2, key, result_store.artifacts_key(self.summary.run), left)
        for chunk in chunks:
            require_room(len(chunk))
            store.setrange(key, size, chunk)
            size += len(chunk)
        return size

    def _staged(self, name: str) -> str:
        return f"{key_of(self.summary, self.derivation, name)}:{self._mark}"

    def _keys(self) -> list[str]:
        own = [key_of(self.summary, self.derivation, name) for name in ("mark", STATE, "times")]
        return [*own, result_store.artifacts_key(self.summary.run)]

    def begin(self) -> int:
        """How often it was begun with this time; 0 where another worker is on it, or it is done."""
        keys = self._keys()[:3]
        began: Any = connections().results.eval(
            _BEGIN,
            3,
            keys[1],
            keys[0],
            keys[2],
            self._progress.to_json(),
            BEGUN_SECONDS,
            self._mark,
            BEGUN_SECONDS * 10,
        )
        return int(began)

    def hold(self) -> bool:
        """Makes way for a try from the start, and for signs of life that ran out while a server was away.

        Returns:
            False where it is done, or another worker is on it.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        self.discard()
        self._written.clear()
        self._progress = Artifact(ArtifactState.BEGUN)
        self._until = self._limit()
        mark, state, *_ = self._keys()
        held = connections().results.eval(_HOLD, 2, mark, state, self._mark, self._progress.to_json(), BEGUN_SECONDS)
        return bool(held)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Gives signs of life for as long as this is entered."""
        thread = threading.Thread(target=self._give_signs, name="sign of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _give_signs(self) -> None:
        # Soon at first and while something is told, so that what takes a second or two shows that it moves.
        while not self._over.wait(0.5 if self._progress.total else BEGUN_SECONDS / 4):
            try:
                self._say(self._progress, BEGUN_SECONDS)
            except RedisError as error:
                logger.warning("no sign of life of %s: %s", self.derivation.name, error)

    def _say(self, derived: Artifact, seconds: int) -> None:
        mark, state, *_ = self._keys()
        connections().results.eval(_SAY, 2, mark, state, self._mark, derived.to_json(), seconds)

    def end(self, data: dict[str, Any], until: datetime | None = None) -> None:
        """Makes all that was written seen, for as long as the result is there, or until an earlier instant.

        Raises:
            ResultGone: the result expired or was discarded meanwhile.
            redis.exceptions.RedisError: not known to be done.
        """
        result = result_store.find_run_result(self.summary.key, self.summary.task_id, self.summary.run)
        if result is None:
            self.discard()
            raise result_store.ResultGone(self.summary.key)
        last = min(until or result.expires_at, result.expires_at)
        done = Artifact(ArtifactState.DONE, data=data, parts=self._written)
        given = {
            "state": done.to_json(),
            "parts": [(self._staged(name), key_of(self.summary, self.derivation, name)) for name in self._written],
            "expires_at": _milliseconds(last),
            "result_expires_at": _milliseconds(result.expires_at),
        }
        keys = self._keys()
        connections().results.eval(_END, len(keys), *keys, self._mark, json.dumps(given))

    def fail(self, message: str, seconds: int | None = None) -> None:
        """Says why it cannot be worked out, for so many seconds.

        Raises:
            redis.exceptions.RedisError: not known to be said.
        """
        self.discard()
        self._say(Artifact(ArtifactState.FAILED, message=message), FAILED_SECONDS if seconds is None else seconds)

    def release(self) -> None:
        """Lets whoever asks next have it begun anew.

        Raises:
            redis.exceptions.RedisError: not known to be done.
        """
        self.discard()
        mark, state, *_ = self._keys()
        connections().results.unlink(mark, state)

    def leave(self) -> None:
        """Leaves it to whoever asks next, as if it had not been begun.

        Raises:
            redis.exceptions.RedisError: not known to be done.
        """
        self.discard()
        connections().results.eval(_LEAVE, 3, *self._keys()[:3], self._mark)

    def discard(self) -> None:
        """Deletes what was written.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        if self._written:
            connections().results.unlink(*(self._staged(name) for name in self._written))


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)

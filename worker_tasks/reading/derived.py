"""What is worked out from a result once, by a worker, and kept beside it: asked for, followed, found.

Nothing here is a task of its own: whoever looks at a result asks, and asks again as long as they look, so that what
died with its worker, or with its message, is begun anew. All keys end with the result they were made of, or before.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Self
from uuid import uuid4

from kombu.utils.encoding import ensure_bytes

from worker_tasks import ledger, results
from worker_tasks.celery_app import app
from worker_tasks.connections import connections
from worker_tasks.errors import REDIS_FAILURES
from worker_tasks.results import CHUNK_BYTES, Summary

#: Seconds until what no worker has begun is asked for once more.
ASKED_SECONDS = 30
#: Seconds without a sign of life after which what a worker had begun counts as lost.
BEGUN_SECONDS = 12
#: Seconds that a failure is remembered before somebody may ask again.
FAILED_SECONDS = 120
#: How often something is begun without coming to an end before it counts as failed.
MAX_TIMES = 3
#: Seconds between two looks of one who waits for it, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
GIVEN_UP = "It was begun several times, and each time its worker went away. It is not tried again for a while."

logger = logging.getLogger(__name__)

_ASK = """
local there = redis.call('GET', KEYS[1])
if there then return there end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
"""
_BEGIN = """
local there = redis.call('GET', KEYS[1])
if there then
  local state = cjson.decode(there).state
  if state ~= 'asked' then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
local times = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return times
"""
_WRITE = """
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('SADD', KEYS[2], KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
"""
_IF_MINE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n"
_SAY = f"""{_IF_MINE}
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_END = f"""{_IF_MINE}
for place = 5, #KEYS, 2 do
  redis.call('RENAME', KEYS[place], KEYS[place + 1])
  redis.call('PEXPIREAT', KEYS[place + 1], ARGV[3])
  redis.call('SADD', KEYS[4], KEYS[place + 1])
end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[3])
redis.call('SADD', KEYS[4], KEYS[2])
redis.call('PEXPIREAT', KEYS[4], ARGV[4])
redis.call('UNLINK', KEYS[1], KEYS[3])
return 1
"""


class Kind(StrEnum):
    """What can be derived from a result."""

    TABLE = "table"
    ORDER = "order"
    FILE = "file"
    COMPARISON = "comparison"


class State(StrEnum):
    ASKED = "asked"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Derivation:
    """What is to be worked out: the same ``options`` of the same kind are worked out once for a result."""

    kind: Kind
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        if not self.options:
            return str(self.kind)
        text = json.dumps(self.options, sort_keys=True)
        return f"{self.kind}.{hashlib.sha256(text.encode()).hexdigest()[:20]}"


#: The columns of a result, each in figures; its rows with typed values; and where each row is.
TABLE = Derivation(Kind.TABLE)


@dataclass(frozen=True)
class Derived:
    """How far it is: ``done`` of ``total`` rows while it is worked on, ``data`` when it is done, ``message`` if not."""

    state: State
    done: int = 0
    total: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None

    @property
    def is_done(self) -> bool:
        return self.state is State.DONE

    @property
    def is_under_way(self) -> bool:
        return self.state in {State.ASKED, State.BEGUN}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        read = json.loads(text)
        return cls(**read | {"state": State(read["state"])})


def _key(run: str, name: str, part: str = "state") -> str:
    return f"derived:{run}:{name}:{part}"


def key_of(summary: Summary, derivation: Derivation, name: str) -> str:
    """Where a part of what was derived is."""
    return _key(summary.run, derivation.name, name)


def ask(summary: Summary, derivation: Derivation) -> Derived:
    """How far this is; if nothing of it is there, a worker is told to begin.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis is away; nothing was asked for.
    """
    asked = Derived(State.ASKED)
    key = _key(summary.run, derivation.name)
    store = connections().results
    there = store.eval(_ASK, 1, key, asked.to_json(), ASKED_SECONDS)
    if there:
        return Derived.from_json(ensure_bytes(there))
    try:
        app.publish_derivation(summary.key, summary.task_id, summary.run, derivation.kind, derivation.options)
    except Exception:
        store.unlink(key)
        raise
    return asked


def find(summary: Summary, derivation: Derivation) -> Derived | None:
    """How far this is; None where nobody asked for it, or it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    there = connections().results.get(_key(summary.run, derivation.name))
    return None if there is None else Derived.from_json(ensure_bytes(there))


def part(summary: Summary, derivation: Derivation, name: str, start: int = 0, end: int = -1) -> bytes:
    """Some bytes of what was derived, ``end`` included; empty where it is gone.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return ensure_bytes(connections().results.getrange(key_of(summary, derivation, name), start, end))


def read_all(summary: Summary, derivation: Derivation, name: str, size: int) -> Iterator[bytes]:
    """A part of so many bytes, a chunk at a time.

    Raises:
        ResultGone: it expired meanwhile; what was read so far is not all.
        redis.exceptions.RedisError: Redis does not answer.
    """
    for start in range(0, size, CHUNK_BYTES):
        chunk = part(summary, derivation, name, start, start + CHUNK_BYTES - 1)
        if len(chunk) != min(CHUNK_BYTES, size - start):
            raise results.ResultGone(f"{summary.key}: {derivation.name}")
        yield chunk


class Work:
    """Something that is being worked out, by one worker at a time."""

    def __init__(self, summary: Summary, derivation: Derivation):
        self.summary, self.derivation = summary, derivation
        self._mark = uuid4().hex
        self._progress = Derived(State.BEGUN)
        self._written: list[str] = []
        self._over = threading.Event()

    def report(self, done: int, total: int | None = None) -> None:
        """Says how far it is; told to others at the next sign of life."""
        self._progress = replace(self._progress, done=done, total=total)

    def write(self, name: str, chunks: Iterable[bytes]) -> int:
        """Writes a part, seen by nobody before all is done; its size in bytes.

        Raises:
            redis.exceptions.RedisError: Redis does not take it.
        """
        key = self._staged(name)
        self._written.append(name)
        store = connections().results
        size = 0
        left = max(1, int((self.summary.expires_at - ledger.now()).total_seconds() * 1000))
        # Noted with the result, so that it goes with it even if this worker dies.
        store.eval(_WRITE, 2, key, results.derived_key(self.summary.run), left)
        for chunk in chunks:
            store.setrange(key, size, chunk)
            size += len(chunk)
        return size

    def _staged(self, name: str) -> str:
        return f"{_key(self.summary.run, self.derivation.name, name)}:{self._mark}"

    def _keys(self) -> list[str]:
        run, name = self.summary.run, self.derivation.name
        return [_key(run, name, "mark"), _key(run, name), _key(run, name, "times"), results.derived_key(run)]

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
            except REDIS_FAILURES as error:
                logger.warning("no sign of life of %s: %s", self.derivation.name, error)

    def _say(self, derived: Derived, seconds: int) -> None:
        mark, state, *_ = self._keys()
        connections().results.eval(_SAY, 2, mark, state, self._mark, derived.to_json(), seconds)

    def end(self, data: dict[str, Any], until: datetime | None = None) -> None:
        """Makes all that was written seen, for as long as the result is there, or until an earlier instant.

        Raises:
            ResultGone: the result expired or was discarded meanwhile.
            redis.exceptions.RedisError: not known to be done.
        """
        result = results.find_run(self.summary)
        if result is None:
            self.discard()
            raise results.ResultGone(self.summary.key)
        last = min(until or result.expires_at, result.expires_at)
        moved = [
            key
            for name in self._written
            for key in (self._staged(name), _key(self.summary.run, self.derivation.name, name))
        ]
        keys = [*self._keys(), *moved]
        done = Derived(State.DONE, data=data)
        connections().results.eval(
            _END, len(keys), *keys, self._mark, done.to_json(), _milliseconds(last), _milliseconds(result.expires_at)
        )

    def fail(self, message: str) -> None:
        """Says why it can not be worked out.

        Raises:
            redis.exceptions.RedisError: not known to be said.
        """
        self.discard()
        self._say(Derived(State.FAILED, message=message), FAILED_SECONDS)

    def give_back(self) -> None:
        """Lets whoever asks next have it begun anew.

        Raises:
            redis.exceptions.RedisError: not known to be done.
        """
        self.discard()
        mark, state, *_ = self._keys()
        connections().results.unlink(mark, state)

    def discard(self) -> None:
        """Deletes what was written.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        if self._written:
            connections().results.unlink(*(self._staged(name) for name in self._written))


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def follow(summary: Summary, derivation: Derivation, seconds: float) -> Derived:
    """Asks, and waits for it to be done for at most so many seconds.

    Raises:
        redis.exceptions.RedisError, kombu.exceptions.OperationalError: Redis is away.
    """
    until = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while (found := ask(summary, derivation)).is_under_way and (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE)
    return found

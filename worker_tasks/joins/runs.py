"""One run of a join, in Redis: which parts of it are under way or done, how far they are, whether it is to stop.

A run is one beginning of a task: its name has the attempt in it, so that nothing of an older one gets into it.
"""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from worker_tasks import errors
from worker_tasks.connections import connections
from worker_tasks.errors import DovetailError
from worker_tasks.staging import STAGING_SECONDS, Part

CANCELLED = "cancelled"

_OPEN = """
local stop = redis.call('HGET', KEYS[1], 'stop')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'parts', ARGV[2], 'began', redis.call('TIME')[1])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'total', ARGV[3]) end
if stop then redis.call('HSET', KEYS[1], 'stop', stop) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

_BEGIN = """
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return {'stale', 0, false} end
local before = redis.call('HGET', KEYS[1], 'part:' .. ARGV[2])
if before and before ~= 'begun' then return {'ended', 0, false} end
redis.call('HSET', KEYS[1], 'part:' .. ARGV[2], 'begun')
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {'begun', redis.call('HINCRBY', KEYS[1], 'begun:' .. ARGV[2], 1), redis.call('HGET', KEYS[1], 'stop')}
"""

_END = """
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 'stale' end
redis.call('HSET', KEYS[1], 'part:' .. ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
local ended, begun = 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  if string.sub(fields[at], 1, 5) == 'part:' then
    if fields[at + 1] == 'begun' then begun = begun + 1 else ended = ended + 1 end
  end
end
local stopping = redis.call('HEXISTS', KEYS[1], 'stop') == 1
if ended == tonumber(redis.call('HGET', KEYS[1], 'parts')) or (stopping and begun == 0) then return 'last' end
return 'ended'
"""

_ADVANCE = """
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return false end
redis.call('HSET', KEYS[1], 'rows:' .. ARGV[2], ARGV[3], 'size:' .. ARGV[2], ARGV[4])
return redis.call('HGETALL', KEYS[1])
"""

_STOP = """
redis.call('HSETNX', KEYS[1], 'stop', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
if redis.call('HEXISTS', KEYS[1], 'run') == 0 then return 'nothing' end
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  if value == 'begun' then return 'running' end
end
return 'idle'
"""


class Answer(StrEnum):
    """What was found when a part was begun or ended, or a run told to stop."""

    BEGUN = "begun"
    #: Of a part that is begun again: it had ended. Of one that ended: others go on.
    ENDED = "ended"
    #: It belongs to a run that another one has taken the place of.
    STALE = "stale"
    #: Nothing of the run is under way any more: whoever hears this finishes it.
    LAST = "last"
    #: Of a run told to stop: none was there; or some part of it is under way; or none is.
    NOTHING = "nothing"
    RUNNING = "running"
    IDLE = "idle"


@dataclass(frozen=True)
class State:
    """A run as it is now. ``parts`` holds what each ended part wrote, None for the others; ``began`` is a Unix time."""

    run: str
    parts: list[Part | None]
    rows: int
    size: int
    total: int | None
    stop: str | None
    began: float

    @property
    def rate(self) -> float:
        """Rows a second, from the beginning on."""
        return self.rows / max(time.time() - self.began, 1)


def _key(task_id: str) -> str:
    return f"join_run:{task_id}"


def name_of(task_id: str, attempt: int) -> str:
    return f"{task_id}.{attempt}"


class Begun(NamedTuple):
    """A part that was begun the ``times``-th time, of a run that is to ``stop``, and why, or not."""

    answer: Answer
    times: int
    stop: str | None


def open_run(task_id: str, run: str, parts: int, total: int | None) -> None:
    """Makes way for a new run of so many parts; a stop that was asked for meanwhile stays.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _call(_OPEN, task_id, run, parts, "" if total is None else total, STAGING_SECONDS)


def begin_part(task_id: str, run: str, number: int) -> Begun:
    answer, times, stop = _call(_BEGIN, task_id, run, number, STAGING_SECONDS)
    return Begun(Answer(bytes_to_str(answer)), times, None if stop is None else bytes_to_str(stop))


def end_part(task_id: str, run: str, number: int, part: Part) -> Answer:
    return Answer(bytes_to_str(_call(_END, task_id, run, number, part.to_json(), STAGING_SECONDS)))


def ask_to_stop(task_id: str, reason: str = CANCELLED) -> Answer:
    """The first reason counts."""
    return Answer(bytes_to_str(_call(_STOP, task_id, reason, STAGING_SECONDS)))


def _call(script: str, task_id: str, *arguments: Any) -> Any:
    return connections().results.eval(script, 1, _key(task_id), *arguments)


def advance(task_id: str, run: str, number: int, rows: int, size: int) -> State | None:
    """Notes how far a part is; how far all of them are, None where this run is no longer the task's.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = _call(_ADVANCE, task_id, run, number, rows, size)
    return _state(found) if found else None


def find(task_id: str) -> State | None:
    """The newest run of a task; None where there was none for hours.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = connections().results.hgetall(_key(task_id))
    if b"run" not in found:
        return None
    return _state([ensure_bytes(text) for pair in found.items() for text in pair])


def _state(flat: list[bytes]) -> State:
    """From field names and values in turn."""
    texts = [bytes_to_str(text) for text in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    numbers = range(int(fields["parts"]))
    parts = [fields.get(f"part:{number}", "begun") for number in numbers]
    return State(
        run=fields["run"],
        parts=[None if text == "begun" else Part.from_json(text) for text in parts],
        rows=sum(int(fields.get(f"rows:{number}", 0)) for number in numbers),
        size=sum(int(fields.get(f"size:{number}", 0)) for number in numbers),
        total=int(fields["total"]) if "total" in fields else None,
        stop=fields.get("stop"),
        began=float(fields["began"]),
    )


def forget(task_id: str, *more: str) -> None:
    """Deletes what is known of a task's run, and these keys as well.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.unlink(_key(task_id), *more)


def failure_to_text(failure: DovetailError) -> str:
    """A failure as the reason of a stop."""
    return json.dumps([type(failure).__name__, str(failure)])


def failure_from_text(reason: str) -> DovetailError:
    name, message = json.loads(reason)
    failure: DovetailError = getattr(errors, name)(message)
    return failure

"""One run of a join, in Redis: which parts of it are under way or done, how far they are, whether it is to stop.

A run is one beginning of a task: its name has the attempt in it, so nothing of an older one gets into it. A part
belongs to the writer that began it last, until one has ended it: what another writer says of it is not heard. The rows
that a writer has sent are deleted in the step that takes its place from it, so none are left of which nothing is known.
"""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from worker_tasks.infra import errors, lua_scripts
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import DovetailError
from worker_tasks.results.result_writer import STAGING_SECONDS, Part, new_writer, part_key

CANCELLED = "cancelled"
#: Where the ids of all tasks are of which a run is known.
ALL_RUNS = "join_tasks"
#: Seconds within which a task that was claimed opens its run: planning a join takes as long at most.
NEXT_RUN_SECONDS = 120

_OPEN = lua_scripts.load("run_state/open")
_BEGIN = lua_scripts.load("run_state/begin")
_LEAVE = lua_scripts.load("run_state/if_the_writers", "run_state/leave")
_END = lua_scripts.load("run_state/if_the_writers", "run_state/end")
_ADVANCE = lua_scripts.load("run_state/if_the_writers", "run_state/advance")
_NOTE_WHOLE = lua_scripts.load("run_state/note_whole")
_FORGET = lua_scripts.load("run_state/forget")
_STOP = lua_scripts.load("run_state/stop")


class Answer(StrEnum):
    """What was found when a part was begun or ended, or a run told to stop."""

    BEGUN = "begun"
    #: Of a part that is begun again: it had ended. Of one that ended: others go on.
    ENDED = "ended"
    #: It belongs to a newer run, or the part to a newer writer.
    STALE = "stale"
    #: It was this writer's, and can be begun again.
    LEFT = "left"
    #: Nothing of the run is under way any more: the caller finishes it.
    LAST = "last"
    #: Of a run told to stop: there is none; or some part of it is under way; or none is.
    NOTHING = "nothing"
    RUNNING = "running"
    IDLE = "idle"


@dataclass(frozen=True)
class Breakage:
    """How MongoDB broke a part off, though it was there right after.

    ``error`` is the driver's error by its code or name; ``rows`` had been read by then; ``asked`` documents were asked
    for next; ``times`` counts such ends of this part.
    """

    error: str
    rows: int
    requested: int
    times: int = 1

    @classmethod
    def from_json(cls, text: str) -> Self:
        stored = json.loads(text)
        return cls(stored["error"], stored["rows"], stored["asked"], stored["times"])

    def to_json(self) -> str:
        stored = {"error": self.error, "rows": self.rows, "asked": self.requested, "times": self.times}
        return json.dumps(stored)


@dataclass(frozen=True)
class RunState:
    """A run as it is now. ``parts`` holds what each ended part wrote, None for the others; ``began`` is a Unix time.

    ``writers`` names who writes or wrote each part that was begun.
    """

    run: str
    parts: list[Part | None]
    writers: dict[int, str]
    rows: int
    size: int
    total: int | None
    stop: str | None
    started_at: float

    @property
    def rate(self) -> float:
        """Rows a second, from the beginning on."""
        return self.rows / max(time.time() - self.started_at, 1)

    @property
    def first_key(self) -> str | None:
        """Where the first rows are, if there are any."""
        return part_key(self.run, 0, self.writers[0]) if 0 in self.writers else None


def key_of(task_id: str) -> str:
    """Where the newest run of a task is noted."""
    return f"join_run:{task_id}"


def _cancellation_key(task_id: str) -> str:
    return f"cancelled_before_it_ran:{task_id}"


def name_of(task_id: str, attempt: int) -> str:
    return f"{task_id}.{attempt}"


class Writer(NamedTuple):
    """One beginning of one part, by a ``name`` that no other has."""

    task_id: str
    run: str
    number: int
    name: str

    @property
    def key(self) -> str:
        """Where it writes its rows."""
        return part_key(self.run, self.number, self.name)


class PartStart(NamedTuple):
    """What came of beginning a part, for the ``times``-th time.

    ``before`` is the writer whose place this one has taken, if there was one; ``stop`` the reason why the run is to
    stop, if it is; ``broke`` what broke the part off before.
    """

    answer: Answer
    writer: Writer
    tries: int = 0
    previous: Writer | None = None
    stop: str | None = None
    breakage: Breakage | None = None


def open_run(task_id: str, run: str, parts: int, total: int | None) -> bool:
    """Makes way for a new run of so many parts, and deletes what the one before it has written.

    Returns:
        False where a newer run is there already.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    arguments: list[Any] = [run, parts, "" if total is None else total, STAGING_SECONDS, task_id, CANCELLED]
    keys = [key_of(task_id), ALL_RUNS, _cancellation_key(task_id)]
    found: Any = connections().results.eval(_OPEN, len(keys), *keys, *arguments)
    return found is not None


def begin_part(task_id: str, run: str, number: int, again: str = "") -> PartStart:
    """Makes the caller the writer of a part.

    Args:
        again: the name that the caller has written this part by before. It may only begin it again if no other writer
            has begun it since.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    writer = Writer(task_id, run, number, new_writer())
    answer, *found = _of_writer(_BEGIN, writer, STAGING_SECONDS, again)
    if not found:
        return PartStart(Answer(bytes_to_str(answer)), writer)
    times, *texts = found
    before, stop, broke = map(bytes_to_str, texts)
    return PartStart(
        Answer.BEGUN,
        writer,
        times,
        writer._replace(name=before) if before else None,
        stop or None,
        Breakage.from_json(broke) if broke else None,
    )


def leave_part(writer: Writer, broke: Breakage | None = None) -> Answer:
    """Gives up a part that is to be begun again, which does not count as one that took its worker down.

    Returns:
        STALE where the part is another writer's by now.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_of_writer(_LEAVE, writer, broke.to_json() if broke else "")))


def end_part(writer: Writer, part: Part) -> Answer:
    """Ends a part; the end of a writer whose place another has taken is not heard.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_of_writer(_END, writer, part.to_json(), STAGING_SECONDS)))


def advance(writer: Writer, rows: int, size: int) -> RunState | None:
    """Notes how far a part is; how far all of them are, None where the part is no longer this writer's.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = _of_writer(_ADVANCE, writer, rows, size)
    return _state(found) if isinstance(found, list) else None


def _of_writer(script: str, writer: Writer, *arguments: Any) -> Any:
    return _call(script, writer.task_id, writer.run, writer.number, writer.name, *arguments)


def request_stop(task_id: str, reason: str = CANCELLED, run: str | None = None) -> Answer:
    """Tells a run to stop, if it is ``run`` where that is named. The first reason counts.

    Where no run is there yet, the next one that begins within ``NEXT_RUN_SECONDS`` is cancelled.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    keys = [key_of(task_id), _cancellation_key(task_id)]
    return Answer(
        bytes_to_str(connections().results.eval(_STOP, len(keys), *keys, reason, run or "", NEXT_RUN_SECONDS))
    )


def _call(script: str, task_id: str, *arguments: Any) -> Any:
    return connections().results.eval(script, 1, key_of(task_id), *arguments)


def find_run(task_id: str) -> RunState | None:
    """The newest run of a task; None where there was none for hours.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found = connections().results.hgetall(key_of(task_id))
    if b"run" not in found:
        return None
    return _state([ensure_bytes(text) for pair in found.items() for text in pair])


def _state(flat: list[bytes]) -> RunState:
    """From field names and values in turn."""
    texts = [bytes_to_str(text) for text in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    numbers = range(int(fields["parts"]))
    parts = [fields.get(f"part:{number}", "begun") for number in numbers]
    return RunState(
        run=fields["run"],
        parts=[None if text == "begun" else Part.from_json(text) for text in parts],
        writers={number: fields[f"writer:{number}"] for number in numbers if f"writer:{number}" in fields},
        rows=sum(int(fields.get(f"rows:{number}", 0)) for number in numbers),
        size=sum(int(fields.get(f"size:{number}", 0)) for number in numbers),
        total=int(fields["total"]) if "total" in fields else None,
        stop=fields.get("stop"),
        started_at=float(fields["began"]),
    )


def note_whole(task_id: str, run: str, name: str) -> None:
    """Notes under which name the parts are put together, so that it is found if that comes to no end.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _call(_NOTE_WHOLE, task_id, run, name)


def forget_run(task_id: str, run: str, plan_key: str) -> None:
    """Deletes what is known of a run, with its plan, unless a newer one has taken its place.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.eval(_FORGET, 3, key_of(task_id), plan_key, ALL_RUNS, run, task_id)


def all_tasks() -> list[str]:
    """The ids of all tasks of which a run is known.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    found: Any = connections().results.smembers(ALL_RUNS)
    return sorted(map(bytes_to_str, found))


def failure_to_text(failure: DovetailError) -> str:
    """A failure as the reason of a stop."""
    return json.dumps([failure.code, failure.args])


def failure_from_text(reason: str) -> DovetailError:
    """The failure that was written as this reason."""
    code, details = json.loads(reason)
    return errors.rebuild_error(code, *details)

"""The state of a join's run in Redis: its active and finished parts, their progress, and whether to stop.

A run is one attempt at a task. Its name contains the attempt's number, so that older attempts cannot change it. A part
belongs to the writer that began it last; calls by earlier writers change nothing. The step that takes a part from a
writer also deletes the rows of that writer, so that no unknown rows are left behind.
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
#: The set of the ids of all tasks with a run.
ALL_RUNS = "join_tasks"
#: Seconds within which a claimed task opens its run: the longest time that planning a join takes.
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
    """The result of beginning, leaving or ending a part, or of stopping a run."""

    BEGUN = "begun"
    #: From begin_part: the part has already ended. From end_part: it ended, and other parts are still active.
    ENDED = "ended"
    #: The task has a newer run, or the part a newer writer.
    STALE = "stale"
    #: The writer gave up the part, and any writer may begin it again.
    LEFT = "left"
    #: The part ended, and no other is active: the caller finishes the run.
    LAST = "last"
    #: From request_stop: there is no such run.
    NOTHING = "nothing"
    #: From request_stop: a part is active, and the last part to end finishes the run.
    RUNNING = "running"
    #: From request_stop: no part is active, so the caller finishes the run.
    IDLE = "idle"


@dataclass(frozen=True)
class Breakage:
    """The way in which MongoDB ended a part early although it was available right afterwards.

    ``error`` is the code of MongoDB's error, or the name of the driver's; ``rows`` were read before it; ``requested``
    is the size of the batch that failed; ``times`` counts the breakages of this part.
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
    """A snapshot of a run.

    ``parts`` has an entry for each part, None until it has ended. ``writers`` names the latest writer of each part that
    was begun. ``rows`` and ``size`` (in bytes) are sums over all parts, ``total`` is the estimated number of rows,
    ``stop`` the reason to stop, and ``started_at`` a Unix time in seconds.
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
        """The average number of rows per second."""
        return self.rows / max(time.time() - self.started_at, 1)

    @property
    def first_key(self) -> str | None:
        """The Redis key of the first part's rows; None until a writer begins the part."""
        return part_key(self.run, 0, self.writers[0]) if 0 in self.writers else None


def key_of(task_id: str) -> str:
    """The Redis key of a task's newest run."""
    return f"join_run:{task_id}"


def _cancellation_key(task_id: str) -> str:
    return f"cancelled_before_it_ran:{task_id}"


def name_of(task_id: str, attempt: int) -> str:
    """The name of the run that an attempt at a task starts."""
    return f"{task_id}.{attempt}"


class Writer(NamedTuple):
    """One writer of a part. Its ``name`` is unique."""

    task_id: str
    run: str
    number: int
    name: str

    @property
    def key(self) -> str:
        """The Redis key of the rows it writes."""
        return part_key(self.run, self.number, self.name)


class PartStart(NamedTuple):
    """The result of beginning a part.

    ``tries`` counts the starts of the part, including this one. ``previous`` is the writer that lost the part to
    this one, ``stop`` the reason to stop the run, and ``breakage`` the way in which MongoDB last ended the part.
    """

    answer: Answer
    writer: Writer
    tries: int = 0
    previous: Writer | None = None
    stop: str | None = None
    breakage: Breakage | None = None


def open_run(task_id: str, run: str, parts: int, total: int | None) -> bool:
    """Opens a new run with a number of parts and deletes the rows of the task's previous run.

    Args:
        total: the estimated number of rows, if known.

    Returns:
        False if the task already has a newer run.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    arguments: list[Any] = [run, parts, "" if total is None else total, STAGING_SECONDS, task_id, CANCELLED]
    keys = [key_of(task_id), ALL_RUNS, _cancellation_key(task_id)]
    opened: Any = connections().results.eval(_OPEN, len(keys), *keys, *arguments)
    return opened is not None


def begin_part(task_id: str, run: str, number: int, last_name: str = "") -> PartStart:
    """Makes the caller the writer of a part.

    Args:
        last_name: the caller's writer name in its previous try. The caller gets the part only if no other writer has
            begun it since.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    writer = Writer(task_id, run, number, new_writer())
    answer, *details = _call_as_writer(_BEGIN, writer, STAGING_SECONDS, last_name)
    if not details:
        return PartStart(Answer(bytes_to_str(answer)), writer)
    tries, *texts = details
    previous, stop, breakage = map(bytes_to_str, texts)
    return PartStart(
        Answer.BEGUN,
        writer,
        tries,
        writer._replace(name=previous) if previous else None,
        stop or None,
        Breakage.from_json(breakage) if breakage else None,
    )


def leave_part(writer: Writer, breakage: Breakage | None = None) -> Answer:
    """Gives up a part so that any writer can begin it again. The next try does not count as one after a worker's death.

    Returns:
        LEFT, or STALE if another writer has taken over the part.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_call_as_writer(_LEAVE, writer, breakage.to_json() if breakage else "")))


def end_part(writer: Writer, part: Part) -> Answer:
    """Ends a part.

    Returns:
        ENDED, LAST, or STALE if another writer has taken over the part: then nothing changes.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_call_as_writer(_END, writer, part.to_json(), STAGING_SECONDS)))


def advance(writer: Writer, rows: int, size: int) -> RunState | None:
    """Records the numbers of rows and bytes of a part so far.

    Returns:
        The state of the whole run; None if another writer has taken over the part.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    fields = _call_as_writer(_ADVANCE, writer, rows, size)
    return _state(fields) if isinstance(fields, list) else None


def _call_as_writer(script: str, writer: Writer, *arguments: Any) -> Any:
    return _call(script, writer.task_id, writer.run, writer.number, writer.name, *arguments)


def request_stop(task_id: str, reason: str = CANCELLED, run: str | None = None) -> Answer:
    """Tells a task's run to stop, or only the run named ``run``. The first reason given to a run counts.

    If the task has no run yet and ``run`` is None, the next run to open within ``NEXT_RUN_SECONDS`` is cancelled.

    Returns:
        NOTHING, RUNNING or IDLE.

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
    """The newest run of a task; None if there is none or it expired.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    fields = connections().results.hgetall(key_of(task_id))
    if b"run" not in fields:
        return None
    return _state([ensure_bytes(text) for pair in fields.items() for text in pair])


def _state(flat: list[bytes]) -> RunState:
    """Builds a RunState from alternating field names and values."""
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
    """Records the writer of the assembled result, so that its leftovers can be deleted if it never finishes.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _call(_NOTE_WHOLE, task_id, run, name)


def forget_run(task_id: str, run: str, plan_key: str) -> None:
    """Deletes a run with its plan and its leftover rows, unless the task has a newer run.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    connections().results.eval(_FORGET, 3, key_of(task_id), plan_key, ALL_RUNS, run, task_id)


def all_tasks() -> list[str]:
    """The ids of all tasks with a run, sorted.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    task_ids: Any = connections().results.smembers(ALL_RUNS)
    return sorted(map(bytes_to_str, task_ids))


def failure_to_text(failure: DovetailError) -> str:
    """Writes a failure as the reason to stop a run."""
    return json.dumps([failure.code, failure.args])


def failure_from_text(reason: str) -> DovetailError:
    """Reads a failure from a reason written by :func:`failure_to_text`."""
    code, details = json.loads(reason)
    return errors.rebuild_error(code, *details)

"""Stores the state of a join's run in Redis: its parts, their progress, and requests to stop.

Each attempt at a task is a separate run. The run's name contains the attempt number, so a late call from an older
attempt cannot change a newer run. A part belongs to the writer that began it last, and calls from earlier writers have
no effect. The script that takes a part away from a writer also deletes that writer's rows.
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
#: If a task is cancelled before it opens a run, the cancellation applies to a run opened within this many seconds.
#: Planning a join takes at most this long.
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
    """The answer to a request to begin, leave or end a part, or to stop a run."""

    BEGUN = "begun"
    #: From begin_part: the part had already ended. From end_part: the part ended, but the run has not.
    ENDED = "ended"
    #: The caller is outdated, because the task has a newer run or the part has a newer writer.
    STALE = "stale"
    #: The writer gave up the part. Any writer can begin it again.
    LEFT = "left"
    #: All parts have ended, or the run is stopping and its last active part has ended. The caller must finish the run.
    LAST = "last"
    #: From request_stop: the run does not exist.
    NOTHING = "nothing"
    #: From request_stop: a part is active. The worker that ends the last active part finishes the run.
    RUNNING = "running"
    #: From request_stop: no part is active, so the caller must finish the run.
    IDLE = "idle"


@dataclass(frozen=True)
class Breakage:
    """An error that interrupted a part although MongoDB was still reachable.

    Attributes:
        error: MongoDB's error code, or the name of the driver's exception if there is no code.
        rows: the number of rows read before the error.
        requested: the number of rows requested in the batch that failed.
        times: how many times this part has been interrupted.
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

    Attributes:
        parts: one entry for each part, which is None until the part has ended.
        writers: the latest writer of each part, keyed by the number of the part.
        rows, size: the number of rows and of bytes written so far, over all parts.
        total: the estimated number of rows in the result; None if unknown.
        stop: the reason to stop; None if the run should continue.
        started_at: a Unix time in seconds.
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
        """The Redis key with the rows of the first part; None if no writer has begun that part yet."""
        return part_key(self.run, 0, self.writers[0]) if 0 in self.writers else None


def key_of(task_id: str) -> str:
    """The Redis key of a task's newest run."""
    return f"join_run:{task_id}"


def _cancellation_key(task_id: str) -> str:
    return f"cancelled_before_it_ran:{task_id}"


def name_of(task_id: str, attempt: int) -> str:
    """The name of the run for an attempt at a task."""
    return f"{task_id}.{attempt}"


class Writer(NamedTuple):
    """A writer of one part. Each attempt at a part has a writer with a unique ``name``."""

    task_id: str
    run: str
    number: int
    name: str

    @property
    def key(self) -> str:
        """The Redis key for the writer's rows."""
        return part_key(self.run, self.number, self.name)


class PartStart(NamedTuple):
    """The result of beginning a part.

    Attributes:
        tries: the number of attempts at the part so far, including this one.
        previous: the writer that had the part before, if any.
        stop: the reason to stop the run, if any.
        breakage: the last error that interrupted the part, if any.
    """

    answer: Answer
    writer: Writer
    tries: int = 0
    previous: Writer | None = None
    stop: str | None = None
    breakage: Breakage | None = None


def open_run(task_id: str, run: str, parts: int, total: int | None) -> bool:
    """Opens a run with this number of parts, and deletes the rows of the task's previous run.

    Args:
        total: the estimated number of rows; None if unknown.

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
        last_name: the name of the caller's writer in its previous try, if any. If another writer has begun the part
            since then, the answer is STALE.

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
    """Gives up a part so that any writer can begin it again. The attempt is not counted.

    Returns:
        LEFT, or STALE if another writer has taken over the part.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_call_as_writer(_LEAVE, writer, breakage.to_json() if breakage else "")))


def end_part(writer: Writer, part: Part) -> Answer:
    """Records that a part has ended.

    Returns:
        ENDED or LAST; STALE if another writer has taken over the part, in which case nothing changes.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    return Answer(bytes_to_str(_call_as_writer(_END, writer, part.to_json(), STAGING_SECONDS)))


def advance(writer: Writer, rows: int, size: int) -> RunState | None:
    """Records how many rows and bytes of a part have been written so far.

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
    """Tells the run of a task to stop. A run that is already stopping keeps its first reason.

    If the task has no run yet and ``run`` is None, the next run that it opens within ``NEXT_RUN_SECONDS`` is cancelled.

    Args:
        run: the name of the run to stop; None for whichever run the task has.

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
    """The newest run of a task; None if the task has no run or the run has expired.

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
    """Records the name of the writer that joins the parts, so that its rows can be deleted if it never finishes.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    _call(_NOTE_WHOLE, task_id, run, name)


def forget_run(task_id: str, run: str, plan_key: str) -> None:
    """Deletes a run, its plan and its leftover rows, unless the task has a newer run.

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
    """Serializes a failure as the reason to stop a run."""
    return json.dumps([failure.code, failure.args])


def failure_from_text(reason: str) -> DovetailError:
    """Parses the text from :func:`failure_to_text`."""
    code, details = json.loads(reason)
    return errors.rebuild_error(code, *details)

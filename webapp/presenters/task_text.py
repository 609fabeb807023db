"""A task document as text, percentages and times. Pure: no I/O."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import humanize

from webapp.presenters.join_text import describe_join
from webapp.presenters.value_text import (
    Document,
    format_duration,
    format_instant,
    format_seconds,
    format_size,
)
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.records import states
from worker_tasks.records.ledger import FINAL_STATES
from worker_tasks.records.live import Progress
from worker_tasks.records.metadata import text_of
from worker_tasks.results.retention import Fate


@dataclass(frozen=True)
class StateText:
    """The text for a state: a ``name`` for API clients, and a ``label`` and ``sentence`` for people."""

    name: str
    label: str
    sentence: str


#: The text for each stored state. A waiting task is stored as PENDING, because Celery's revoke knows only Celery's
#: states. It is shown as QUEUED, because in Celery PENDING also means "unknown task".
STATE_TEXTS = {
    states.PENDING: StateText("QUEUED", "Queued", "Waiting for a worker to take it."),
    states.RECEIVED: StateText("RECEIVED", "Received", "A worker has it and will begin soon."),
    states.STARTED: StateText("STARTED", "Running", "A worker is on it."),
    states.RETRY: StateText("RETRY", "Trying again", "It met trouble and will be tried again by itself."),
    states.SUCCESS: StateText("SUCCESS", "Done", "It came to its end."),
    states.FAILURE: StateText("FAILURE", "Failed", "It ended with an error."),
    states.REVOKED: StateText("REVOKED", "Cancelled", "It was cancelled; nothing of it runs."),
}

#: The metadata key for the name of the saved join that the task ran.
SAVED_JOIN = "saved_join"
#: The names of the tasks that can be cancelled while they run.
JOINS = frozenset({"worker_tasks.tasks.join_users_orders", "worker_tasks.tasks.run_join"})

#: The maximum length of an error message on the page. The traceback has the full text.
MESSAGE_LENGTH = 300

#: Pairs of seconds. If the last event is no older than the first number, a page polls at the interval of the second.
POLL_SECONDS = ((30, 1), (120, 2), (600, 5))
SLOWEST_POLL_SECONDS = 15

#: Why a result is no longer in Redis.
FATE_SENTENCES = {
    Fate.DISCARDED: "This result was discarded by hand.",
    Fate.EXPIRED: "The result expired.",
    Fate.REPLACED: "A newer run of the same join took the place of this result.",
    Fate.LOST: "Redis lost this result before it expired.",
    Fate.GONE: "The result is no longer there.",
}


def describe_state(status: str) -> StateText:
    return STATE_TEXTS.get(status, StateText(status, status.capitalize(), ""))


def stored_state(name: str) -> str:
    """The stored state for the name that API clients use.

    Raises:
        InvalidInput: no state has this name.
    """
    for stored, text in STATE_TEXTS.items():
        if text.name == name:
            return stored
    raise InvalidInput({"status": f"must be one of {', '.join(text.name for text in STATE_TEXTS.values())}."})


def describe_task(task: Document) -> str:
    """The title of a task: ``Orders of user u1``, the saved join's name, or a phrase for its join."""
    argument = next(iter([*task["args"], *task["kwargs"].values()]), "")
    argument = argument if isinstance(argument, str) else json.dumps(argument, default=str)
    if task["name"] == "worker_tasks.tasks.join_users_orders":
        return f"Orders of user {argument}"
    if task.get("join"):
        saved = task["metadata"].get(SAVED_JOIN)
        return saved if isinstance(saved, str) and saved else describe_join(task["join"])
    if task["name"] == "worker_tasks.tasks.long_running_task":
        return f"Practice task: {argument}"
    return task["name"] or "A task of unknown name"


def can_be_cancelled(task: Document) -> bool:
    """Whether a task can be cancelled. Any task can while it waits; a join can also be cancelled while it runs."""
    if is_final(task) or task["cancel_requested"]:
        return False
    return task["status"] == states.PENDING or task["name"] in JOINS


def decode_result(task: Document) -> Any:
    """The return value of a task, ``{"type", "message"}`` of its error, or None while there is neither."""
    stored = json.loads(task["result"])
    if task["status"] in {states.FAILURE, states.RETRY} and isinstance(stored, dict):
        message = _format_error(stored.get("exc_message"))
        return {"type": stored.get("exc_type"), "message": message or stored.get("exc_type")}
    return stored if task["status"] == states.SUCCESS else None


def _format_error(exc_message: Any) -> str:
    """The message for the stored arguments of an exception, which are texts or a dict of messages by field."""
    parts = exc_message if isinstance(exc_message, list | tuple) else [exc_message]
    texts = [str(InvalidInput(part)) if isinstance(part, dict) else str(part) for part in parts]
    return " ".join(texts)[:MESSAGE_LENGTH]


def join_outcome(task: Document) -> tuple[str, int] | None:
    """The Redis key and the number of documents of a finished join. None for any other task."""
    outcome = decode_result(task)
    if task["status"] == states.SUCCESS and isinstance(outcome, dict) and "redis_key" in outcome:
        return outcome["redis_key"], outcome["count"]
    return None


def describe_status(task: Document) -> str:
    """The sentence beside the label of a task's state."""
    if (outcome := join_outcome(task)) is not None:
        count = outcome[1]
        if count == 0:
            return "Nothing was found: 0 rows."
        return f"{humanize.intcomma(count)} {'row' if count == 1 else 'rows'} joined."
    if task["status"] == states.FAILURE:
        return decode_result(task)["message"]
    return describe_state(task["status"]).sentence


def poll_seconds(task: Document, now: datetime) -> int:
    """Seconds until the page polls again. The pause grows with the time since the last event."""
    quiet = (now - task["timeline"][-1]["at"]).total_seconds()
    return next((wait for limit, wait in POLL_SECONDS if quiet < limit), SLOWEST_POLL_SECONDS)


def is_final(task: Document) -> bool:
    return task["status"] in FINAL_STATES


def describe_waiting(before: int, usual_seconds: float | None, slots: int) -> str:
    """The position of a waiting task in its queue and the estimated wait.

    Args:
        before: the number of tasks before it.
        usual_seconds: the average run time of recent tasks, None if unknown.
        slots: the number of tasks that all workers run at once.
    """
    if slots == 0:
        return "No worker is there just now; it begins as soon as one is."
    if before == 0:
        return "It is the next one."
    position = f"{humanize.intcomma(before)} {'task is' if before == 1 else 'tasks are'} before it"
    if usual_seconds is None:
        return f"{position}."
    return f"{position}: it should begin in about {format_seconds(before * usual_seconds / slots)}."


def describe_pace(progress: Progress) -> str:
    """The known parts of ``, 12,000 rows a second, 3.2 MB, 4 s left``, to be appended to the progress."""
    parts = []
    if progress.rate:
        parts.append(f"{humanize.intcomma(round(progress.rate))} {progress.unit} a second")
    if progress.size:
        parts.append(format_size(progress.size))
    if progress.seconds_left:
        parts.append(f"{format_seconds(progress.seconds_left)} left")
    return "".join(f", {part}" for part in parts)


def describe_progress(progress: Progress) -> str:
    """Progress and pace, such as ``4,000 of 12,000 rows, 33 %``; if the total is unknown, ``4,000 rows so far``."""
    done = f"{progress.done:,}"
    if progress.total:
        return f"{done} of {progress.total:,} {progress.unit}, {percent(progress)} %{describe_pace(progress)}"
    return f"{done} {progress.unit} so far{describe_pace(progress)}"


def page_title(task: Document, progress: Progress | None) -> str:
    """The title of the tab. It begins with the state or percentage, because a tab is narrow."""
    label = describe_state(task["status"]).label
    if progress is not None and progress.total and not is_final(task):
        label = f"{percent(progress)} %"
    return f"{label} · {describe_task(task)} · Dovetail"


#: The icon of the tab by state.
ICONS = {
    states.SUCCESS: "icon-done.svg",
    states.FAILURE: "icon-failed.svg",
    states.REVOKED: "icon-cancelled.svg",
    states.PENDING: "icon-waiting.svg",
}


def icon_of(task: Document) -> str:
    return ICONS.get(task["status"], "icon-running.svg")


def format_run_time(task: Document) -> str:
    """The run time of a finished task; an empty string for any other."""
    if task["started_at"] is None or task["date_done"] is None:
        return ""
    return format_duration(task["date_done"] - task["started_at"])


def percent(progress: Progress) -> int:
    return min(100, progress.done * 100 // max(1, progress.total or 1))


def metadata_rows(task: Document) -> list[tuple[str, str]]:
    """The metadata as pairs of key and text."""
    return [(key, text_of(value)) for key, value in task["metadata"].items()]


def describe_timeline(task: Document) -> list[Document]:
    """The events of a task, oldest first: dicts of ``label``, ``note``, ``at`` (an instant) and ``when`` (text).

    ``when`` is an instant for the first event, and the time since the first one for the others.
    """
    entries: list[Document] = []
    first = task["timeline"][0]["at"] if task["timeline"] else None
    for event in task["timeline"]:
        entries.append(
            {
                "label": describe_state(event["status"]).label,
                "note": event["note"],
                "at": event["at"],
                "when": f"after {format_duration(event['at'] - first)}" if entries else format_instant(event["at"]),
            }
        )
    return entries


#: Fields of the task document that API clients do not see.
INTERNAL = ("leads", "version", "revision", "labels")


def as_json(task: Document) -> Document:
    """The task document for API clients, with ISO 8601 instants, the displayed state and the decoded result."""
    shown = {field: value.isoformat() if isinstance(value, datetime) else value for field, value in task.items()}
    shown["status"] = describe_state(task["status"]).name
    shown["result"] = decode_result(task)
    for field in INTERNAL:
        shown.pop(field, None)
    shown["timeline"] = [
        {**event, "at": event["at"].isoformat(), "status": describe_state(event["status"]).name}
        for event in task["timeline"]
    ]
    return shown

"""From task document to words, percent and times. Pure: no I/O."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import humanize
from celery import states

from worker_tasks.errors import InvalidInput
from worker_tasks.ledger import FINAL_STATES
from worker_tasks.live import Progress

Document = dict[str, Any]


@dataclass(frozen=True)
class StateWords:
    """How a state is shown: its ``name`` to programs, its ``label`` and ``sentence`` to people."""

    name: str
    label: str
    sentence: str


#: The one place where a stored state becomes a shown one. A task that waits is stored as PENDING, because
#: Celery's revoke knows only its own states, and shown as QUEUED, because PENDING also means "never heard of".
STATE_WORDS = {
    states.PENDING: StateWords("QUEUED", "Queued", "Waiting for a worker to take it."),
    states.RECEIVED: StateWords("RECEIVED", "Received", "A worker has it and will begin soon."),
    states.STARTED: StateWords("STARTED", "Running", "A worker is on it."),
    states.RETRY: StateWords("RETRY", "Trying again", "It met trouble and will be tried again by itself."),
    states.SUCCESS: StateWords("SUCCESS", "Done", "It came to its end."),
    states.FAILURE: StateWords("FAILURE", "Failed", "It ended with an error."),
    states.REVOKED: StateWords("REVOKED", "Cancelled", "It was cancelled; nothing of it runs."),
}

#: The tasks that can be stopped while they run.
JOINS = frozenset({"worker_tasks.tasks.join_users_orders", "worker_tasks.tasks.run_join"})
MINUTE_SECONDS = 60
#: Characters of an error that are shown; its traceback has the rest.
MESSAGE_LENGTH = 300
#: Seconds between two polls, by the seconds that a task has been seen in its state.
POLL_SECONDS = ((30, 1), (120, 2), (600, 5))
SLOWEST_POLL_SECONDS = 15


def state_words(status: str) -> StateWords:
    return STATE_WORDS.get(status, StateWords(status, status.capitalize(), ""))


def stored_state(name: str) -> str:
    """The stored state of one that is shown under this name.

    Raises:
        InvalidInput: there is no such state.
    """
    for stored, words in STATE_WORDS.items():
        if words.name == name:
            return stored
    raise InvalidInput({"status": f"must be one of {', '.join(words.name for words in STATE_WORDS.values())}."})


def sentence(task: Document) -> str:
    """What was asked, in a few words."""
    asked = next(iter([*task["args"], *task["kwargs"].values()]), "")
    asked = asked if isinstance(asked, str) else json.dumps(asked, default=str)
    if task["name"] == "worker_tasks.tasks.join_users_orders":
        return f"Orders of user {asked}"
    if task.get("join"):
        return join_sentence(task["join"])
    if task["name"] == "worker_tasks.tasks.long_running_task":
        return f"Practice task: {asked}"
    return task["name"] or "A task of unknown name"


#: How each kind of join is said between two collections.
KIND_WORDS = {
    "left": "{left} with their {other}",
    "inner": "{left} that have {other}, with them",
    "semi": "{left} that have {other}",
    "anti": "{left} without {other}",
    "outer": "All of {left} and {other}",
}


def join_sentence(join: Document) -> str:
    """A JoinSpec in a few words."""
    words = join["from"]
    for each in join["joins"]:
        words = KIND_WORDS[each.get("kind", "left")].format(left=words, other=each["from"])
    return words[0].upper() + words[1:]


def can_be_cancelled(task: Document) -> bool:
    """A waiting task, and a join at any time; another task that runs is not stopped by anything."""
    if is_final(task) or task["cancel_requested"]:
        return False
    return task["status"] == states.PENDING or task["name"] in JOINS


def returned(task: Document) -> Any:
    """What the task returned, or ``{"type", "message"}`` of what it failed with, or None."""
    stored = json.loads(task["result"])
    if task["status"] in {states.FAILURE, states.RETRY} and isinstance(stored, dict):
        message = _message(stored.get("exc_message"))
        return {"type": stored.get("exc_type"), "message": message or stored.get("exc_type")}
    return stored if task["status"] == states.SUCCESS else None


def _message(exc_message: Any) -> str:
    """Celery stores an exception's arguments: most often one text, or what is wrong with each field."""
    parts = exc_message if isinstance(exc_message, list | tuple) else [exc_message]
    words = [str(InvalidInput(part)) if isinstance(part, dict) else str(part) for part in parts]
    return " ".join(words)[:MESSAGE_LENGTH]


def join_outcome(task: Document) -> tuple[str, int] | None:
    """The Redis key and the number of documents of a finished join; None for any other task."""
    outcome = returned(task)
    if task["status"] == states.SUCCESS and isinstance(outcome, dict) and "redis_key" in outcome:
        return outcome["redis_key"], outcome["count"]
    return None


def status_line(task: Document) -> str:
    """What the state means for the person, in one sentence beside its label."""
    if (outcome := join_outcome(task)) is not None:
        count = outcome[1]
        if count == 0:
            return "Nothing was found: 0 rows."
        return f"{humanize.intcomma(count)} {'row' if count == 1 else 'rows'} joined."
    if task["status"] == states.FAILURE:
        return returned(task)["message"]
    return state_words(task["status"]).sentence


def poll_seconds(task: Document, now: datetime) -> int:
    """How long the page should wait before it asks again: the longer nothing happened, the longer."""
    quiet = (now - task["timeline"][-1]["at"]).total_seconds()
    return next((wait for limit, wait in POLL_SECONDS if quiet < limit), SLOWEST_POLL_SECONDS)


def is_final(task: Document) -> bool:
    return task["status"] in FINAL_STATES


def percent(progress: Progress) -> int:
    return min(100, progress.done * 100 // max(1, progress.total or 1))


def metadata_rows(task: Document) -> list[tuple[str, str]]:
    """The metadata as keys and readable values."""
    return [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
        for key, value in task["metadata"].items()
    ]


def timeline(task: Document) -> list[Document]:
    """What happened, oldest first: label, note, instant, and the time since the entry before."""
    entries = []
    before: datetime | None = None
    for event in task["timeline"]:
        entries.append(
            {
                "label": state_words(event["status"]).label,
                "note": event["note"],
                "at": event["at"],
                "after": None if before is None else event["at"] - before,
            }
        )
        before = event["at"]
    return entries


#: Fields of the task document that are nobody's business.
INTERNAL = ("leads", "version", "revision")


def as_json(task: Document) -> Document:
    """The task document for programs: instants as ISO 8601, the state as shown, the result decoded."""
    shown = {field: value.isoformat() if isinstance(value, datetime) else value for field, value in task.items()}
    shown["status"] = state_words(task["status"]).name
    shown["result"] = returned(task)
    for field in INTERNAL:
        shown.pop(field, None)
    shown["timeline"] = [
        {**event, "at": event["at"].isoformat(), "status": state_words(event["status"]).name}
        for event in task["timeline"]
    ]
    return shown


def ago(instant: datetime) -> str:
    """``2 minutes ago`` or ``in 4 minutes``."""
    span = datetime.now(UTC) - instant
    words = humanize.naturaldelta(span)
    if words == "a moment":
        return "now"
    return f"{words} ago" if span > timedelta() else f"in {words}"


def is_past(instant: datetime) -> bool:
    return instant < datetime.now(UTC)


def exactly(instant: datetime) -> str:
    """``2026-11-20 22:15:03 UTC``."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(span: timedelta) -> str:
    """``42 ms``, ``3.2 s``, ``1 minute and 5 seconds``."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < MINUTE_SECONDS:
        return f"{seconds:.1f} s"
    return humanize.precisedelta(span, minimum_unit="seconds", format="%d")


def size(number_of_bytes: int) -> str:
    return humanize.naturalsize(number_of_bytes, binary=True)


def bson_value(value: Any) -> Any:
    """A value of relaxed Extended JSON as a person reads it: ``{"$date": …}`` is an instant, and so on."""
    if isinstance(value, dict) and len(value) == 1:
        (kind, inner), *_ = value.items()
        if kind == "$date" and isinstance(inner, str):
            return inner.replace("T", " ").replace("Z", " UTC")
        if kind in {"$oid", "$numberDecimal", "$numberDouble", "$numberLong"}:
            return inner
    return value


def columns_of(documents: list[Document]) -> list[str]:
    """Every field of these documents, in the order in which they are first seen."""
    return list(dict.fromkeys(field for document in documents for field in document))

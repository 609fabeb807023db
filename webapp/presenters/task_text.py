"""From task document to words, percent and times. Pure: no I/O."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import humanize

from webapp.presenters.join_text import describe_join, repeats_rows
from webapp.presenters.value_text import (
    Document,
    format_about,
    format_about_size,
    format_duration,
    format_instant,
    format_seconds,
    format_share,
    format_size,
)
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.records import states
from worker_tasks.records.ledger import FINAL_STATES
from worker_tasks.records.live import Progress
from worker_tasks.records.metadata import text_of
from worker_tasks.results.retention import Fate


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

#: The key of the metadata that names the saved join that was run.
SAVED_JOIN = "saved_join"
#: The tasks that can be stopped while they run.
JOINS = frozenset({"worker_tasks.tasks.join_users_orders", "worker_tasks.tasks.run_join"})

#: Characters of an error that are shown; its traceback has the rest.
MESSAGE_LENGTH = 300

#: Seconds between two polls, by the seconds that a task has been seen in its state.
POLL_SECONDS = ((30, 1), (120, 2), (600, 5))

SLOWEST_POLL_SECONDS = 15

#: Why a result is not in Redis any more, in a sentence.
FATE_WORDS = {
    Fate.DISCARDED: "This result was discarded by hand.",
    Fate.EXPIRED: "The result expired.",
    Fate.REPLACED: "A newer run of the same join took the place of this result.",
    Fate.LOST: "Redis lost this result before it expired.",
    Fate.GONE: "The result is no longer there.",
}


def describe_state(status: str) -> StateWords:
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


def describe_task(task: Document) -> str:
    """What was asked, in a few words."""
    asked = next(iter([*task["args"], *task["kwargs"].values()]), "")
    asked = asked if isinstance(asked, str) else json.dumps(asked, default=str)
    if task["name"] == "worker_tasks.tasks.join_users_orders":
        return f"Orders of user {asked}"
    if task.get("join"):
        saved = task["metadata"].get(SAVED_JOIN)
        return saved if isinstance(saved, str) and saved else describe_join(task["join"])
    if task["name"] == "worker_tasks.tasks.long_running_task":
        return f"Practice task: {asked}"
    return task["name"] or "A task of unknown name"


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
    return describe_state(task["status"]).sentence


def poll_seconds(task: Document, now: datetime) -> int:
    """How long the page should wait before it asks again: the longer nothing happened, the longer."""
    quiet = (now - task["timeline"][-1]["at"]).total_seconds()
    return next((wait for limit, wait in POLL_SECONDS if quiet < limit), SLOWEST_POLL_SECONDS)


def is_final(task: Document) -> bool:
    return task["status"] in FINAL_STATES


def describe_waiting(before: int, usual_seconds: float | None, slots: int) -> str:
    """Where a waiting task is in its queue, and about when it will be begun."""
    if slots == 0:
        return "No worker is there just now; it begins as soon as one is."
    if before == 0:
        return "It is the next one."
    place = f"{humanize.intcomma(before)} {'task is' if before == 1 else 'tasks are'} before it"
    if usual_seconds is None:
        return f"{place}."
    return f"{place}: it should begin in about {format_seconds(before * usual_seconds / slots)}."


def describe_pace(progress: Progress) -> str:
    """``, 12,000 rows a second, 3.2 MB, 4 s left``: what is known of it, behind how far it is."""
    words = []
    if progress.rate:
        words.append(f"{humanize.intcomma(round(progress.rate))} {progress.unit} a second")
    if progress.size:
        words.append(format_size(progress.size))
    if progress.seconds_left:
        words.append(f"{format_seconds(progress.seconds_left)} left")
    return "".join(f", {each}" for each in words)


def progress_words(progress: Progress) -> str:
    """``4,000 of 12,000 rows, 33 %`` and its pace; where the end is unknown, how far it has come."""
    done = f"{progress.done:,}"
    if progress.total:
        return f"{done} of {progress.total:,} {progress.unit}, {percent(progress)} %{describe_pace(progress)}"
    return f"{done} {progress.unit} so far{describe_pace(progress)}"


def page_title(task: Document, progress: Progress | None) -> str:
    """What the tab says: the state first, because a tab is narrow."""
    label = describe_state(task["status"]).label
    if progress is not None and progress.total and not is_final(task):
        label = f"{percent(progress)} %"
    return f"{label} · {describe_task(task)} · Dovetail"


#: The icon of the tab, by the state.
ICONS = {
    states.SUCCESS: "icon-done.svg",
    states.FAILURE: "icon-failed.svg",
    states.REVOKED: "icon-cancelled.svg",
    states.PENDING: "icon-waiting.svg",
}


def icon_of(task: Document) -> str:
    return ICONS.get(task["status"], "icon-running.svg")


def cancel_receipt(task: Document) -> list[tuple[str, str]]:
    """What became of a cancelled task, line by line."""
    if task["status"] != states.REVOKED or not task.get("cancel_requested_at"):
        return []
    lines = [("Asked", format_instant(task["cancel_requested_at"]))]
    lines.append(("Stopped", f"after {format_duration(task['date_done'] - task['cancel_requested_at'])}"))
    if task["attempt"] == 0:
        lines.append(("Left running in MongoDB", "nothing: it had not begun"))
    elif task.get("left_in_mongodb") is not None:
        left = task["left_in_mongodb"]
        lines.append(
            ("Left running in MongoDB", f"{left} operations, as MongoDB says" if left else "nothing, as MongoDB says")
        )
    if (partial := task.get("partial")) is not None:
        lines.append(("Kept", f"the {partial['count']:,} rows that were joined, as a partial result"))
    elif task.get("join"):
        lines.append(("Kept", "nothing: no row was joined yet"))
    return lines


def actual_vs_expected(task: Document) -> list[Document]:
    """What a finished join brought: label, what came, what was expected."""
    outcome = join_outcome(task)
    if outcome is None:
        return []
    expected = (task.get("checks") or {}).get("expected") or {}
    lines = [_came("Rows", outcome[1], expected.get("rows"), humanize.intcomma, format_about)]
    if task.get("result_bytes") is not None:
        lines.append(_came("Size", task["result_bytes"], expected.get("bytes"), format_size, format_about_size))
    if task["started_at"] is not None and task["date_done"] is not None:
        took = (task["date_done"] - task["started_at"]).total_seconds()
        lines.append(_came("Time", took, expected.get("seconds"), format_seconds, format_seconds))
    lines += _matched(task, outcome[1], expected.get("rates") or [])
    if task["worker"]:
        lines.append({"label": "Worker", "came": task["worker"], "expected": ""})
    lines.append({"label": "Computed", "came": _computed(task), "expected": ""})
    if (plan := task.get("plan")) and plan["steps"]:
        lines.append({"label": "How", "came": ", then ".join(step["way"] for step in plan["steps"]), "expected": ""})
    return lines


def _came(label: str, came: Any, expected: Any, words: Any, expected_words: Any) -> Document:
    return {
        "label": label,
        "came": words(came),
        "expected": "" if expected is None else f"about {expected_words(expected)}",
    }


def _matched(task: Document, rows: int, rates: list[float | None]) -> list[Document]:
    """The share of rows that found a match, of each join that keeps those that did not."""
    lines = []
    for number, join in enumerate((task.get("join") or {}).get("joins", [])):
        unmatched = (task.get("unmatched") or {}).get(join.get("as", ""))
        if unmatched is None or not rows:
            continue
        rate = rates[number] if number < len(rates) else None
        if repeats_rows(join):
            # A row for each match: their number says nothing of how many of the left side have one.
            came = f"{humanize.intcomma(unmatched)} found none"
            lines.append({"label": f"Match in {join['from']}", "came": came, "expected": ""})
            continue
        came = f"{format_share(1 - unmatched / rows)}; {humanize.intcomma(unmatched)} rows found none"
        expected = "" if rate is None else f"about {format_share(rate)}"
        lines.append({"label": f"Match in {join['from']}", "came": came, "expected": expected})
    return lines


def _computed(task: Document) -> str:
    if not task.get("shares"):
        parts = (task.get("plan") or {}).get("parts", 1)
        return "by this task" if parts == 1 else f"by this task, in {parts} parts"
    if task["attempt"]:
        return "by this task"
    return f"by the run of task {task['shares'][:8]}, which asked the same"


def took_words(task: Document) -> str:
    """How long a finished task has run; empty for any other."""
    if task["started_at"] is None or task["date_done"] is None:
        return ""
    return format_duration(task["date_done"] - task["started_at"])


def percent(progress: Progress) -> int:
    return min(100, progress.done * 100 // max(1, progress.total or 1))


def metadata_rows(task: Document) -> list[tuple[str, str]]:
    """The metadata as keys and readable values."""
    return [(key, text_of(value)) for key, value in task["metadata"].items()]


def timeline(task: Document) -> list[Document]:
    """What happened, oldest first: label, note, instant, and in words when: at first, and how long after that."""
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


#: Fields of the task document that are nobody's business.
INTERNAL = ("leads", "version", "revision", "labels")


def as_json(task: Document) -> Document:
    """The task document for programs: instants as ISO 8601, the state as shown, the result decoded."""
    shown = {field: value.isoformat() if isinstance(value, datetime) else value for field, value in task.items()}
    shown["status"] = describe_state(task["status"]).name
    shown["result"] = returned(task)
    for field in INTERNAL:
        shown.pop(field, None)
    shown["timeline"] = [
        {**event, "at": event["at"].isoformat(), "status": describe_state(event["status"]).name}
        for event in task["timeline"]
    ]
    return shown

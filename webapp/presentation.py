"""From task document to words, percent and times. Pure: no I/O."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import humanize
from celery import states

from worker_tasks.errors import InvalidInput
from worker_tasks.joins import findings
from worker_tasks.joins.sampling import kind_of
from worker_tasks.ledger import FINAL_STATES
from worker_tasks.live import Progress
from worker_tasks.metadata import text_of

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
    words, with_them = join["from"], []
    for each in join["joins"]:
        kind = each.get("kind", "left")
        if kind == "left":
            with_them.append(each["from"])
        else:
            words = KIND_WORDS[kind].format(left=words, other=each["from"])
    if with_them:
        listed = " and ".join(filter(None, [", ".join(with_them[:-1]), with_them[-1]]))
        words = KIND_WORDS["left"].format(left=words, other=listed)
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


def waiting_words(before: int, usual_seconds: float | None, slots: int) -> str:
    """Where a waiting task is in its queue, and about when it will be begun."""
    if slots == 0:
        return "No worker is there just now; it begins as soon as one is."
    if before == 0:
        return "It is the next one."
    place = f"{humanize.intcomma(before)} {'task is' if before == 1 else 'tasks are'} before it"
    if usual_seconds is None:
        return f"{place}."
    return f"{place}: it should begin in about {seconds(before * usual_seconds / slots)}."


def pace(progress: Progress) -> str:
    """``, 12,000 rows a second, 3.2 MB, 4 s left``: what is known of it, behind how far it is."""
    words = []
    if progress.rate:
        words.append(f"{humanize.intcomma(round(progress.rate))} {progress.unit} a second")
    if progress.size:
        words.append(size(progress.size))
    if progress.seconds_left:
        words.append(f"{seconds(progress.seconds_left)} left")
    return "".join(f", {each}" for each in words)


def page_title(task: Document, progress: Progress | None) -> str:
    """What the tab says: the state first, because a tab is narrow."""
    label = state_words(task["status"]).label
    if progress is not None and progress.total and not is_final(task):
        label = f"{percent(progress)} %"
    return f"{label} · {sentence(task)} · Dovetail"


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
    lines = [("Asked", exactly(task["cancel_requested_at"]))]
    lines.append(("Stopped", f"after {duration(task['date_done'] - task['cancel_requested_at'])}"))
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


def what_came(task: Document) -> list[Document]:
    """What a finished join brought: label, what came, what was expected."""
    outcome = join_outcome(task)
    if outcome is None:
        return []
    expected = (task.get("checks") or {}).get("expected") or {}
    lines = [_came("Rows", outcome[1], expected.get("rows"), humanize.intcomma, about)]
    if task.get("result_bytes") is not None:
        lines.append(_came("Size", task["result_bytes"], expected.get("bytes"), size, size))
    if task["started_at"] is not None and task["date_done"] is not None:
        took = (task["date_done"] - task["started_at"]).total_seconds()
        lines.append(_came("Time", took, expected.get("seconds"), seconds, seconds))
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
        came = f"{share(1 - unmatched / rows)}; {humanize.intcomma(unmatched)} rows found none"
        expected = "" if rate is None else f"about {share(rate)}"
        lines.append({"label": f"Match in {join['from']}", "came": came, "expected": expected})
    return lines


def _computed(task: Document) -> str:
    if not task.get("shares"):
        parts = (task.get("plan") or {}).get("parts", 1)
        return "by this task" if parts == 1 else f"by this task, in {parts} parts"
    if task["attempt"]:
        return "by this task"
    return f"by the run of task {task['shares'][:8]}, which asked the same"


def join_lines(join: Document) -> list[tuple[str, str]]:
    """A JoinSpec in words, line by line."""
    lines = [("From", f"{join['database']}.{join['from']}")]
    lines += _side_lines(join)
    for each in join["joins"]:
        pairs = " and ".join(_pair_words(pair) for pair in each["on"])
        lines.append(
            ("Join", f"{KIND_WORDS[each.get('kind', 'left')].format(left='rows', other=each['from'])}, where {pairs}")
        )
        if "as" in each:
            lines.append(("Into", f"{each['as']}: {SHAPE_WORDS[each.get('shape', 'array')]}"))
        lines += _side_lines(each)
    return lines


SHAPE_WORDS = {
    "array": "all matches in a list",
    "rows": "one row for each match",
    "first": "the first match",
    "count": "how many there are",
}


def _pair_words(pair: Document) -> str:
    local = f"{pair['local']} as {pair['cast']}" if pair.get("cast") else pair["local"]
    return f"{local} = {pair['foreign']}"


def _side_lines(side: Document) -> list[tuple[str, str]]:
    lines = []
    if side.get("match"):
        lines.append(("Only where", json.dumps(side["match"], ensure_ascii=False)))
    if side.get("fields"):
        lines.append(("Fields", ", ".join(side["fields"])))
    if side.get("sort"):
        lines.append(("Order", ", ".join(f"{field} {'up' if way == 1 else 'down'}" for field, way in side["sort"])))
    if side.get("limit"):
        lines.append(("At most", humanize.intcomma(side["limit"])))
    return lines


def percent(progress: Progress) -> int:
    return min(100, progress.done * 100 // max(1, progress.total or 1))


def metadata_rows(task: Document) -> list[tuple[str, str]]:
    """The metadata as keys and readable values."""
    return [(key, text_of(value)) for key, value in task["metadata"].items()]


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


def share(part: float) -> str:
    """``83 %``; never 0 or 100 for what is only nearly so."""
    return findings.percent(part)


def about(number: int) -> str:
    """A number that was estimated, to two figures: ``340,000``."""
    digits = len(str(number))
    return humanize.intcomma(round(number, 2 - digits) if digits > 2 else number)  # noqa: PLR2004 - figures


def seconds(number: float) -> str:
    return duration(timedelta(seconds=number))


def as_curl(join: Document, root: str) -> str:
    """The call of the API that asks for this join, of the web application at ``root``."""
    body = json.dumps({"join": join, "metadata": {}}, ensure_ascii=False, indent=2).replace("'", "'\\''")
    return f"curl -X POST {root}api/v1/joins -H 'Content-Type: application/json' -d '{body}'"


def pairs_as_json(suggestion: Any) -> str:
    """The pairs of a suggestion, as the builder's buttons carry them."""
    return json.dumps([[pair.local, pair.foreign, pair.cast] for pair in suggestion.pairs])


def input_mode(row: Any, found: Any) -> str:
    """The keys that a phone should show for the value of a condition."""
    written = row.type.data or ("number" if found is not None and kind_of(found.main_type) == "number" else "")
    return "decimal" if written in {"number", "decimal"} else "text"


def wrong(field: Any, hint: str) -> dict[str, str]:
    """The attributes that tie a field to what is said about it."""
    said = [f"{field.id}-hint"] if hint else []
    if not field.errors:
        return {"aria-describedby": said[0]} if said else {}
    return {"aria-invalid": "true", "aria-describedby": " ".join([*said, f"{field.id}-errors"])}


def kind_words(kind: str, left: str, other: str) -> str:
    """A kind of join, said with the names of its collections."""
    words = KIND_WORDS[kind].format(left=left or "the left side", other=other or "the other side")
    return words[0].upper() + words[1:]


def joined_columns(documents: list[Document], join: Document) -> list[str]:
    """The columns of a preview: first what was matched by, and what was brought in."""
    joins = join["joins"]
    first = [pair["local"].partition(".")[0] for each in joins for pair in each["on"]]
    first += [each["as"] for each in joins if "as" in each]
    columns = columns_of(documents)
    return list(dict.fromkeys([*(name for name in first if name in columns), *columns]))


def columns_of(documents: list[Document]) -> list[str]:
    """Every field of these documents, in the order in which they are first seen."""
    return list(dict.fromkeys(field for document in documents for field in document))

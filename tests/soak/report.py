"""Writes the report of a soak, which is a JSON summary and a file with one defect per line."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.soak.checks import Defect
from tests.soak.data import Document
from tests.soak.faults import RECOVERS_WITHIN, Conductor
from tests.soak.ledger import Ledger, Reply

#: The number of defects of each kind in the summary; the file has all of them.
EXAMPLES = 5


def attach_faults(defects: Sequence[Defect], conductor: Conductor, ledger: Ledger) -> None:
    """Adds to each defect of a task the faults during its life and shortly before it."""
    for defect in defects:
        if defect.document is None or defect.document.get("queued_at") is None:
            continue
        queued_at = defect.document["queued_at"].timestamp()
        ended_at = ledger.ended_at.get(defect.document["_id"], math.inf)
        near = conductor.during(queued_at, ended_at, RECOVERS_WITHIN)
        defect.faults = [f"{_clock(each.began)} {each.fault.describe()}" for each in near]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds % 86_400, 60)
    return f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{rest:06.3f}"


def summary(
    options: Document,
    ledger: Ledger,
    conductor: Conductor,
    tasks: Sequence[Document],
    defects: Sequence[Defect],
    **more: Any,
) -> Document:
    """Returns the counts of everything that happened, and examples of the defects."""
    submissions = ledger.submissions
    return {
        **options,
        "defects": len(defects),
        "defects_by_kind": dict(Counter(defect.title for defect in defects)),
        "submitted": len(submissions),
        "answers": {str(status): count for status, count in Counter(each.status for each in submissions).items()},
        "submitted_by_kind": dict(Counter(each.kind for each in submissions)),
        "states": dict(Counter(task["status"] for task in tasks)),
        "attempts": {
            str(number): count for number, count in sorted(Counter(task["attempt"] for task in tasks).items())
        },
        "shared_runs": sum(bool(task.get("shares")) for task in tasks),
        "in_parts": sum((task.get("plan") or {}).get("parts", 1) > 1 for task in tasks),
        "cancels": {
            str(status): count for status, count in Counter(s for each in submissions for s in each.cancels).items()
        },
        "patches": {
            str(status): count
            for status, count in Counter(p.status for each in submissions for p in each.patches).items()
        },
        "requests": len(ledger.replies),
        "recounted_results": ledger.recounted,
        "pages_read": ledger.pages_read,
        "slowest": slowest(ledger.replies),
        "unexplained_refusals": unexplained_refusals(ledger.replies, conductor),
        "faults": dict(Counter(each.fault.action for each in conductor.injected)),
        **more,
        "examples": examples(defects),
    }


def slowest(replies: Sequence[Reply]) -> Document:
    """Returns the slowest response of each status, with its duration and request."""
    slowest_replies: dict[str, Reply] = {}
    for reply in replies:
        name = f"{reply.status}{' of a sorted page' if 'sort=' in reply.path else ''}"
        if name not in slowest_replies or reply.seconds > slowest_replies[name].seconds:
            slowest_replies[name] = reply
    return {name: f"{each.seconds:.2f} s, {each.method} {each.path}" for name, each in sorted(slowest_replies.items())}


def unexplained_refusals(replies: Sequence[Reply], conductor: Conductor) -> int:
    """Counts the 503 responses without a fault during the request or shortly before."""
    refused = [reply for reply in replies if reply.status == 503 and "sort=" not in reply.path]
    return sum(not conductor.during(each.at, each.at + each.seconds, RECOVERS_WITHIN) for each in refused)


def examples(defects: Sequence[Defect]) -> list[Document]:
    """Returns the first defects of each kind, without their long fields."""
    counts: Counter[str] = Counter()
    shown = []
    for defect in defects:
        counts[defect.title] += 1
        if counts[defect.title] <= EXAMPLES:
            full = defect.to_document()
            shown.append({name: value for name, value in full.items() if name not in {"join", "metadata", "plan"}})
    return shown


def memory(samples: Mapping[str, Sequence[int]], first: int = 3) -> dict[str, dict[str, int]]:
    """Returns the memory of each process in MiB: soon after its start, at the end, and the maximum."""
    shown = {}
    for name, values in samples.items():
        settled = [value for value in values[first:] if value] or [value for value in values if value]
        if settled:
            shown[name] = {"before": settled[0], "after": settled[-1], "max": max(settled)}
    return shown


def write(folder: Path, summary: Document, defects: Sequence[Defect], conductor: Conductor) -> None:
    """Writes summary.json, defects.jsonl and faults.jsonl into the folder."""
    (folder / "summary.json").write_text(as_json(summary, indent=1))
    with (folder / "defects.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(as_json(defect.to_document()) + "\n" for defect in defects)
    with (folder / "faults.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(as_json(each.to_document()) + "\n" for each in conductor.injected)


def as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, default=str, ensure_ascii=False)

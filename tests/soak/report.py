"""What a soak found, as one JSON document, and as lines of defects to look into."""

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

#: Defects of one kind that the summary tells in full; the file has all.
EXAMPLES = 5


def with_faults(defects: Sequence[Defect], conductor: Conductor, ledger: Ledger) -> None:
    """Notes with each defect of a task the faults between its submission and its end, and shortly before."""
    for defect in defects:
        if defect.document is None or defect.document.get("queued_at") is None:
            continue
        queued_at = defect.document["queued_at"].timestamp()
        ended_at = ledger.ended_at.get(defect.document["_id"], math.inf)
        near = conductor.during(queued_at, ended_at, RECOVERS_WITHIN)
        defect.faults = [f"{_clock(each.began)} {each.fault.words()}" for each in near]


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
    """Everything in figures, and some of the defects."""
    asked = ledger.asked
    return {
        **options,
        "defects": len(defects),
        "defects_by_kind": dict(Counter(defect.what for defect in defects)),
        "asked": len(asked),
        "answers": {str(status): count for status, count in Counter(each.status for each in asked).items()},
        "asked_by_kind": dict(Counter(each.kind for each in asked)),
        "states": dict(Counter(task["status"] for task in tasks)),
        "attempts": {
            str(number): count for number, count in sorted(Counter(task["attempt"] for task in tasks).items())
        },
        "shared_runs": sum(bool(task.get("shares")) for task in tasks),
        "in_parts": sum((task.get("plan") or {}).get("parts", 1) > 1 for task in tasks),
        "cancels": {str(status): count for status, count in Counter(s for each in asked for s in each.cancels).items()},
        "patches": {
            str(status): count for status, count in Counter(p.status for each in asked for p in each.patches).items()
        },
        "requests": len(ledger.replies),
        "recounted_results": ledger.recounted,
        "pages_read": ledger.pages_read,
        "slowest": slowest(ledger.replies),
        "unavailable_without_a_fault": without_a_fault(ledger.replies, conductor),
        "faults": dict(Counter(each.fault.what for each in conductor.happened)),
        **more,
        "examples": examples(defects),
    }


def slowest(replies: Sequence[Reply]) -> Document:
    """The slowest answer of each status, in seconds, and what it answered."""
    found: dict[str, Reply] = {}
    for reply in replies:
        name = f"{reply.status}{' of a sorted page' if 'sort=' in reply.path else ''}"
        if name not in found or reply.seconds > found[name].seconds:
            found[name] = reply
    return {name: f"{each.seconds:.2f} s, {each.method} {each.path}" for name, each in sorted(found.items())}


def without_a_fault(replies: Sequence[Reply], conductor: Conductor) -> int:
    """How many were told 503 though nothing was wrong at that time, nor shortly before."""
    refused = [reply for reply in replies if reply.status == 503 and "sort=" not in reply.path]
    return sum(not conductor.during(each.at, each.at + each.seconds, RECOVERS_WITHIN) for each in refused)


def examples(defects: Sequence[Defect]) -> list[Document]:
    told: Counter[str] = Counter()
    shown = []
    for defect in defects:
        told[defect.what] += 1
        if told[defect.what] <= EXAMPLES:
            full = defect.to_document()
            shown.append({name: value for name, value in full.items() if name not in {"join", "metadata", "plan"}})
    return shown


def memory(samples: Mapping[str, Sequence[int]], first: int = 3) -> dict[str, dict[str, int]]:
    """MiB of each process: soon after its start, at the end, and at most."""
    shown = {}
    for name, values in samples.items():
        settled = [value for value in values[first:] if value] or [value for value in values if value]
        if settled:
            shown[name] = {"before": settled[0], "after": settled[-1], "most": max(settled)}
    return shown


def write(folder: Path, found: Document, defects: Sequence[Defect], conductor: Conductor) -> None:
    """Puts everything into the folder: summary.json, defects.jsonl, faults.jsonl."""
    (folder / "summary.json").write_text(as_json(found, indent=1))
    with (folder / "defects.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(as_json(defect.to_document()) + "\n" for defect in defects)
    with (folder / "faults.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(as_json(each.to_document()) + "\n" for each in conductor.happened)


def as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, default=str, ensure_ascii=False)

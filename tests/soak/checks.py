"""Whether everything is as promised: what was asked and told, beside the documents and results that there are."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak import data
from tests.soak.data import Answer, Document
from tests.soak.faults import RECOVERS_WITHIN, Happened
from tests.soak.ledger import Asked, Reply
from tests.soak.stack import VISIBILITY_SECONDS

FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
#: Seconds after which an answer is a defect; what a worker has to make first may take longer.
ANSWERED_WITHIN, MADE_WITHIN = 8.0, 25.0

#: What the names of the soak's workers end with.
OF_WORKERS = "@soak"
#: Seconds after a fault within which what it interrupted is begun again.
REPEATS_WITHIN = VISIBILITY_SECONDS + RECOVERS_WITHIN

#: A result by its key in Redis, None where it is gone.
Stored = Callable[[str], bytes | None]


@dataclass
class Defect:
    """Something that is not as promised."""

    what: str
    detail: str
    task_id: str | None = None
    kind: str | None = None
    document: Document | None = None
    faults: list[str] = field(default_factory=list)

    def to_document(self) -> Document:
        shown: Document = {"what": self.what, "detail": self.detail, "task_id": self.task_id, "kind": self.kind}
        if self.document is not None:
            timeline = self.document.get("timeline") or []
            shown["timeline"] = [f"{each['at']:%H:%M:%S.%f} {each['status']} {each['note'] or ''}" for each in timeline]
            fields = (
                "status",
                "attempt",
                "worker",
                "shares",
                "leads",
                "plan",
                "result",
                "join",
                "metadata",
                "traceback",
            )
            shown |= {name: self.document.get(name) for name in fields}
        return shown | {"faults": self.faults}


def of_results(task: Document, answer: Answer, stored: Stored) -> list[tuple[str, str]]:
    """What is wrong with the result of a join that ended, whole or partial: ``(what, detail)``."""
    is_whole = task["status"] == "SUCCESS"
    outcome = json.loads(task["result"]) if is_whole else task.get("partial")
    if outcome is None:
        return []
    if not isinstance(outcome, dict) or outcome.keys() != {"redis_key", "count"}:
        return [("result is no outcome of a join", f"{outcome!r:.300}")]
    text = stored(outcome["redis_key"])
    if text is None:
        # What was left of one that was stopped may have been thrown away; a whole one lives longer than the soak.
        return [("result gone", outcome["redis_key"])] if is_whole else []
    what = "result is wrong" if is_whole else "partial result is wrong"
    return [(what, each) for each in data.recount(text, outcome["count"], answer, partial=not is_whole)]


def of_task(asked: Asked, task: Document | None, stored: Stored, first_final: str | None = None) -> list[Defect]:
    """What is wrong with a task that was accepted, now that everything should have ended.

    Args:
        first_final: the final state that it was seen in first.
    """
    if task is None:
        return [Defect("accepted, and there is no document", f"told {asked.status}", asked.task_id, asked.kind)]
    status = task["status"]
    found: list[tuple[str, str]] = []
    if wrong := asked.metadata_complaint(task.get("metadata")):
        found.append(("metadata is not as asked", wrong))
    if status not in FINAL:
        found.append(("not in a final state", status))
    if status == "FAILURE":
        found.append(("failed", failure_of(task)))
    if asked.is_cancelled and status != "REVOKED":
        found.append(("cancelled, and yet not revoked", f"told {asked.cancels}, is {status}"))
    if status == "REVOKED" and not asked.may_be_cancelled:
        found.append(("revoked, though nobody was told so", f"told {asked.cancels}"))
    if first_final not in {None, "FAILURE", status}:
        found.append(("a final state changed", f"{first_final} became {status}"))
    if status == "SUCCESS" and asked.answer is None and json.loads(task["result"]) != "Processed: soak":
        found.append(("result is wrong", f"{task['result']:.300}"))
    if asked.answer is not None:
        found += of_results(task, asked.answer, stored) if status in {"SUCCESS", "REVOKED"} else []
    return [Defect(what, detail, task["_id"], asked.kind, task) for what, detail in found]


def failure_of(task: Document) -> str:
    """What a failed task says."""
    try:
        result = json.loads(task["result"])
        return f"{result['exc_type']}: {' '.join(map(str, result['exc_message']))}"
    except (ValueError, TypeError, KeyError):
        return str(task["result"])


def of_refused(asked: Asked, task: Document) -> list[Defect]:
    """What is wrong with a task that is recorded though its asker was told 503: nothing of it may ever have run."""
    begun = [each["note"] for each in task["timeline"] if each["status"] == "STARTED"]
    if task["status"] == "FAILURE" and not begun:
        return []
    detail = f"it is {task['status']}" + (f", begun by {begun}" if begun else "")
    return [Defect("refused with 503, and yet taken", detail, task["_id"], asked.kind, task)]


def of_unanswered(asked: Asked, task: Document, stored: Stored, first_final: str | None) -> list[Defect]:
    """The same where no answer came: it was taken or refused, and must be as if that had been said."""
    if not of_refused(asked, task):
        return []
    return of_task(asked, task, stored, first_final)


def of_everything(
    asked: Sequence[Asked], tasks: Iterable[Document], stored: Stored, first_final: Mapping[str, str]
) -> list[Defect]:
    """Every defect of what was asked for, and of documents that nobody asked for."""
    by_id = {task["_id"]: task for task in tasks}
    by_mark: dict[str, list[Document]] = {}
    for task in by_id.values():
        by_mark.setdefault(str((task.get("metadata") or {}).get("soak")), []).append(task)
    defects: list[Defect] = []
    known: set[Any] = set()
    for each in asked:
        recorded = by_mark.get(each.metadata["soak"], [])
        known |= {each.task_id, *(task["_id"] for task in recorded)}
        if each.is_accepted:
            task_id = str(each.task_id)
            defects += of_task(each, by_id.get(task_id), stored, first_final.get(task_id))
        for task in recorded:
            if each.status == 503:
                defects += of_refused(each, task)
            elif each.status == 0:
                defects += of_unanswered(each, task, stored, first_final.get(task["_id"]))
        if len(recorded) > 1:
            ids = [task["_id"] for task in recorded]
            defects.append(Defect("asked for once, and recorded more often", str(ids), each.task_id, each.kind))
    for task_id in by_id.keys() - known:
        task = by_id[task_id]
        detail = f"its metadata is {task.get('metadata')!r:.200}"
        defects.append(Defect("a document that nobody asked for", detail, str(task_id), None, task))
    return defects


def of_beginnings(
    tasks: Iterable[Document], ended_at: Mapping[str, float], happened: Sequence[Happened]
) -> list[Defect]:
    """Tasks that were begun again though nothing was done to a worker that had them, nor to a server.

    Args:
        ended_at: when each task was seen to have ended; what the workers say of it may be by a wrong clock.
    """
    defects = []
    for task in tasks:
        notes = [each["note"] or "" for each in task["timeline"] if each["status"] == "STARTED"]
        workers = [note.removesuffix(OF_WORKERS) for note in notes if note.endswith(OF_WORKERS)]
        if len(workers) < 2 or task["_id"] not in ended_at:
            continue
        began, ended = task["queued_at"].timestamp(), ended_at[task["_id"]]
        near = [each for each in happened if each.began <= ended and began <= each.ended + REPEATS_WITHIN]
        if not any(each.hits(workers) for each in near):
            defects.append(Defect("begun again without a reason", f"by {workers}", task["_id"], task["name"], task))
    return defects


def of_replies(replies: Iterable[Reply], happened: Iterable[Happened]) -> list[Defect]:
    """Answers that never came, or late, though nothing was done to the web process."""
    hits = [each for each in happened if each.hits_web]
    defects = []
    for reply in replies:
        if any(hit.began <= reply.at + reply.seconds and reply.at <= hit.ended + RECOVERS_WITHIN for hit in hits):
            continue
        request = f"{reply.method} {reply.path}"
        if reply.status == 0:
            defects.append(Defect("no answer", f"{request} after {reply.seconds:.1f} s"))
        elif reply.seconds > limit_of(reply):
            defects.append(Defect("a late answer", f"{request}: {reply.status} after {reply.seconds:.1f} s"))
    return defects


def limit_of(reply: Reply) -> float:
    """Seconds that this answer may take."""
    return MADE_WITHIN if "sort=" in reply.path else ANSWERED_WITHIN

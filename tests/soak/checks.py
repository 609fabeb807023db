"""Compares the submissions and their responses with the task documents and results, and finds broken promises."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak import data
from tests.soak.data import Answer, Document
from tests.soak.faults import RECOVERS_WITHIN, InjectedFault
from tests.soak.ledger import Reply, Submission
from tests.soak.stack import VISIBILITY_SECONDS

FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
#: Time limits for responses in seconds; the second one applies if a worker has to make an artifact first.
ANSWERED_WITHIN, MADE_WITHIN = 8.0, 25.0

#: The suffix of the names of the soak's workers.
WORKER_SUFFIX = "@soak"
#: The longest time between a fault and the next start of a task that it interrupted, in seconds.
REPEATS_WITHIN = VISIBILITY_SECONDS + RECOVERS_WITHIN

#: Returns the result at a key in Redis, or None if it is gone.
ResultReader = Callable[[str], bytes | None]


@dataclass
class Defect:
    """A broken promise. ``kind`` is the kind of submission, ``faults`` describes the faults around it."""

    title: str
    detail: str
    task_id: str | None = None
    kind: str | None = None
    document: Document | None = None
    faults: list[str] = field(default_factory=list)

    def to_document(self) -> Document:
        shown: Document = {"what": self.title, "detail": self.detail, "task_id": self.task_id, "kind": self.kind}
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


def check_result(task: Document, answer: Answer, read_result: ResultReader) -> list[tuple[str, str]]:
    """Recounts the complete or partial result of a join that ended; returns ``(title, detail)`` of each defect."""
    is_whole = task["status"] == "SUCCESS"
    outcome = json.loads(task["result"]) if is_whole else task.get("partial")
    if outcome is None:
        return []
    if not isinstance(outcome, dict) or outcome.keys() != {"redis_key", "count"}:
        return [("result is no outcome of a join", f"{outcome!r:.300}")]
    text = read_result(outcome["redis_key"])
    if text is None:
        # A partial result may have been discarded; a complete one lives longer than the soak.
        return [("result gone", outcome["redis_key"])] if is_whole else []
    title = "result is wrong" if is_whole else "partial result is wrong"
    return [(title, error) for error in data.recount(text, outcome["count"], answer, partial=not is_whole)]


def check_task(
    submission: Submission, task: Document | None, read_result: ResultReader, first_final: str | None = None
) -> list[Defect]:
    """Finds the defects of an accepted task, after everything should have ended.

    Args:
        task: the task document, None if it is missing.
        first_final: the first final state in which the task was seen.
    """
    if task is None:
        detail = f"answered {submission.status}"
        return [Defect("accepted, but there is no document", detail, submission.task_id, submission.kind)]
    status = task["status"]
    found: list[tuple[str, str]] = []
    if error := submission.metadata_error(task.get("metadata")):
        found.append(("metadata is wrong", error))
    if status not in FINAL:
        found.append(("not in a final state", status))
    if status == "FAILURE":
        found.append(("failed", failure_of(task)))
    if submission.is_cancelled and status != "REVOKED":
        found.append(("cancelled, but not revoked", f"answered {submission.cancels}, is {status}"))
    if status == "REVOKED" and not submission.may_be_cancelled:
        found.append(("revoked, but never cancelled", f"answered {submission.cancels}"))
    if first_final not in {None, "FAILURE", status}:
        found.append(("a final state changed", f"{first_final} became {status}"))
    if status == "SUCCESS" and submission.answer is None and json.loads(task["result"]) != "Processed: soak":
        found.append(("result is wrong", f"{task['result']:.300}"))
    if submission.answer is not None:
        found += check_result(task, submission.answer, read_result) if status in {"SUCCESS", "REVOKED"} else []
    return [Defect(title, detail, task["_id"], submission.kind, task) for title, detail in found]


def failure_of(task: Document) -> str:
    """Returns the error of a failed task."""
    try:
        result = json.loads(task["result"])
        return f"{result['exc_type']}: {' '.join(map(str, result['exc_message']))}"
    except (ValueError, TypeError, KeyError):
        return str(task["result"])


def check_refused(submission: Submission, task: Document) -> list[Defect]:
    """Checks a recorded task whose submission got a 503. It must have failed without ever running."""
    started = [entry["note"] for entry in task["timeline"] if entry["status"] == "STARTED"]
    if task["status"] == "FAILURE" and not started:
        return []
    detail = f"it is {task['status']}" + (f", started by {started}" if started else "")
    return [Defect("refused with 503, but accepted", detail, task["_id"], submission.kind, task)]


def check_unanswered(
    submission: Submission, task: Document, read_result: ResultReader, first_final: str | None
) -> list[Defect]:
    """Checks a recorded task whose submission got no response. It must be right either as refused or as accepted."""
    if not check_refused(submission, task):
        return []
    return check_task(submission, task, read_result, first_final)


def check_everything(
    submissions: Sequence[Submission],
    tasks: Iterable[Document],
    read_result: ResultReader,
    first_final: Mapping[str, str],
) -> list[Defect]:
    """Finds the defects of all submissions, and documents without a submission."""
    by_id = {task["_id"]: task for task in tasks}
    by_mark: dict[str, list[Document]] = {}
    for task in by_id.values():
        by_mark.setdefault(str((task.get("metadata") or {}).get("soak")), []).append(task)
    defects: list[Defect] = []
    submitted: set[Any] = set()
    for each in submissions:
        recorded = by_mark.get(each.metadata["soak"], [])
        submitted |= {each.task_id, *(task["_id"] for task in recorded)}
        if each.is_accepted:
            task_id = str(each.task_id)
            defects += check_task(each, by_id.get(task_id), read_result, first_final.get(task_id))
        for task in recorded:
            if each.status == 503:
                defects += check_refused(each, task)
            elif each.status == 0:
                defects += check_unanswered(each, task, read_result, first_final.get(task["_id"]))
        if len(recorded) > 1:
            ids = [task["_id"] for task in recorded]
            defects.append(Defect("submitted once, but recorded several times", str(ids), each.task_id, each.kind))
    for task_id in by_id.keys() - submitted:
        task = by_id[task_id]
        detail = f"its metadata is {task.get('metadata')!r:.200}"
        defects.append(Defect("a document without a submission", detail, str(task_id), None, task))
    return defects


def check_repeats(
    tasks: Iterable[Document], ended_at: Mapping[str, float], faults: Sequence[InjectedFault]
) -> list[Defect]:
    """Finds tasks that started again although no fault hit a server or one of their workers.

    Args:
        ended_at: when each task was seen to have ended; a worker's own times may come from a wrong clock.
    """
    defects = []
    for task in tasks:
        notes = [each["note"] or "" for each in task["timeline"] if each["status"] == "STARTED"]
        workers = [note.removesuffix(WORKER_SUFFIX) for note in notes if note.endswith(WORKER_SUFFIX)]
        if len(workers) < 2 or task["_id"] not in ended_at:
            continue
        queued, ended = task["queued_at"].timestamp(), ended_at[task["_id"]]
        near = [fault for fault in faults if fault.began <= ended and queued <= fault.ended + REPEATS_WITHIN]
        if not any(fault.hits(workers) for fault in near):
            defects.append(Defect("started again without a reason", f"by {workers}", task["_id"], task["name"], task))
    return defects


def check_replies(replies: Iterable[Reply], happened: Iterable[InjectedFault]) -> list[Defect]:
    """Finds responses that were late or missing although no fault hit the web process."""
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
    """The time limit for this response, in seconds."""
    return MADE_WITHIN if "sort=" in reply.path else ANSWERED_WITHIN

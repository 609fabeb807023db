"""Files of a result: what of it goes into one, and where it comes from: who asked, why, how it ran. Pure: no I/O."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.result_store import Summary

#: zlib's wbits for gzip's format.
GZIP = 31


@dataclass(frozen=True)
class Selection:
    """What of a result goes into a file: the rows of a view, and these columns in this order; all of them if empty."""

    query: RowQuery = field(default_factory=RowQuery)
    columns: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return self.query.is_everything and not self.columns

    def check(self, profile: Profile) -> None:
        """Refuses what these columns do not have.

        Raises:
            InvalidInput: names what is wrong.
        """
        self.query.check(profile)
        there = {column.name for column in profile.columns}
        for name in self.columns:
            if name not in there:
                raise InvalidInput({"columns": f"names “{name}”, which is no column of this result."})

    def to_document(self) -> Document:
        return {"view": self.query.to_document(), "columns": list(self.columns)}

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(RowQuery.from_document(document["view"]), tuple(document["columns"]))


def export_spec(task_id: str, form: str, excerpt: Selection, *, embed_provenance: bool) -> ArtifactSpec:
    """A file of a result, for the one who asked for the task.

    Args:
        form: the name of a format.
        embed_provenance: whether the provenance is put into a format that has no place for it.
    """
    embed = embed_provenance and not FORMATS[form].has_place
    options = {"task_id": task_id, "format": form, "excerpt": excerpt.to_document(), "inside": embed}
    return ArtifactSpec(ArtifactKind.FILE, options)


def provenance(  # noqa: PLR0913, PLR0917 - all that is known of it
    task: Document, run_by: Document, summary: Summary, sha256: str, excerpt: Selection, rows: int
) -> Document:
    """The card that goes with each export; ``rows`` are in it.

    Args:
        task: who asked for the file asked for this one.
        run_by: the task whose run made the result; the same one, or another that asked the same.
        sha256: of the whole result, as its JSON file has it.
    """
    plan = run_by.get("plan") or {}
    return {
        "made_by": "Dovetail",
        "task_id": task["_id"],
        "asked": {
            "by": task.get("requested_by"),
            "at": _iso(task["queued_at"]),
            "why": task["metadata"],
            "join": task.get("join"),
            "task": task["name"],
            "arguments": None if task.get("join") else task["args"],
        },
        "run": {
            "task_id": run_by["_id"],
            "worker": run_by.get("worker"),
            "attempt": run_by.get("attempt"),
            "started_at": _iso(run_by.get("started_at")),
            "ended_at": _iso(summary.published_at),
            # One stream reads what is there as it goes; several read at one instant.
            "snapshot_at": plan.get("snapshot_at"),
            "parts": plan.get("parts", 1),
            "how": [{key: step.get(key) for key in ("collection", "way", "index")} for step in plan.get("steps", [])],
            "pipeline": plan.get("pipeline"),
        },
        "result": {
            "rows": summary.count,
            "bytes": summary.bytes,
            "sha256": sha256,
            "complete": summary.complete,
            "without_a_match": {name: unmatched.count for name, unmatched in summary.unmatched.items()},
        },
        "in_this_file": {
            "rows": rows,
            "view": None if excerpt.query.is_everything else excerpt.query.to_document(),
            "columns": "all" if not excerpt.columns else list(excerpt.columns),
        },
    }


#: What of a card is said as JSON, because it is a text of its own.
AS_JSON = frozenset({"join", "how", "arguments", "columns"})


def provenance_lines(card: Document, within: str = "") -> list[tuple[str, str]]:
    """A card as names and values, for where there is a table alone."""
    lines: list[tuple[str, str]] = []
    for name, value in card.items():
        label = f"{within}{name}".replace("_", " ")
        if name == "view":
            lines.append((label, "all rows, as they were joined" if value is None else _said(value)))
        elif isinstance(value, dict) and name not in AS_JSON:
            lines += provenance_lines(value, f"{label}: ") or [(label, "nothing")]
        elif isinstance(value, str):
            lines.append((label, value))
        else:
            text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
            lines.append((label, "not known" if value is None else text))
    return lines


def _said(view: Document) -> str:
    """The rows of a view, and their order, on a line."""
    said = [" ".join(condition).strip() for condition in view["conditions"]]
    said += [f"contains the text {view['text']}"] if view["text"] else []
    said += [f"sorted by {column}{' downwards' if descending else ''}" for column, descending in view["sort"]]
    return "; ".join(said)


def _iso(instant: Any) -> str | None:
    return instant.isoformat() if isinstance(instant, datetime) else None

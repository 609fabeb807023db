"""The selection of rows and columns for an export, and the provenance of the file. This module does no I/O."""

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
from worker_tasks.results.summaries import Summary

#: The value of zlib's ``wbits`` for the gzip format.
GZIP = 31


@dataclass(frozen=True)
class Selection:
    """The part of a result to export: the rows of a query, and the named columns in this order.

    If no columns are named, all of them are exported.
    """

    query: RowQuery = field(default_factory=RowQuery)
    columns: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return self.query.is_everything and not self.columns

    def check(self, profile: Profile) -> None:
        """Checks that the selection fits the columns of a result.

        Raises:
            InvalidInput: the selection does not fit; the error names the parameter.
        """
        self.query.check(profile)
        names = {column.name for column in profile.columns}
        for name in self.columns:
            if name not in names:
                raise InvalidInput({"columns": f"names “{name}”, which is no column of this result."})

    def to_document(self) -> Document:
        return {"view": self.query.to_document(), "columns": list(self.columns)}

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(RowQuery.from_document(document["view"]), tuple(document["columns"]))


def export_spec(task_id: str, format_name: str, selection: Selection, *, embed_provenance: bool) -> ArtifactSpec:
    """The spec of a file exported from the result of a task.

    Args:
        task_id: the task that the file is requested for. Its result may come from another task's run.
        format_name: the name of a format.
        embed_provenance: whether to add the provenance in a format that does not always contain it.
    """
    embed = embed_provenance and not FORMATS[format_name].embeds_provenance
    options = {"task_id": task_id, "format": format_name, "excerpt": selection.to_document(), "inside": embed}
    return ArtifactSpec(ArtifactKind.FILE, options)


def provenance(  # noqa: PLR0913, PLR0917 - combines all sources
    task: Document, run_task: Document, summary: Summary, sha256: str, selection: Selection, rows: int
) -> Document:
    """The document that describes the origin of an exported file.

    Args:
        task: the task that the file was requested for.
        run_task: the task whose run produced the result. It is the same task, or another one with the same join.
        sha256: the checksum of the whole result as JSON.
        selection: the exported part of the result.
        rows: the number of exported rows.
    """
    plan = run_task.get("plan") or {}
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
            "task_id": run_task["_id"],
            "worker": run_task.get("worker"),
            "attempt": run_task.get("attempt"),
            "started_at": _iso(run_task.get("started_at")),
            "ended_at": _iso(summary.published_at),
            # Only a run in several parts reads from a snapshot.
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
            "view": None if selection.query.is_everything else selection.query.to_document(),
            "columns": "all" if not selection.columns else list(selection.columns),
        },
    }


#: Fields of a provenance whose values are shown as JSON.
JSON_FIELDS = frozenset({"join", "how", "arguments", "columns"})


def provenance_lines(provenance: Document, prefix: str = "") -> list[tuple[str, str]]:
    """A provenance as pairs of name and text, for formats that contain only tables."""
    lines: list[tuple[str, str]] = []
    for name, value in provenance.items():
        label = f"{prefix}{name}".replace("_", " ")
        if name == "view":
            lines.append((label, "all rows, as they were joined" if value is None else _describe_query(value)))
        elif isinstance(value, dict) and name not in JSON_FIELDS:
            lines += provenance_lines(value, f"{label}: ") or [(label, "nothing")]
        elif isinstance(value, str):
            lines.append((label, value))
        else:
            text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
            lines.append((label, "not known" if value is None else text))
    return lines


def _describe_query(query: Document) -> str:
    """The conditions and the order of a query in one line."""
    terms = [" ".join(condition).strip() for condition in query["conditions"]]
    terms += [f"contains the text {query['text']}"] if query["text"] else []
    terms += [f"sorted by {column}{' downwards' if descending else ''}" for column, descending in query["sort"]]
    return "; ".join(terms)


def _iso(instant: Any) -> str | None:
    return instant.isoformat() if isinstance(instant, datetime) else None

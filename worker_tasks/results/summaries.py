"""The summary of a published result, and the keys in Redis that belong to a result."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

#: The largest number of unmatched rows to record.
UNMATCHED_ROWS = 50


@dataclass
class Unmatched:
    """The rows in which a join found no match: their count, and the numbers of the first ones, from 0."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, rows: list[int]) -> None:
        self.count += len(rows)
        self.rows += rows[: UNMATCHED_ROWS - len(self.rows)]


@dataclass(frozen=True)
class Summary:
    """The description of a published result.

    Attributes:
        key: the key of the rows.
        run: the name of the run, which identifies the attempt of the task.
        count, bytes: the number of rows and of bytes.
        columns: the column names of all rows, in the order of their first appearance.
        segments: the number of rows in each part. The row index restarts with each part.
        complete: False for a partial result, which holds the rows joined before the run stopped.
        unmatched: the rows in which a join found no match, keyed by the field that the join embeds.
        kept: whether a person kept the result longer, so that it outlives later runs of the same join.
    """

    key: str
    task_id: str
    run: str
    count: int
    bytes: int
    columns: list[str]
    segments: list[int]
    complete: bool
    published_at: datetime
    expires_at: datetime
    unmatched: dict[str, Unmatched] = field(default_factory=dict)
    kept: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the task document that describe the result."""
        counts = {name: unmatched.count for name, unmatched in self.unmatched.items()}
        return {"result_expires_at": self.expires_at, "result_bytes": self.bytes, "unmatched": counts}

    @property
    def outcome(self) -> dict[str, Any]:
        """The return value of a join task."""
        return {"redis_key": self.key, "count": self.count}

    @property
    def mark_of_run(self) -> str:
        """The text that a summary's JSON contains only if the summary belongs to this run."""
        return f'"run": {json.dumps(self.run)}'

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


def summary_from_json(text: str | bytes) -> Summary:
    """Parses a summary from its JSON."""
    fields = json.loads(text)
    for name in ("published_at", "expires_at"):
        fields[name] = datetime.fromisoformat(fields[name])
    fields["unmatched"] = {name: Unmatched(**values) for name, values in fields.get("unmatched", {}).items()}
    return Summary(**fields)


# Prefixes, not suffixes, so that a user id in a key cannot imitate another kind of key.
def summary_key(key: str) -> str:
    return f"result_summary:{key}"


def index_key(key: str) -> str:
    return f"result_index:{key}"


def outcome_key(task_id: str) -> str:
    return f"task_outcome:{task_id}"


def join_key(fingerprint: str) -> str:
    """The key of the result of the join with this fingerprint."""
    return f"join_result:{fingerprint}"


def partial_key(task_id: str) -> str:
    """The key of the partial result of a stopped run."""
    return f"partial_result:{task_id}"


def older_key(task_id: str) -> str:
    """The key of a task's result after a newer run of the same join has replaced it."""
    return f"older_result:{task_id}"


def artifacts_key(run: str) -> str:
    """The key of the set with the keys of all artifacts of a run's result."""
    return f"derived_of:{run}"

"""The differences between two results of the same join, read from an artifact. diff_job.py computes them."""

from dataclasses import asdict, dataclass, field
from typing import Self

from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.reader import NUMBER
from worker_tasks.infra.connections import Document
from worker_tasks.results.summaries import Summary


@dataclass(frozen=True)
class ResultDiff:
    """The number of differences between two results.

    Attributes:
        key: the columns used to pair the rows of the two results.
        added: the number of rows that only the newer result has.
        gone: the number of rows that only the older result has.
        changed: the number of rows with different values in the two results.
        same: the number of equal rows.
        repeated: whether several rows of a result have the same key.
        changes: the number of changed values in each column.
        only_older: the columns that only the older result has.
        only_newer: the columns that only the newer result has.
    """

    key: list[str]
    added: int
    gone: int
    changed: int
    same: int
    repeated: bool
    changes: dict[str, int] = field(default_factory=dict)
    only_older: list[str] = field(default_factory=list)
    only_newer: list[str] = field(default_factory=list)

    def to_document(self) -> Document:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(**document)


def diff_spec(older: Summary, key: list[str]) -> ArtifactSpec:
    """The spec of the artifact that compares a result with an older one. The columns in ``key`` pair the rows."""
    return ArtifactSpec(ArtifactKind.COMPARISON, {"task_id": older.task_id, "run": older.run, "key": key})


def common_columns(older: Profile, newer: Profile) -> list[str]:
    """The names of the columns that both results have."""
    names = {column.name for column in newer.columns}
    return [column.name for column in older.columns if column.name in names]


def default_key(older: Profile, newer: Profile) -> list[str]:
    """The columns that identify a row according to the statistics; empty if only whole rows can be compared."""
    columns = [(_column(older, name), _column(newer, name)) for name in common_columns(older, newer)]
    unique = [first.name for first, second in columns if _identifies_rows(first) and _identifies_rows(second)]
    if "_id" in unique:
        return ["_id"]
    # A joined row has an _id from each side. A row without a match has only one.
    ids = [first.name for first, _ in columns if first.path[-1] == "_id"]
    if "_id" in ids and len(ids) > 1:
        return ids
    return unique[:1]


def _column(profile: Profile, name: str) -> Column:
    return profile.columns[profile.index_of(name)]


def _identifies_rows(column: Column) -> bool:
    """Whether every row has a value in the column, and all values are different."""
    return column.type.names_rows and column.is_unique and column.filled == column.rows


def diff_row_numbers(summary: Summary, comparison: ArtifactSpec, name: str, first: int, limit: int) -> list[int]:
    """Up to ``limit`` row numbers from a list of a comparison, starting with entry ``first``.

    Args:
        name: ``added``, ``gone``, ``changed_from`` or ``changed_to``.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    end = (first + limit) * NUMBER.size - 1
    return reader.unpack_numbers(artifacts.read_range(summary, comparison, name, first * NUMBER.size, end))

"""What changed between two results of the same join, in figures and row numbers. Pure but for reading what is there."""

from dataclasses import asdict, dataclass, field
from typing import Self

from worker_tasks.analysis import artifacts, reader
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.reader import NUMBER
from worker_tasks.infra.connections import Document
from worker_tasks.results.result_store import Summary


@dataclass(frozen=True)
class ResultDiff:
    """How many rows were ``added``, are ``gone``, ``changed``, or are the ``same``, paired by the columns ``key``.

    ``changes`` counts the changed values by column; ``only_older`` and ``only_newer`` are columns that the other has
    not. ``repeated`` says that several rows have the same key.
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
    """The comparison of a result with an older one, by the columns that tell a row from all others."""
    return ArtifactSpec(ArtifactKind.COMPARISON, {"task_id": older.task_id, "run": older.run, "key": key})


def common_columns(older: Profile, newer: Profile) -> list[str]:
    """The names of the columns that both have."""
    there = {column.name for column in newer.columns}
    return [column.name for column in older.columns if column.name in there]


def default_key(older: Profile, newer: Profile) -> list[str]:
    """The columns by which rows are told apart, as far as figures tell; none where only a whole row does."""
    columns = [(_named(older, name), _named(newer, name)) for name in common_columns(older, newer)]
    unique = [first.name for first, second in columns if _tells_apart(first) and _tells_apart(second)]
    if "_id" in unique:
        return ["_id"]
    # Rows of a join have the _id of each side; one that found nothing has but its own.
    ids = [first.name for first, _ in columns if first.path[-1] == "_id"]
    if "_id" in ids and len(ids) > 1:
        return ids
    return unique[:1]


def _named(profile: Profile, name: str) -> Column:
    return profile.columns[profile.index_of(name)]


def _tells_apart(column: Column) -> bool:
    # Of a single row, or of none, nothing tells what is unique.
    return column.type.names_rows and column.is_unique and column.filled == column.rows


def diff_row_numbers(summary: Summary, comparison: ArtifactSpec, what: str, first: int, limit: int) -> list[int]:
    """Some row numbers of a comparison, from the ``first`` on: ``added``, ``gone``, ``changed_from``, ``changed_to``.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    end = (first + limit) * NUMBER.size - 1
    return reader.unpack_numbers(artifacts.read_range(summary, comparison, what, first * NUMBER.size, end))

"""The profile of a result: its columns with their types and statistics. This module does no I/O."""

from dataclasses import asdict, dataclass, field
from typing import Self

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, ColumnType
from worker_tasks.infra.connections import Document

#: Attributes of a column that have another name in stored documents and in the API.
STORED_NAMES = {"min": "least", "median": "middle", "max": "most"}


@dataclass(frozen=True)
class Bin:
    """A bar of a histogram: the number of values from ``low`` to ``high``. Both borders are text."""

    low: str
    high: str
    count: int


@dataclass(frozen=True)
class Column:
    """A column and its statistics.

    Attributes:
        name: the path, joined with dots.
        path: the names of the nested fields that lead to the column.
        filled: the number of rows with a value.
        nulls: the number of rows in which the field is null.
        missing: the number of rows without the field.
        distinct: the number of distinct values; None if unknown.
        min, median, max: values as text, or lengths if the values are lists.
        top: the most frequent values and their counts, if any value occurs twice.
        bins: the bars of the histogram, if there is one.
        empty: the number of empty lists or empty strings.
    """

    name: str
    path: list[str]
    kind: ColumnKind
    filled: int
    nulls: int
    missing: int
    distinct: int | None = None
    min: str | None = None
    median: str | None = None
    max: str | None = None
    top: list[tuple[str, int]] = field(default_factory=list)
    bins: list[Bin] = field(default_factory=list)
    empty: int = 0

    @property
    def rows(self) -> int:
        return self.filled + self.nulls + self.missing

    @property
    def type(self) -> ColumnType:
        return COLUMN_TYPES[self.kind]

    @property
    def is_number(self) -> bool:
        return self.type.is_number

    @property
    def is_unique(self) -> bool:
        """Whether all values are distinct."""
        return self.filled > 0 and self.distinct == self.filled


def joined_first(columns: list[str], join: Document | None) -> list[str]:
    """Moves the keys of a join, and the fields that the join adds, to the front.

    If the join chooses its fields, keeps their order.
    """
    if join is None or "fields" in join:
        return columns
    joins = join["joins"]
    first = [pair["local"].partition(".")[0] for each in joins for pair in each["on"]]
    first += [each.get("into", each["as"]) for each in joins if "as" in each]
    return list(dict.fromkeys([*(name for name in first if name in columns), *columns]))


@dataclass(frozen=True)
class Profile:
    """All columns of a result, with a column for each field of nested documents.

    Attributes:
        rows: the number of rows in the result.
        sha256: the hexadecimal checksum of the whole value in Redis.
        unmatched: fields that joins add. The table marks the rows in which these joins found no match.
    """

    columns: list[Column]
    rows: int
    sha256: str
    unmatched: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def to_document(self) -> Document:
        """The document that is stored in Redis and returned by the API."""
        columns = [
            {STORED_NAMES.get(name, name): value for name, value in asdict(each).items()} for each in self.columns
        ]
        return {"columns": columns, "rows": self.rows, "sha256": self.sha256, "unmatched": self.unmatched}

    @classmethod
    def from_document(cls, document: Document) -> Self:
        attribute_names = {stored: name for name, stored in STORED_NAMES.items()}
        columns = [
            Column(
                **{attribute_names.get(name, name): value for name, value in column.items()}
                | {
                    "kind": ColumnKind(column["kind"]),
                    "top": [(value, count) for value, count in column["top"]],
                    "bins": [Bin(**each) for each in column["bins"]],
                }
            )
            for column in document["columns"]
        ]
        # Tables built by older versions do not mark rows without a match.
        return cls(columns, document["rows"], document["sha256"], document.get("unmatched", []))

    def in_order(self, join: Document | None) -> list[Column]:
        """The columns in display order. The join's keys and the fields that it adds come first."""
        names = list(dict.fromkeys(column.path[0] for column in self.columns))
        place = {name: number for number, name in enumerate(joined_first(names, join))}
        return sorted(self.columns, key=lambda column: place[column.path[0]])

    def index_of(self, name: str) -> int:
        """The index of the column with this name.

        Raises:
            KeyError: there is no such column.
        """
        for number, column in enumerate(self.columns):
            if column.name == name:
                return number
        raise KeyError(name)

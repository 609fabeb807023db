"""The profile of a result: its columns with their types and statistics. Pure: no I/O."""

from dataclasses import asdict, dataclass, field
from typing import Self

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, ColumnType
from worker_tasks.infra.connections import Document

#: Attributes of a column that have another name in stored documents and in the API.
STORED_NAMES = {"min": "least", "median": "middle", "max": "most"}


@dataclass(frozen=True)
class Bin:
    """A bar of a histogram: the number of values from ``low`` to ``high``, both as text."""

    low: str
    high: str
    count: int


@dataclass(frozen=True)
class Column:
    """A column and its statistics.

    ``path`` leads to it through nested documents; ``name`` is the path with dots. ``filled`` rows have a value,
    ``nulls`` rows have null and ``missing`` rows lack the field; ``empty`` values are empty lists or empty text.
    ``min``, ``median`` and ``max`` are values as text, or lengths for lists. ``top`` lists the most frequent values
    with their counts, if any value occurs twice.
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
        """Whether all values are different."""
        return self.filled > 0 and self.distinct == self.filled


def joined_first(columns: list[str], join: Document | None) -> list[str]:
    """Orders field names: the join's keys and the fields it adds come first. Keeps the order of chosen fields."""
    if join is None or "fields" in join:
        return columns
    joins = join["joins"]
    first = [pair["local"].partition(".")[0] for each in joins for pair in each["on"]]
    first += [each.get("into", each["as"]) for each in joins if "as" in each]
    return list(dict.fromkeys([*(name for name in first if name in columns), *columns]))


@dataclass(frozen=True)
class Profile:
    """All columns of a result, with a column for each field of nested documents.

    ``sha256`` is the hexadecimal checksum of the whole value in Redis. ``unmatched`` names the fields added by joins
    whose rows without a match are marked in the table.
    """

    columns: list[Column]
    rows: int
    sha256: str
    unmatched: list[str] = field(default_factory=list)

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
        """The columns in display order: the join's keys and the fields it adds come first."""
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

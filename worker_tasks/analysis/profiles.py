"""The columns of a result in figures: what of each is filled, how far it reaches, what is frequent. Pure: no I/O."""

from dataclasses import asdict, dataclass, field
from typing import Self

from worker_tasks.analysis.column_types import COLUMN_TYPES, ColumnKind, ColumnType
from worker_tasks.infra.connections import Document

#: The names that attributes of a column have in stored documents and in the API, where they differ.
STORED_NAMES = {"min": "least", "median": "middle", "max": "most"}


@dataclass(frozen=True)
class Bin:
    """How many values are from ``low`` to ``high``, both as text."""

    low: str
    high: str
    count: int


@dataclass(frozen=True)
class Column:
    """A column, and its figures.

    ``path`` leads to it through nested documents; ``name`` is the same with dots. Of all rows ``filled`` have a value,
    ``nulls`` null and ``missing`` nothing; of those filled ``empty`` are a list or a text with nothing in it.
    ``least``, ``middle`` (the median) and ``most`` are values as text, for a list its lengths; ``top`` are the most
    frequent values with their counts, where any comes twice.
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
        """Whether no value comes twice."""
        return self.filled > 0 and self.distinct == self.filled


def joined_first(columns: list[str], join: Document | None) -> list[str]:
    """Names of fields, those that a join matches by and brings in first; as they are where fields were chosen."""
    if join is None or "fields" in join:
        return columns
    joins = join["joins"]
    first = [pair["local"].partition(".")[0] for each in joins for pair in each["on"]]
    first += [each["as"] for each in joins if "as" in each]
    return list(dict.fromkeys([*(name for name in first if name in columns), *columns]))


@dataclass(frozen=True)
class Profile:
    """All columns of a result, nested documents spread; ``sha256`` is of the whole value in Redis, in hexadecimal.

    ``unmatched`` names the fields of the joins whose rows without a match the table knows.
    """

    columns: list[Column]
    rows: int
    sha256: str
    unmatched: list[str] = field(default_factory=list)

    def to_document(self) -> Document:
        """The document stored in Redis and answered by the API, with their names of the fields."""
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
        # A table that an older version made knows of none.
        return cls(columns, document["rows"], document["sha256"], document.get("unmatched", []))

    def in_order(self, join: Document | None) -> list[Column]:
        """The columns as people look at them: what was matched by and what was brought in first."""
        names = list(dict.fromkeys(column.path[0] for column in self.columns))
        place = {name: number for number, name in enumerate(joined_first(names, join))}
        return sorted(self.columns, key=lambda column: place[column.path[0]])

    def index_of(self, name: str) -> int:
        """The place of the column of this name.

        Raises:
            KeyError: there is none.
        """
        for number, column in enumerate(self.columns):
            if column.name == name:
                return number
        raise KeyError(name)

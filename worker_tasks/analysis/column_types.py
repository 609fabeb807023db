"""The types of columns, a row each: all that the reading of a result does in another way for one than for another.

What is SQL is made of the name of a column, or of its JSON. Pure: no I/O, and nothing of DuckDB's is loaded.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, StrEnum, auto
from typing import Any

#: SQL for something of a column.
Expression = Callable[[str], str]
#: What a condition compares with: a value, and the first one that is greater than all it stands for (a day).
Operand = tuple[Any, Any]

#: Milliseconds since 1970 that DuckDB has instants for.
MAX_INSTANT = 9_000_000_000_000_000
OID_DIGITS = 24
#: Significant digits of the borders of bars.
DIGITS = 4
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class ColumnKind(StrEnum):
    """What all values of a column are."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    DATE = "date"
    ID = "id"
    TEXT = "text"
    LIST = "list"
    DOCUMENT = "document"
    #: Values of several kinds, or of one that stands alone.
    MIXED = "mixed"
    #: Nothing but null.
    NOTHING = "nothing"


class Cell(Enum):
    """The kinds of cells in a workbook."""

    NUMBER = auto()
    BOOLEAN = auto()
    INSTANT = auto()
    TEXT = auto()


def _text(text: str) -> Operand:
    return text, None


def _number(text: str) -> Operand:
    try:
        number = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        raise ValueError(f"“{text}” is no number.") from None
    if not number.is_finite():
        raise ValueError(f"“{text}” is no number.")
    return number, None


def _boolean(text: str) -> Operand:
    if text.strip().lower() not in {"true", "false"}:
        raise ValueError("give true or false.")
    return text.strip().lower() == "true", None


def _date(text: str) -> Operand:
    """A day stands for all its instants."""
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
        # Less than a day, because the last one that there is has none after it; instants are whole milliseconds.
        return instant, instant + timedelta(days=1, microseconds=-1) if _DAY.fullmatch(text.strip()) else None
    except (ValueError, OverflowError):
        raise ValueError(f"“{text}” is no date: write it as 2026-01-31 or 2026-01-31T18:30, in UTC.") from None


def _border(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"


def _border_in_time(milliseconds: float) -> str:
    try:
        return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
    except OverflowError:
        # A year that Python has no dates for.
        return f"{milliseconds} ms"


@dataclass(frozen=True)
class Statistics:
    """The figures of a column.

    ``has_range``: the least and the greatest value are named. ``has_median``: so is the one in the middle, and the
    values between are counted in bars: on the ``scale``, in ``whole`` steps or not, each ``border`` as text.
    ``of_lengths``: values are told apart by their length alone. ``all_named``: the values are named even if no value
    comes twice.
    """

    has_range: bool = True
    has_median: bool = False
    of_lengths: bool = False
    all_named: bool = False
    scale: Expression = "{0}".format
    whole: bool = False
    border: Callable[[float], str] = _border


@dataclass(frozen=True)
class ColumnType:
    """A type of columns.

    From JSON to the table: ``json_types`` are DuckDB's names of what stands in JSON, ``wrappers`` the keys of Extended
    JSON, ``stored`` the value in the table out of its JSON. Of ``fits``, an aggregate over all values, one that is not
    true makes the column a mixed one. Of ``spreads``, the fields become columns. Of several kinds of numbers, the one
    with the highest ``rank`` holds all; what is no number has the rank 0.

    In the table: values that are ``is_json`` are kept as JSON, those that are ``is_digits`` as the digits that were
    written. ``comparable`` is what they are sorted and measured by, ``text`` the value as text, ``empty`` whether there
    is nothing in it, ``statistics`` its figures, None if it has none. ``parse`` reads a value that a person typed.

    Between two results: ``in_mixed`` is the value as it stands in a column of mixed types, and a type that
    ``names_rows`` may be the key by which rows are told apart.

    In files: ``cell`` is the kind of cell in a workbook, ``parquet`` the value in Parquet, unless it ``is_exact``: it
    is then a decimal of as many digits as needed. What ``may_be_formula`` is made harmless in CSV.
    """

    kind: ColumnKind
    json_types: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    stored: Expression = "{0}::VARCHAR".format
    fits: Expression | None = None
    spreads: bool = False
    rank: int = 0
    is_json: bool = False
    is_digits: bool = False
    comparable: Expression = "{0}".format
    text: Expression = "{0}::VARCHAR".format
    empty: Expression = "false".format
    statistics: Statistics | None = None
    parse: Callable[[str], Operand] = _text
    in_mixed: Expression = "{0}::VARCHAR".format
    names_rows: bool = False
    cell: Cell = Cell.TEXT
    parquet: Expression = "{0}".format
    is_exact: bool = False
    may_be_formula: bool = False

    @property
    def is_number(self) -> bool:
        return self.rank > 0

    @property
    def is_floating(self) -> bool:
        """Whether the values are floating-point numbers."""
        return self.is_digits and not self.is_exact


_FLOATING = "TRY_CAST({0} AS DOUBLE)".format
_LENGTH = "json_array_length({0})".format
_JSON = "{0}::JSON".format
_ISO = (
    "CASE WHEN microsecond({0}) % 1000000 = 0 THEN strftime({0}, '%Y-%m-%dT%H:%M:%SZ') "
    "ELSE strftime({0}, '%Y-%m-%dT%H:%M:%S.%gZ') END"
)
_MILLISECONDS = '({0}->>\'$."$date"."$numberLong"\')::BIGINT'

COLUMN_TYPES: Mapping[ColumnKind, ColumnType] = {
    each.kind: each
    for each in (
        ColumnType(
            ColumnKind.BOOLEAN,
            json_types=("BOOLEAN",),
            stored="({0})::BOOLEAN".format,
            # Of true and false there is no least and no most.
            statistics=Statistics(has_range=False, all_named=True),
            parse=_boolean,
            cell=Cell.BOOLEAN,
        ),
        ColumnType(
            ColumnKind.INTEGER,
            json_types=("UBIGINT", "BIGINT"),
            wrappers=("$numberLong",),
            stored="coalesce({0}->>'$.\"$numberLong\"', {0}::VARCHAR)::BIGINT".format,
            rank=1,
            statistics=Statistics(has_median=True, whole=True),
            parse=_number,
            names_rows=True,
            cell=Cell.NUMBER,
        ),
        ColumnType(
            ColumnKind.NUMBER,
            json_types=("HUGEINT", "DOUBLE"),
            wrappers=("$numberDouble",),
            stored="coalesce({0}->>'$.\"$numberDouble\"', {0}->>'$.\"$numberLong\"', {0}::VARCHAR)".format,
            rank=2,
            is_digits=True,
            comparable=_FLOATING,
            statistics=Statistics(has_median=True),
            parse=_number,
            cell=Cell.NUMBER,
            parquet="{0}::DOUBLE".format,
        ),
        ColumnType(
            ColumnKind.DECIMAL,
            wrappers=("$numberDecimal",),
            stored=(
                "coalesce({0}->>'$.\"$numberDecimal\"', {0}->>'$.\"$numberDouble\"', "
                "{0}->>'$.\"$numberLong\"', {0}::VARCHAR)"
            ).format,
            rank=3,
            is_digits=True,
            comparable=_FLOATING,
            statistics=Statistics(has_median=True),
            parse=_number,
            cell=Cell.NUMBER,
            is_exact=True,
        ),
        ColumnType(
            ColumnKind.DATE,
            wrappers=("$date",),
            stored=(
                f"coalesce(epoch_ms({_MILLISECONDS}), "
                "CASE WHEN json_type({0}, '$.\"$date\"') = 'VARCHAR' "
                "THEN rtrim({0}->>'$.\"$date\"', 'Z')::TIMESTAMP END)"
            ).format,
            fits=(
                f"coalesce(min({_MILLISECONDS}) > {-MAX_INSTANT} AND max({_MILLISECONDS}) < {MAX_INSTANT}, true)"
            ).format,
            text=_ISO.format,
            statistics=Statistics(has_median=True, scale="epoch_ms({0})".format, whole=True, border=_border_in_time),
            parse=_date,
            in_mixed=(
                f"CASE WHEN year({{0}}) BETWEEN 1970 AND 9999 THEN json_object('$date', {_ISO}) "
                "ELSE json_object('$date', json_object('$numberLong', epoch_ms({0})::VARCHAR)) END::VARCHAR"
            ).format,
            names_rows=True,
            cell=Cell.INSTANT,
            parquet="{0} AT TIME ZONE 'UTC'".format,
        ),
        ColumnType(
            ColumnKind.ID,
            wrappers=("$oid", "$uuid"),
            stored="coalesce({0}->>'$.\"$oid\"', {0}->>'$.\"$uuid\"')".format,
            statistics=Statistics(),
            in_mixed=(
                f"json_object(CASE WHEN length({{0}}) = {OID_DIGITS} THEN '$oid' ELSE '$uuid' END, {{0}})::VARCHAR"
            ).format,
            names_rows=True,
        ),
        ColumnType(
            ColumnKind.TEXT,
            json_types=("VARCHAR",),
            wrappers=("$symbol",),
            stored="CASE WHEN json_type({0}) = 'VARCHAR' THEN {0}->>'$' ELSE {0}->>'$.\"$symbol\"' END".format,
            empty="{0} = ''".format,
            statistics=Statistics(),
            in_mixed="to_json({0})::VARCHAR".format,
            names_rows=True,
            may_be_formula=True,
        ),
        ColumnType(
            ColumnKind.LIST,
            json_types=("ARRAY",),
            is_json=True,
            comparable=_LENGTH,
            empty="json_array_length({0}) = 0".format,
            statistics=Statistics(has_median=True, of_lengths=True, whole=True),
            parquet=_JSON,
        ),
        ColumnType(ColumnKind.DOCUMENT, json_types=("OBJECT",), spreads=True, is_json=True, parquet=_JSON),
        ColumnType(
            ColumnKind.MIXED,
            is_json=True,
            statistics=Statistics(has_range=False),
            in_mixed=("coalesce({0}::JSON->>'$.\"$numberDecimal\"', {0}::JSON->>'$.\"$numberDouble\"', {0})").format,
            names_rows=True,
            parquet=_JSON,
            may_be_formula=True,
        ),
        ColumnType(ColumnKind.NOTHING, is_json=True),
    )
}

#: The types by what stands in JSON, and by the key of Extended JSON.
BY_JSON_TYPE = {name: each.kind for each in COLUMN_TYPES.values() for name in each.json_types}
BY_WRAPPER = {name: each.kind for each in COLUMN_TYPES.values() for name in each.wrappers}


def common_kind(kinds: set[ColumnKind]) -> ColumnKind:
    """The kind of a column with values of these kinds: that which holds all of them."""
    if not kinds:
        return ColumnKind.NOTHING
    if len(kinds) == 1:
        return next(iter(kinds))
    if all(COLUMN_TYPES[kind].is_number for kind in kinds):
        return max(kinds, key=lambda kind: COLUMN_TYPES[kind].rank)
    return ColumnKind.MIXED

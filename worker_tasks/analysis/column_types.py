"""The table of column types. It contains everything in the analysis of results that depends on a column's type.

SQL expressions are templates. They are filled with the name of a column, or with an expression for its JSON. This
module does no I/O and does not import DuckDB.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum, auto
from typing import Any

from worker_tasks.analysis import extended_sql as sql
from worker_tasks.joins.spec.typed_numbers import numeric_text

#: Makes an SQL expression from the name of a column.
Expression = Callable[[str], str]
#: The operand of a condition, as a pair. The first item is the value. If the value stands for a range, such as a day,
#: the second item is the first value after the range; otherwise, it is None.
Operand = tuple[Any, Any]

OID_DIGITS, OLD_UUID_DIGITS = 24, 32
#: The number of significant digits in the borders of histogram bars.
DIGITS = 4
#: The JSON type of documents, and of values in Extended JSON.
OBJECT = "OBJECT"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class ColumnKind(StrEnum):
    """The type of all values of a column."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    DATE = "date"
    ID = "id"
    TEXT = "text"
    LIST = "list"
    DOCUMENT = "document"
    #: Values of several types, or of a type that has no column type.
    MIXED = "mixed"
    #: Only nulls.
    NOTHING = "nothing"


class Cell(Enum):
    """The types of cells in a workbook."""

    NUMBER = auto()
    BOOLEAN = auto()
    INSTANT = auto()
    TEXT = auto()
    #: The type of each value decides.
    ANY = auto()


def _text(text: str) -> Operand:
    return text, None


def _number(text: str) -> Operand:
    return Decimal(numeric_text(text)), None


def _length(text: str) -> Operand:
    """Parses a number of values, or a whole list as JSON."""
    if not text.lstrip().startswith("["):
        return _number(text)
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")), None
    except (ValueError, RecursionError):
        raise ValueError(f"“{text}” is neither a number of values nor a list as JSON.") from None


def _boolean(text: str) -> Operand:
    if text.strip().lower() not in {"true", "false"}:
        raise ValueError("give true or false.")
    return text.strip().lower() == "true", None


def _date(text: str) -> Operand:
    """Parses a timestamp or a day. A day stands for all times in it."""
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.tzinfo is not None:
            instant = instant.astimezone(UTC).replace(tzinfo=None)
        # The range ends a microsecond before the next day, because datetime cannot hold the day after 9999-12-31.
        # Stored timestamps are whole milliseconds, so the range still contains all of them.
        return instant, instant + timedelta(days=1, microseconds=-1) if _DAY.fullmatch(text.strip()) else None
    except (ValueError, OverflowError):
        raise ValueError(f"“{text}” is not a date: write it as 2026-01-31 or 2026-01-31T18:30, in UTC.") from None


def _border(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS}g}"


def _instant_border(milliseconds: float) -> str:
    try:
        return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
    except OverflowError:
        # The year is outside the range of datetime.
        return f"{milliseconds} ms"


@dataclass(frozen=True)
class Statistics:
    """The statistics for columns of a type.

    Attributes:
        has_range: whether to compute the minimum and maximum.
        has_median: whether to compute the median and a histogram.
        of_lengths: whether values are compared by length only.
        all_named: whether to list the frequent values even if no value occurs twice.
        scale: converts a value to a number for the histogram.
        is_integral: whether the numbers on the histogram's scale are integers.
        border: formats the border of a bar in the histogram.
    """

    has_range: bool = True
    has_median: bool = False
    of_lengths: bool = False
    all_named: bool = False
    scale: Expression = "{0}".format
    is_integral: bool = False
    border: Callable[[float], str] = _border


@dataclass(frozen=True)
class ColumnType:
    """A column type.

    Attributes:
        json_types: the names of the type in DuckDB's ``json_type()``.
        wrappers: the keys of the type in Extended JSON, each with a condition on the object that has only this key.
            Other content is data that only looks like the type.
        stored: converts JSON of the type to the value in the table.
        spreads: whether the fields of the values become separate columns.
        rank: the order of the number types. A type can hold the numbers of all types below it. Other types have rank 0.
        is_json: whether the table holds the values as JSON.
        is_digits: whether the table holds the values as their original digits.
        comparable: converts a value for sorting and statistics.
        text: converts a value to text.
        empty: whether a value is empty.
        statistics: the statistics of the type's columns; None if they have none.
        parse: parses a value that a person typed.
        in_mixed: converts a value to its form in a mixed column, to compare it with one from another result.
        compared: converts a value for the comparison with a column of the same type; None if ``text`` does.
        names_rows: whether a column of the type can identify rows.
        cell: the type of cells in a workbook.
        parquet: converts a value for a Parquet file.
        is_exact: whether Parquet files contain decimals with as many digits as needed. ``parquet`` is then unused.
        may_be_formula: whether CSV files need escapes, because a spreadsheet may take text for a formula.
    """

    kind: ColumnKind
    json_types: tuple[str, ...] = ()
    wrappers: Mapping[str, Expression] = field(default_factory=dict)
    stored: Expression = "{0}::VARCHAR".format
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
    compared: Expression | None = None
    names_rows: bool = False
    cell: Cell = Cell.TEXT
    parquet: Expression = "{0}".format
    is_exact: bool = False
    may_be_formula: bool = False

    @property
    def is_number(self) -> bool:
        return self.rank > 0

    @property
    def of_lengths(self) -> bool:
        """Whether values are compared by their lengths."""
        return self.statistics is not None and self.statistics.of_lengths

    @property
    def is_floating(self) -> bool:
        """Whether the values are floating-point numbers."""
        return self.is_digits and not self.is_exact


_FLOATING = "TRY_CAST({0} AS DOUBLE)".format
_ARRAY_LENGTH = "json_array_length({0})".format
_JSON = "{0}::JSON".format
_ISO = (
    "CASE WHEN microsecond({0}) % 1000000 = 0 THEN strftime({0}, '%Y-%m-%dT%H:%M:%SZ') "
    "ELSE strftime({0}, '%Y-%m-%dT%H:%M:%S.%gZ') END"
)


def shape_of(json: str) -> str:
    """SQL for the shape of a JSON value: its JSON type, or the first key of an object that may stand for a value."""
    keys = f"json_keys({json})"
    # Code with its scope is one value. Other objects of several keys are documents.
    return (
        f"CASE WHEN json_type({json}) = '{OBJECT}' AND starts_with({keys}[1], '$') "
        f"AND (len({keys}) = 1 OR {keys} = ['$code', '$scope']) THEN {keys}[1] ELSE json_type({json}) END"
    )


def kind_of(json: str, shapes: Collection[str] | None = None) -> str:
    """SQL for the kind of a JSON value: that of a column of such values. NULL for null and for a missing value.

    Args:
        shapes: the shapes that occur, to make the expression shorter; by default, any.
    """
    kinds = " ".join(
        f"WHEN '{wrapper}' THEN CASE WHEN {condition(json)} THEN '{each.kind}' ELSE '{ColumnKind.MIXED}' END"
        for each in COLUMN_TYPES.values()
        for wrapper, condition in each.wrappers.items()
        if shapes is None or wrapper in shapes
    )
    plain = " ".join(
        f"WHEN '{name}' THEN '{each.kind}'"
        for each in COLUMN_TYPES.values()
        for name in each.json_types
        if shapes is None or name in shapes
    )
    return f"CASE {shape_of(json)} {plain} {kinds} WHEN 'NULL' THEN NULL ELSE {_IF_ODD.format(json)} END"


#: The kind of a value whose shape belongs to no kind.
_IF_ODD = f"CASE WHEN {{0}} IS NOT NULL THEN '{ColumnKind.MIXED}' END"


def mixed_text(column: str) -> str:
    """SQL for the text of a value in a mixed column, as a column of its own type has it."""
    json = f"{column}::JSON"
    texts = " ".join(
        f"WHEN '{each.kind}' THEN {each.text(each.stored(json))}"
        for each in COLUMN_TYPES.values()
        if each.wrappers or "VARCHAR" in each.json_types
    )
    return f"CASE {kind_of(json)} {texts} ELSE {column} END"


def _in_mixed(column: str) -> str:
    json = f"{column}::JSON"
    forms = " ".join(
        f"WHEN '{kind}' THEN {COLUMN_TYPES[kind].in_mixed(COLUMN_TYPES[kind].stored(json))}"
        for kind in (ColumnKind.INTEGER, ColumnKind.NUMBER, ColumnKind.DECIMAL, ColumnKind.ID, ColumnKind.DATE)
    )
    return f"CASE {kind_of(json)} {forms} ELSE {column} END"


COLUMN_TYPES: Mapping[ColumnKind, ColumnType] = {
    each.kind: each
    for each in (
        ColumnType(
            ColumnKind.BOOLEAN,
            json_types=("BOOLEAN",),
            stored="({0})::BOOLEAN".format,
            # A minimum and a maximum of true and false would be meaningless.
            statistics=Statistics(has_range=False, all_named=True),
            parse=_boolean,
            cell=Cell.BOOLEAN,
        ),
        ColumnType(
            ColumnKind.INTEGER,
            json_types=("UBIGINT", "BIGINT"),
            wrappers={"$numberLong": sql.IS_LONG.format},
            stored="coalesce({0}->>'$.\"$numberLong\"', {0}::VARCHAR)::BIGINT".format,
            rank=1,
            statistics=Statistics(has_median=True, is_integral=True),
            parse=_number,
            names_rows=True,
            cell=Cell.NUMBER,
        ),
        ColumnType(
            ColumnKind.NUMBER,
            json_types=("HUGEINT", "DOUBLE"),
            wrappers={"$numberDouble": sql.IS_DOUBLE.format},
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
            wrappers={"$numberDecimal": sql.IS_DECIMAL.format},
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
            wrappers={"$date": sql.IS_INSTANT.format},
            stored=sql.INSTANT.format,
            text=_ISO.format,
            statistics=Statistics(
                has_median=True, scale="epoch_ms({0})".format, is_integral=True, border=_instant_border
            ),
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
            wrappers={
                "$oid": sql.IS_OID.format,
                "$uuid": sql.IS_UUID.format,
                # Results of older versions contain UUIDs in this form.
                "$binary": sql.IS_BINARY_UUID.format,
            },
            stored=sql.ID.format,
            statistics=Statistics(),
            in_mixed=(
                f"CASE length({{0}}) WHEN {OLD_UUID_DIGITS} THEN {sql.OLD_UUID} WHEN {OID_DIGITS} "
                "THEN json_object('$oid', {0}) ELSE json_object('$uuid', {0}) END::VARCHAR"
            ).format,
            names_rows=True,
        ),
        ColumnType(
            ColumnKind.TEXT,
            json_types=("VARCHAR",),
            wrappers={"$symbol": sql.IS_SYMBOL.format},
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
            comparable=_ARRAY_LENGTH,
            empty="json_array_length({0}) = 0".format,
            statistics=Statistics(has_median=True, of_lengths=True, is_integral=True),
            parse=_length,
            parquet=_JSON,
        ),
        ColumnType(ColumnKind.DOCUMENT, json_types=(OBJECT,), spreads=True, is_json=True, parquet=_JSON),
        ColumnType(
            ColumnKind.MIXED,
            is_json=True,
            text=mixed_text,
            statistics=Statistics(has_range=False),
            in_mixed=_in_mixed,
            compared="{0}".format,
            cell=Cell.ANY,
            names_rows=True,
            parquet=_JSON,
            may_be_formula=True,
        ),
        ColumnType(ColumnKind.NOTHING, is_json=True),
    )
}

#: The kinds of values whose shape is enough to tell.
BY_JSON_TYPE = {name: each.kind for each in COLUMN_TYPES.values() for name in each.json_types}


def common_kind(kinds: set[ColumnKind]) -> ColumnKind:
    """The kind of column that can hold values of all these kinds."""
    if not kinds:
        return ColumnKind.NOTHING
    if len(kinds) == 1:
        return next(iter(kinds))
    if all(COLUMN_TYPES[kind].is_number for kind in kinds):
        return max(kinds, key=lambda kind: COLUMN_TYPES[kind].rank)
    return ColumnKind.MIXED

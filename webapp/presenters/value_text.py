"""Times, sizes, shares and MongoDB's values in readable form. Pure: no I/O."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import humanize

from worker_tasks.analysis.extended_values import is_one_value, is_typed, plain_value
from worker_tasks.analysis.profiles import joined_first
from worker_tasks.joins.preflight import findings

Document = dict[str, Any]

MINUTE_SECONDS = 60


class FormatText(NamedTuple):
    """The name of a file format and its purpose."""

    name: str
    use: str


#: The text for each format, by the format's label.
FORMAT_TEXTS = {
    "csv": FormatText("CSV", "Any spreadsheet or program; nested fields under dotted names, lists as JSON."),
    "excel": FormatText(
        "Excel", "Numbers and dates as such, a filter over every column; a sheet says where it comes from."
    ),
    "parquet": FormatText("Parquet", "DuckDB, pandas, Spark: typed columns, exact decimals, small."),
    "json": FormatText("JSON", "All documents in one array, as MongoDB's relaxed Extended JSON."),
    "json_lines": FormatText("JSON lines", "A document a line, as mongoimport and jq take them."),
}


def bson_value(value: Any) -> Any:
    """A value of relaxed Extended JSON in readable form: the text of ``{"$date": …}``, ``{"$oid": …}`` and so on.

    A document that only looks like such a value is returned as it is.
    """
    instant = instant_of(value)
    return plain_value(value) if instant is None else format_iso_instant(instant)


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def columns_of(documents: list[Document]) -> list[str]:
    """The fields of these documents, in order of first appearance."""
    return list(dict.fromkeys(field for document in documents for field in document))


def joined_columns(documents: list[Document], join: Document | None, columns: list[str] | None = None) -> list[str]:
    """The columns of joined rows. Keys and embedded fields come first, unless the join selects fields.

    A column of documents is replaced by one column for each of their fields, under a dotted name.
    """
    columns = columns_of(documents) if columns is None else columns
    return [name for column in joined_first(columns, join) for name in _flatten(documents, column)]


def _flatten(documents: list[Document], column: str) -> list[str]:
    values = [document[column] for document in documents if document.get(column) is not None]
    nested = [value for value in values if isinstance(value, dict) and value and not is_one_value(value)]
    if not nested or len(nested) < len(values):
        return [column]
    return [f"{column}.{name}" for name in columns_of(nested)]


def value_at(document: Document, column: str) -> tuple[bool, Any]:
    """Whether a document has a value under this dotted name, and the value."""
    if column in document:
        return True, document[column]
    for head, inner in document.items():
        # Field names may themselves contain dots.
        if not column.startswith(f"{head}."):
            continue
        if inner is None:
            # A field inside null counts as null, not as missing.
            return True, None
        if isinstance(inner, dict):
            is_present, value = value_at(inner, column[len(head) + 1 :])
            if is_present:
                return True, value
    return False, None


def format_ago(instant: datetime) -> str:
    """An instant relative to now, such as ``2 minutes ago`` or ``in 4 minutes``."""
    span = datetime.now(UTC) - instant
    text = humanize.naturaldelta(span)
    if text == "a moment":
        return "now"
    return f"{text} ago" if span > timedelta() else f"in {text}"


def format_iso_instant(text: str) -> str:
    """An instant in ISO 8601 in readable form, such as ``2026-11-20 22:15:03 UTC``."""
    return text.replace("T", " ").replace("Z", " UTC")


def instant_of(value: Any) -> str | None:
    """The ISO 8601 text of ``{"$date": …}``; None for any other value of relaxed Extended JSON."""
    return plain_value(value) if isinstance(value, dict) and value.keys() == {"$date"} and is_typed(value) else None


def format_instant(instant: datetime) -> str:
    """An instant in readable form, such as ``2026-11-20 22:15:03 UTC``."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(span: timedelta) -> str:
    """A duration with its unit, such as ``42 ms``, ``3.2 s`` or ``1 minute and 5 seconds``."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < MINUTE_SECONDS:
        return f"{seconds:.1f} s"
    return humanize.precisedelta(span, minimum_unit="seconds", format="%d")


def format_number(value: int) -> str:
    """A number with separators, such as ``12,345``."""
    return f"{value:,}"


def format_count(value: int, noun: str) -> str:
    """A number with its noun, such as ``1 row`` or ``12,345 rows``."""
    return f"{format_number(value)} {noun}{'' if value == 1 else 's'}"


def format_quoted(texts: Iterable[str]) -> str:
    """A list of names in quotation marks, such as ``“ticket”, “team”``."""
    return ", ".join(f"“{text}”" for text in texts)


def ordinal(row: int) -> int:
    """The displayed number of a row. Rows are displayed from 1, but counted from 0 elsewhere."""
    return row + 1


def format_seconds(number: float) -> str:
    return format_duration(timedelta(seconds=number))


def format_size(number_of_bytes: int) -> str:
    return humanize.naturalsize(number_of_bytes, binary=True)


def format_estimated_size(number_of_bytes: int) -> str:
    """An estimated size without false precision: ``230 KiB``, ``1.2 GiB``."""
    number, _, unit = format_size(number_of_bytes).partition(" ")
    return f"{float(number):.0f} {unit}" if float(number) >= 10 else f"{number} {unit}"  # noqa: PLR2004 - two digits


def format_share(part: float) -> str:
    """A share as a percentage, such as ``83 %``. Only exact values are shown as 0 % or 100 %."""
    return findings.format_percent(part)


def format_estimate(number: int) -> str:
    """An estimated number, rounded to two digits: ``340,000``."""
    digits = len(str(number))
    return humanize.intcomma(round(number, 2 - digits) if digits > 2 else number)  # noqa: PLR2004 - two digits


def are_documents(values: list[Any]) -> bool:
    """Whether every value is a document."""
    return all(isinstance(value, dict) for value in values)


def has_lists(documents: list[Document]) -> bool:
    """Whether any field holds a list of several values."""
    return any(isinstance(value, list) and len(value) > 1 for document in documents for value in document.values())


def format_list(names: Sequence[str]) -> str:
    """A list of names, such as ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))

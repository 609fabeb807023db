"""Values as people read them: times, sizes, shares, what MongoDB stores. Pure: no I/O."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import humanize

from worker_tasks.analysis.profiles import joined_first
from worker_tasks.joins.preflight import findings

Document = dict[str, Any]

MINUTE_SECONDS = 60


class FormatWords(NamedTuple):
    """The name of a file format, and what it is good for."""

    name: str
    use: str


#: By the labels of the formats.
FORMAT_WORDS = {
    "csv": FormatWords("CSV", "Any spreadsheet or program; nested fields under dotted names, lists as JSON."),
    "excel": FormatWords(
        "Excel", "Numbers and dates as such, a filter over every column; a sheet says where it comes from."
    ),
    "parquet": FormatWords("Parquet", "DuckDB, pandas, Spark: typed columns, exact decimals, small."),
    "json": FormatWords("JSON", "All documents in one array, as MongoDB's relaxed Extended JSON."),
    "json_lines": FormatWords("JSON lines", "A document a line, as mongoimport and jq take them."),
}


def bson_value(value: Any) -> Any:
    """A value of relaxed Extended JSON as a person reads it: ``{"$date": …}`` is an instant, and so on."""
    if isinstance(value, dict) and len(value) == 1:
        (kind, inner), *_ = value.items()
        if kind == "$date" and isinstance(inner, str):
            return format_iso_instant(inner)
        if kind in {"$oid", "$numberDecimal", "$numberDouble", "$numberLong"}:
            return inner
    return value


def columns_of(documents: list[Document]) -> list[str]:
    """Every field of these documents, in the order in which they are first seen."""
    return list(dict.fromkeys(field for document in documents for field in document))


def joined_columns(documents: list[Document], join: Document | None, columns: list[str] | None = None) -> list[str]:
    """The columns of joined rows: first what was matched by and what was brought in, unless fields were chosen.

    A document of its own is spread over columns of its fields, by dotted name.
    """
    columns = columns_of(documents) if columns is None else columns
    return [spread for column in joined_first(columns, join) for spread in _spread(documents, column)]


def _spread(documents: list[Document], column: str) -> list[str]:
    there = [document[column] for document in documents if document.get(column) is not None]
    nested = [value for value in there if isinstance(value, dict) and bson_value(value) is value and value]
    if not nested or len(nested) < len(there):
        return [column]
    return [f"{column}.{name}" for name in columns_of(nested)]


def at_column(document: Document, column: str) -> tuple[bool, Any]:
    """Whether a row has something in a column of this dotted name, and what."""
    if column in document:
        return True, document[column]
    for head, inner in document.items():
        # The names of fields may have dots as well.
        if not column.startswith(f"{head}."):
            continue
        if inner is None:
            # What is inside of null is null, and not missing.
            return True, None
        if isinstance(inner, dict):
            there, value = at_column(inner, column[len(head) + 1 :])
            if there:
                return True, value
    return False, None


def format_ago(instant: datetime) -> str:
    """``2 minutes ago`` or ``in 4 minutes``."""
    span = datetime.now(UTC) - instant
    words = humanize.naturaldelta(span)
    if words == "a moment":
        return "now"
    return f"{words} ago" if span > timedelta() else f"in {words}"


def format_iso_instant(text: str) -> str:
    """An instant of ISO 8601 in UTC: ``2026-11-20 22:15:03 UTC``."""
    return text.replace("T", " ").replace("Z", " UTC")


def instant_of(value: Any) -> str | None:
    """The instant that a value of relaxed Extended JSON is, as ISO 8601; None where it is another value."""
    if isinstance(value, dict) and value.keys() == {"$date"} and isinstance(value["$date"], str):
        return value["$date"]
    return None


def format_instant(instant: datetime) -> str:
    """``2026-11-20 22:15:03 UTC``."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(span: timedelta) -> str:
    """``42 ms``, ``3.2 s``, ``1 minute and 5 seconds``."""
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < MINUTE_SECONDS:
        return f"{seconds:.1f} s"
    return humanize.precisedelta(span, minimum_unit="seconds", format="%d")


def number(value: int) -> str:
    """``12,345``."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """``1 row``, ``12,345 rows``."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def quoted(texts: Iterable[str]) -> str:
    """``“ticket”, “team”``."""
    return ", ".join(f"“{text}”" for text in texts)


def place(row: int) -> int:
    """The place of a row among all, from 1 on: its number is counted from 0."""
    return row + 1


def format_seconds(number: float) -> str:
    return format_duration(timedelta(seconds=number))


def format_size(number_of_bytes: int) -> str:
    return humanize.naturalsize(number_of_bytes, binary=True)


def format_about_size(number_of_bytes: int) -> str:
    """A size that was estimated: ``230 KiB``, ``1.2 GiB``."""
    number, _, unit = format_size(number_of_bytes).partition(" ")
    return f"{float(number):.0f} {unit}" if float(number) >= 10 else f"{number} {unit}"  # noqa: PLR2004 - two figures


def format_share(part: float) -> str:
    """``83 %``; never 0 or 100 for what is only nearly so."""
    return findings.format_percent(part)


def format_about(number: int) -> str:
    """A number that was estimated, to two figures: ``340,000``."""
    digits = len(str(number))
    return humanize.intcomma(round(number, 2 - digits) if digits > 2 else number)  # noqa: PLR2004 - figures


def holds_documents(values: list[Any]) -> bool:
    """Whether these are documents, all of them."""
    return all(isinstance(value, dict) for value in values)


def has_lists(documents: list[Document]) -> bool:
    """Whether some field holds several documents."""
    return any(isinstance(value, list) and len(value) > 1 for document in documents for value in document.values())


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))

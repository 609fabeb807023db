"""Columns of a result as bars and as text. Pure: no I/O."""

from collections.abc import Callable
from dataclasses import dataclass

import humanize

from webapp.presenters.value_text import format_iso_instant, format_share
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.profiles import Column

#: Minimum height of a bar that is not empty, and minimum share of a value worth drawing.
MIN_SHARE = 0.04
#: The maximum length of a value beside a small chart.
SHORT_LENGTH = 14
#: In a chart of the most frequent values: the number of bars, the height of each, and the distance between their tops.
HORIZONTAL_BARS, HORIZONTAL_BAR_HEIGHT, HORIZONTAL_BAR_STEP = 4, 4, 5
#: The maximum length of a value that links to its rows.
MAX_SEARCHABLE_LENGTH = 80


@dataclass(frozen=True)
class Bar:
    """A rectangle of a chart, in the chart's units, and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    label: str


def bars(column: Column, width: int, height: int) -> list[Bar]:
    """The histogram of a column, with a vertical bar for each bin."""
    highest = max((each.count for each in column.bins), default=0)
    if not highest:
        return []
    step = width / len(column.bins)
    drawn = []
    for number, each in enumerate(column.bins):
        tall = height * max(each.count / highest, MIN_SHARE if each.count else 0)
        label = f"{_format_range(column, each.low, each.high)}: {humanize.intcomma(each.count)}"
        drawn.append(Bar(round(number * step, 2), round(height - tall, 2), round(step - 1, 2), round(tall, 2), label))
    return drawn


def bar_length(column: Column, count: int, width: int) -> float:
    """The length of a bar for ``count`` of all values of a column."""
    return round(max(width * count / max(column.filled, 1), 1), 2)


def horizontal_bars(column: Column, width: int) -> list[Bar]:
    """The most frequent values as horizontal bars, one below the other."""
    drawn = []
    for place, (value, count) in enumerate(column.top[:HORIZONTAL_BARS]):
        length, label = bar_length(column, count, width), f"{value}: {humanize.intcomma(count)}"
        drawn.append(Bar(0, place * HORIZONTAL_BAR_STEP, length, HORIZONTAL_BAR_HEIGHT, label))
    return drawn


def filled_length(column: Column, width: int) -> float:
    """The length of the bar for the fullness of a column."""
    return width * fullness(column)


def has_frequent_values(column: Column) -> bool:
    """Whether the most frequent value is frequent enough to be drawn."""
    return bool(column.top) and column.top[0][1] >= MIN_SHARE * column.filled


def describe_others(column: Column) -> str:
    """The values outside the chart, such as ``3 other values: 4 rows``; empty if the chart shows every value."""
    if column.distinct is None or column.distinct <= len(column.top):
        return ""
    values, rows = column.distinct - len(column.top), column.filled - sum(count for _, count in column.top)
    text = f"{humanize.intcomma(values)} other {'value' if values == 1 else 'values'}"
    return f"{text}: {humanize.intcomma(rows)} {'row' if rows == 1 else 'rows'}"


def fullness(column: Column) -> float:
    """The share of rows with a value in this column. Empty lists and texts do not count."""
    return (column.filled - column.empty) / max(column.rows, 1)


def describe_shape(column: Column) -> str:
    """The caption of a column's chart: its range or number of values, and its fullness below 100 %."""
    share, text = fullness(column), describe_column_briefly(column)
    return text if share >= 1 else f"{text}, {format_share(share)} filled"


def describe_kind_and_values(column: Column) -> str:
    """The type and the number of values of a column, such as ``whole numbers, 12 values``."""
    return ", ".join(filter(None, [describe_values(column), describe_distinct(column)]))


def describe_range(column: Column) -> str:
    """The minimum, median and maximum of a column in a sentence."""
    minimum, median, maximum = (format_value(column, value) for value in (column.min, column.median, column.max))
    if column.min == column.max:
        return f"All are {minimum}."
    return f"From {minimum} to {maximum}, half of them up to {median}."


def is_searchable(column: Column, value: str) -> bool:
    """Whether the page links a value to its rows."""
    return not column.type.is_json and len(value) < MAX_SEARCHABLE_LENGTH


def describe_filled(column: Column) -> str:
    """The fullness of a column, such as ``83 % filled, 12 null, 3 missing``."""
    gaps = [(column.nulls, "null"), (column.missing, "missing"), (column.empty, "empty")]
    counts = "".join(f", {humanize.intcomma(count)} {word}" for count, word in gaps if count)
    return f"{format_share(fullness(column))} filled{counts}"


def describe_distinct(column: Column) -> str:
    if column.distinct is None:
        return ""
    if column.is_unique and column.filled > 1:
        return "all different"
    return f"{humanize.intcomma(column.distinct)} {'value' if column.distinct == 1 else 'values'}"


def _shorten(value: str | None) -> str:
    text = value or ""
    if len(text) <= SHORT_LENGTH:
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return f"{text[:SHORT_LENGTH]}…"


def describe_column(column: Column) -> str:
    """The chart of a column in a sentence."""
    if column.bins:
        fullest = max(column.bins, key=lambda each: each.count)
        where = _format_range(column, fullest.low, fullest.high)
        part = format_share(fullest.count / max(column.filled, 1))
        half = f" half of them up to {format_value(column, column.median)};" if column.median is not None else ""
        return (
            f"From {format_value(column, column.min)} to {format_value(column, column.max)};{half} "
            f"the fullest of {len(column.bins)} equal ranges is {where} with {part}."
        )
    if column.top:
        value, count = column.top[0]
        return f"Most often {format_value(column, value)}: {format_share(count / max(column.filled, 1))}."
    return ""


def _format_range(column: Column, low: str, high: str) -> str:
    return format_value(column, low) if low == high else f"{format_value(column, low)} to {format_value(column, high)}"


def _share_true(column: Column) -> str:
    return f"{format_share(dict(column.top).get('true', 0) / column.filled)} true"


def _lengths(column: Column) -> str:
    return f"{column.min} to {column.max} long"


def _days(column: Column) -> str:
    return f"{column.min[:10]} to {column.max[:10]}" if column.min and column.max else ""


def _range(column: Column) -> str:
    if column.median is None:
        return ""
    minimum, maximum = _shorten(column.min), _shorten(column.max)
    return minimum if minimum == maximum else f"{minimum} to {maximum}"


def _text(value: str) -> str:
    return value or "(empty text)"


def _whole_number(value: str) -> str:
    # A number with four digits may be a year, which has no separator.
    return humanize.intcomma(value) if len(value.lstrip("-")) > 4 else value  # noqa: PLR2004


@dataclass(frozen=True)
class KindText:
    """The text for a kind of column.

    ``label`` names its values. ``short`` gives the range of a column, or an empty string. ``value`` formats one value,
    which comes as text.
    """

    label: str
    short: Callable[[Column], str] = _range
    value: Callable[[str], str] = _text


KINDS = {
    ColumnKind.BOOLEAN: KindText("true or false", short=_share_true),
    ColumnKind.INTEGER: KindText("whole numbers", value=_whole_number),
    ColumnKind.NUMBER: KindText("numbers"),
    ColumnKind.DECIMAL: KindText("exact decimals"),
    ColumnKind.DATE: KindText("instants", short=_days, value=format_iso_instant),
    ColumnKind.ID: KindText("ids"),
    ColumnKind.TEXT: KindText("text"),
    ColumnKind.LIST: KindText("lists", short=_lengths),
    ColumnKind.DOCUMENT: KindText("documents"),
    ColumnKind.MIXED: KindText("values of several types"),
    ColumnKind.NOTHING: KindText("nothing but null"),
}


def describe_values(column: Column) -> str:
    """The type of a column's values, in words."""
    return KINDS[column.kind].label


def describe_column_briefly(column: Column) -> str:
    """The range of a column or its number of values, in a few words."""
    if column.filled == 0:
        return "empty"
    kind = KINDS[column.kind]
    return kind.short(column) or describe_distinct(column) or kind.label


def format_value(column: Column, value: str | None) -> str:
    """A value from a column's statistics, in readable form."""
    return "nothing" if value is None else KINDS[column.kind].value(value)

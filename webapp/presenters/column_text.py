"""The columns of a result as pictures and in words: bars, what they say, how full a column is. Pure: no I/O."""

from collections.abc import Callable
from dataclasses import dataclass

import humanize

from webapp.presenters.value_text import format_iso_instant, format_share
from worker_tasks.analysis.column_types import ColumnKind
from worker_tasks.analysis.profiles import Column

#: Least height of a bar that stands for something, as a share of the highest.
LEAST = 0.04
#: Characters of a value beside a small picture.
SHORT = 14
#: Bars of a picture that shows the most frequent values, the height of each, and how far apart they begin.
LYING, LYING_HEIGHT, LYING_STEP = 4, 4, 5
#: Characters of a value that rows can be looked for by from here.
MAX_LOOKED_FOR = 80


@dataclass(frozen=True)
class Bar:
    """A rectangle, in units of the picture, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    words: str


def bars(column: Column, width: int, height: int) -> list[Bar]:
    """How the values are spread: upright bars, side by side."""
    counts = [each.count for each in column.bins]
    highest = max(counts, default=0)
    if not highest:
        return []
    step = width / len(counts)
    found = []
    for number, each in enumerate(column.bins):
        tall = height * max(each.count / highest, LEAST if each.count else 0)
        words = f"{_from_to(column, each.low, each.high)}: {humanize.intcomma(each.count)}"
        found.append(Bar(round(number * step, 2), round(height - tall, 2), round(step - 1, 2), round(tall, 2), words))
    return found


def bar_length(column: Column, count: int, width: int) -> float:
    """How long a bar is that stands for so many of all values."""
    return round(max(width * count / max(column.filled, 1), 1), 2)


def lying_bars(column: Column, width: int) -> list[Bar]:
    """The most frequent values: bars that lie, one below the other."""
    found = []
    for place, (value, count) in enumerate(column.top[:LYING]):
        words = f"{value}: {humanize.intcomma(count)}"
        found.append(Bar(0, place * LYING_STEP, bar_length(column, count, width), LYING_HEIGHT, words))
    return found


def filled_length(column: Column, width: int) -> float:
    """How long a bar is that shows how full a column is."""
    return width * fullness(column)


def is_telling(column: Column) -> bool:
    """Whether its most frequent values are frequent enough to be drawn."""
    return bool(column.top) and column.top[0][1] >= LEAST * column.filled


def describe_others(column: Column) -> str:
    """What is left of the values that are not named."""
    if column.distinct is None or column.distinct <= len(column.top):
        return ""
    values, rows = column.distinct - len(column.top), column.filled - sum(count for _, count in column.top)
    said = f"{humanize.intcomma(values)} other {'value' if values == 1 else 'values'}"
    return f"{said}: {humanize.intcomma(rows)} {'row' if rows == 1 else 'rows'}"


def fullness(column: Column) -> float:
    """The share of rows that have something in this column: an empty list or text is nothing."""
    return (column.filled - column.empty) / max(column.rows, 1)


def shape_words(column: Column) -> str:
    """What stands under the picture of a column."""
    full = fullness(column)
    return (
        describe_column_briefly(column)
        if full >= 1
        else f"{describe_column_briefly(column)}, {format_share(full)} filled"
    )


def kind_and_values(column: Column) -> str:
    """``whole numbers, 12 values``."""
    return ", ".join(filter(None, [describe_values(column), describe_distinct(column)]))


def range_sentence(column: Column) -> str:
    """From where to where the values of a column reach."""
    least, middle, most = (format_value(column, value) for value in (column.min, column.median, column.max))
    if column.min == column.max:
        return f"All are {least}."
    return f"From {least} to {most}, half of them up to {middle}."


def can_be_looked_for(column: Column, value: str) -> bool:
    """Whether a value leads to its rows."""
    return not column.type.is_json and len(value) < MAX_LOOKED_FOR


def describe_filled(column: Column) -> str:
    """``100 %``, or what is not there: ``83 % filled, 12 null, 3 missing``."""
    lacks = [(column.nulls, "null"), (column.missing, "missing"), (column.empty, "empty")]
    lacking = "".join(f", {humanize.intcomma(count)} {word}" for count, word in lacks if count)
    return f"{format_share(fullness(column))} filled{lacking}"


def describe_distinct(column: Column) -> str:
    if column.distinct is None:
        return ""
    if column.is_unique and column.filled > 1:
        return "all different"
    return f"{humanize.intcomma(column.distinct)} {'value' if column.distinct == 1 else 'values'}"


def _short(value: str | None) -> str:
    text = value or ""
    if len(text) <= SHORT:
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return f"{text[:SHORT]}…"


def describe_column(column: Column) -> str:
    """What the picture of a column shows, in a sentence."""
    if column.bins:
        most = max(column.bins, key=lambda each: each.count)
        where = _from_to(column, most.low, most.high)
        part = format_share(most.count / max(column.filled, 1))
        half = f" half of them up to {format_value(column, column.median)};" if column.median is not None else ""
        return (
            f"From {format_value(column, column.min)} to {format_value(column, column.max)};{half} "
            f"the fullest of {len(column.bins)} equal ranges is {where} with {part}."
        )
    if column.top:
        value, count = column.top[0]
        return f"Most often {format_value(column, value)}: {format_share(count / max(column.filled, 1))}."
    return ""


def _from_to(column: Column, low: str, high: str) -> str:
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
    least, most = _short(column.min), _short(column.max)
    return least if least == most else f"{least} to {most}"


def _text(value: str) -> str:
    return value or "(empty text)"


def _whole_number(value: str) -> str:
    # Four digits may be a year.
    return humanize.intcomma(value) if len(value.lstrip("-")) > 4 else value  # noqa: PLR2004


@dataclass(frozen=True)
class KindWords:
    """The words for a kind of columns.

    ``label`` says what its values are; ``short`` how far those of a column reach, if that can be said; ``value`` is one
    of them, which comes as text, as a person reads it.
    """

    label: str
    short: Callable[[Column], str] = _range
    value: Callable[[str], str] = _text


KINDS = {
    ColumnKind.BOOLEAN: KindWords("true or false", short=_share_true),
    ColumnKind.INTEGER: KindWords("whole numbers", value=_whole_number),
    ColumnKind.NUMBER: KindWords("numbers"),
    ColumnKind.DECIMAL: KindWords("exact decimals"),
    ColumnKind.DATE: KindWords("instants", short=_days, value=format_iso_instant),
    ColumnKind.ID: KindWords("ids"),
    ColumnKind.TEXT: KindWords("text"),
    ColumnKind.LIST: KindWords("lists", short=_lengths),
    ColumnKind.DOCUMENT: KindWords("documents"),
    ColumnKind.MIXED: KindWords("values of several types"),
    ColumnKind.NOTHING: KindWords("nothing but null"),
}


def describe_values(column: Column) -> str:
    """What the values of a column are."""
    return KINDS[column.kind].label


def describe_column_briefly(column: Column) -> str:
    """A column in a few words: how far it reaches, or how many values it has."""
    if column.filled == 0:
        return "empty"
    words = KINDS[column.kind]
    return words.short(column) or describe_distinct(column) or words.label


def format_value(column: Column, value: str | None) -> str:
    """A value of a column's figures as a person reads it."""
    return "nothing" if value is None else KINDS[column.kind].value(value)

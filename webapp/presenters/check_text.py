"""What the checks of a join found, in words. Pure: no I/O."""

from typing import Any

from webapp.presenters.join_text import cast_name
from webapp.presenters.value_text import Document, counted, format_about, format_about_size, format_seconds, has_lists

#: What a screen reader says of a finding, where others see its mark.
LEVEL_WORDS = {"good": "Good:", "note": "Note:", "warning": "Warning:", "stop": "Wrong:"}


def level_word(level: str) -> str:
    return LEVEL_WORDS[level]


def expected_lines(expected: Document) -> list[tuple[str, str]]:
    """The rows, bytes and seconds that are expected, line by line."""
    lines = (("Rows", "rows", format_about), ("Size", "bytes", format_about_size), ("Takes", "seconds", format_seconds))
    return [(label, _about(expected[name], words)) for label, name, words in lines]


def _about(value: Any, words: Any) -> str:
    return "unknown" if value is None else f"about {words(value)}"


def preview_words(checks: Document) -> str:
    """What the rows are that stand below."""
    rows = counted(len(checks["preview"]), "row")
    kind = ", such as will come, not in their order" if checks["is_sample"] else " as they will come"
    return f"{rows}{kind}{'; lists show five matches at most' if has_lists(checks['preview']) else ''}"


def cure_words(cure: Document, join: Document) -> str:
    """What a press on the button of a finding does."""
    if cure["field"] == "cast":
        return f"Convert to {cast_name(cure['value'])}"
    if cure["field"] == "shape":
        return f"Take the match from {join['joins'][cure['join']]['from']} alone"
    return f"Use {cure['value']}"


def cure_action(cure: Document) -> str:
    """The same as the form says it."""
    return f"cure {cure['join']} {cure['pair']} {cure['field']} {cure['value']}"


def pairs_words(suggestion: Any) -> str:
    """``_id = userId and city = city``: the pairs of a suggestion."""
    return " and ".join(f"{pair.local} = {pair.foreign}" for pair in suggestion.pairs)

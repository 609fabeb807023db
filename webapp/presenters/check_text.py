"""The checks of a join as text. Pure: no I/O."""

from collections.abc import Callable
from typing import Any

from webapp.presenters.join_text import cast_name, collection_of
from webapp.presenters.value_text import (
    Document,
    format_count,
    format_estimate,
    format_estimated_size,
    format_seconds,
    has_lists,
)
from worker_tasks.joins.spec.folds import FOLDS

#: Read out by screen readers in place of the coloured mark of a finding.
LEVEL_LABELS = {"good": "Good:", "note": "Note:", "warning": "Warning:", "stop": "Wrong:"}


def level_label(level: str) -> str:
    return LEVEL_LABELS[level]


def describe_expected(expected: Document) -> list[tuple[str, str]]:
    """The expected rows, size and time as pairs of label and text."""
    return [
        ("Rows", _about(expected["rows"], format_estimate)),
        ("Size", _about(expected["bytes"], format_estimated_size)),
        ("Takes", _about(expected["seconds"], format_seconds)),
    ]


def _about(value: Any, format_value: Callable[[Any], str]) -> str:
    return "unknown" if value is None else f"about {format_value(value)}"


def describe_preview(checks: Document) -> str:
    """The heading over the preview rows."""
    rows = format_count(len(checks["preview"]), "row")
    kind = ", such as will come, not in their order" if checks["is_sample"] else " as they will come"
    return f"{rows}{kind}{'; lists show five matches at most' if has_lists(checks['preview']) else ''}"


def describe_cure(cure: Document, join: Document) -> str:
    """The label of the button that fixes a finding."""
    if cure["field"] == "cast":
        return f"Convert to {cast_name(cure['value'])}"
    if cure["field"] == "shape":
        return f"Take the match from {collection_of(join['joins'][cure['join']])} alone"
    if cure["field"] == "fold":
        return FOLDS[cure["value"]].label.capitalize()
    return f"Use {cure['value']}"


def cure_action(cure: Document) -> str:
    """The form value of the button that fixes a finding: ``cure 0 1 cast objectId``."""
    return f"cure {cure['join']} {cure['pair']} {cure['field']} {cure['value']}"


def describe_pairs(suggestion: Any) -> str:
    """The pairs of a suggestion, such as ``_id = userId and city = city``."""
    return " and ".join(_describe_pair(pair) for pair in suggestion.pairs)


def _describe_pair(pair: Any) -> str:
    folded = f" ({FOLDS[pair.fold].label})" if pair.fold else ""
    return f"{pair.local} = {pair.foreign}{folded}"

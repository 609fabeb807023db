"""What metadata may be: one MongoDB subdocument of bounded size, whose keys can be queried later.

And how two changes of it are merged.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import bson
from bson.errors import InvalidDocument

MAX_KEYS = 50
MAX_KEY_LENGTH = 100
MAX_BYTES = 16 * 1024
MAX_DEPTH = 10
MAX_LABEL_LENGTH = 300

_ABSENT = object()


class Merge(NamedTuple):
    """Metadata merged from two changes; under the keys in conflict it holds what is stored."""

    metadata: dict[str, Any]
    conflicts: list[str]


def apply_changes(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with these keys set; None deletes a key."""
    deleted = {key for key, value in changes.items() if value is None}
    return {key: value for key, value in {**metadata, **changes}.items() if key not in deleted}


def merge(base: Mapping[str, Any], mine: Mapping[str, Any], stored: Mapping[str, Any]) -> Merge:
    """Merges two changes of the same metadata, key by key.

    A key that only one side added, changed or deleted is as that side left it. A key that both sides left
    differently from ``base`` and from each other is a conflict.

    Args:
        base: what both changes began with.
        mine: what one change made of it.
        stored: what the other made of it, which is stored already.
    """
    merged, conflicts = dict(stored), []
    for key in {**base, **mine}:
        was, wanted, now = (side.get(key, _ABSENT) for side in (base, mine, stored))
        if wanted in (was, now):
            continue
        if now != was:
            conflicts.append(key)
        elif wanted is _ABSENT:
            del merged[key]
        else:
            merged[key] = wanted
    return Merge(merged, conflicts)


def metadata_errors(metadata: Any, field: str = "metadata") -> dict[str, str]:
    """What keeps this metadata from being recorded.

    Args:
        field: what the asker calls it; begins the path of each complaint.

    Returns:
        ``{path: what is wrong and what to do}``, empty for good metadata.
    """
    if not isinstance(metadata, dict):
        return {field: "must be an object of keys and values."}
    if len(metadata) > MAX_KEYS:
        return {field: f"has {len(metadata)} keys; at most {MAX_KEYS} are kept."}
    try:
        for path, key in _keys(metadata, field, MAX_DEPTH):
            if complaint := key_error(key):
                return {path: complaint}
    except RecursionError as error:
        return {field: str(error)}
    try:
        size = len(bson.encode(metadata))
    except (OverflowError, UnicodeError, InvalidDocument):
        return {field: "holds a value that MongoDB can not store: numbers have 64 bits, text is valid Unicode."}
    if size > MAX_BYTES:
        return {field: f"takes {size:,} bytes; at most {MAX_BYTES:,} are kept."}
    return {}


def text_of(value: Any) -> str:
    """A value as people read and write it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def label_of(key: str, value: str) -> str:
    """A key with its value, as it is indexed; what is too long is cut, and found by its beginning."""
    return f"{key}\0{value}"[:MAX_LABEL_LENGTH]


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    """Every key with its value; a number and its text are one."""
    return [label_of(key, text_of(value)) for key, value in metadata.items()]


def key_error(key: str) -> str | None:
    """What is wrong with this key of metadata, if anything."""
    if not key.strip():
        return "a key must not be empty."
    if len(key) > MAX_KEY_LENGTH:
        return f"a key has at most {MAX_KEY_LENGTH} characters."
    if any(forbidden in key for forbidden in "$.\0"):
        return "a key must not contain “$”, “.” or NUL, which MongoDB reads as something else."
    return None


def _keys(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every key in a nested value, with its path.

    Raises:
        RecursionError: nested more than ``depth`` times.
    """
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        yield from ((f"{path}.{key}", key) for key in value)
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for name, nested in inner:
        if depth == 0:
            raise RecursionError(f"is nested more than {MAX_DEPTH} times.")
        yield from _keys(nested, f"{path}.{name}", depth - 1)

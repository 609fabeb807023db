"""Validates, merges and labels the metadata of tasks.

Metadata is a MongoDB subdocument of limited size. Searches can use its keys and values.
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
    """The merged metadata. Keys in ``conflicts`` keep their stored value."""

    metadata: dict[str, Any]
    conflicts: list[str]


def apply_changes(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the metadata with these keys set; None deletes a key."""
    deleted = {key for key, value in changes.items() if value is None}
    return {key: value for key, value in {**metadata, **changes}.items() if key not in deleted}


def merge(base: Mapping[str, Any], mine: Mapping[str, Any], stored: Mapping[str, Any]) -> Merge:
    """Merges two changes of the same metadata, key by key.

    If only one side added, changed or deleted a key, that change is applied. If both sides changed a key in different
    ways, the key is a conflict.

    Args:
        base: the metadata that both changes started from.
        mine: the metadata after one change.
        stored: the metadata after the other change, which is already stored.
    """
    merged, conflicts = dict(stored), []
    for key in {**base, **mine}:
        old, new, current = (side.get(key, _ABSENT) for side in (base, mine, stored))
        if new in (old, current):
            continue
        if current != old:
            conflicts.append(key)
        elif new is _ABSENT:
            del merged[key]
        else:
            merged[key] = new
    return Merge(merged, conflicts)


def metadata_errors(metadata: Any, field: str = "metadata") -> dict[str, str]:
    """Validates metadata.

    Args:
        field: the field of the request that holds the metadata. Every path begins with this name.

    Returns:
        ``{path: message}``, empty if the metadata is valid.
    """
    if not isinstance(metadata, dict):
        return {field: "must be an object of keys and values."}
    if len(metadata) > MAX_KEYS:
        return {field: f"has {len(metadata)} keys; at most {MAX_KEYS} are kept."}
    try:
        for path, key in _keys(metadata, field, MAX_DEPTH):
            if message := key_error(key):
                return {path: message}
    except RecursionError as error:
        return {field: str(error)}
    try:
        size = len(bson.encode(metadata))
    except (OverflowError, UnicodeError, InvalidDocument):
        return {field: "holds a value that MongoDB cannot store: numbers have 64 bits, text is valid Unicode."}
    if size > MAX_BYTES:
        return {field: f"takes {size:,} bytes; at most {MAX_BYTES:,} are kept."}
    return {}


def text_of(value: Any) -> str:
    """The text for a value: strings stay unchanged, and other values become JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def label_of(key: str, value: str) -> str:
    """The indexed text of a key and its value, cut to ``MAX_LABEL_LENGTH`` characters."""
    return f"{key}\0{value}"[:MAX_LABEL_LENGTH]


def labels_of(metadata: Mapping[str, Any]) -> list[str]:
    """The labels of all keys. A number has the same label as its text."""
    return [label_of(key, text_of(value)) for key, value in metadata.items()]


def key_error(key: str) -> str | None:
    """The message about an invalid key; None if the key is valid."""
    if not key.strip():
        return "a key must not be empty."
    if len(key) > MAX_KEY_LENGTH:
        return f"a key has at most {MAX_KEY_LENGTH} characters."
    if any(forbidden in key for forbidden in "$.\0"):
        return "a key must not contain “$”, “.” or NUL, which MongoDB reads as something else."
    return None


def _keys(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yields (path, key) for every key in a nested value.

    Raises:
        RecursionError: the value is nested more than ``depth`` times.
    """
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        yield from ((f"{path}.{key}", key) for key in value)
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for name, child in children:
        if depth == 0:
            raise RecursionError(f"is nested more than {MAX_DEPTH} times.")
        yield from _keys(child, f"{path}.{name}", depth - 1)

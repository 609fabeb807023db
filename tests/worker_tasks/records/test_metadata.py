"""The rules for metadata, the paths in messages about invalid metadata, and the merge of two changes."""

from typing import Any

import pytest

from worker_tasks.records.metadata import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_KEY_LENGTH,
    MAX_KEYS,
    apply_changes,
    merge,
    metadata_errors,
)


def nested(times: int) -> Any:
    """A value nested in so many objects."""
    value: Any = "core"
    for _ in range(times):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"reason": "audit", "ünïcödé 🙂": None, "list": [1, 2.5, True, {"a": "b"}]},
        {f"key {number}": number for number in range(MAX_KEYS)},
        {"inner": {f"key {number}": number for number in range(MAX_KEYS + 1)}},
        {"k" * MAX_KEY_LENGTH: ""},
        {"least": -(2**63), "most": 2**63 - 1},
        {"value": "$where a.b"},
        nested(MAX_DEPTH),
    ],
    ids=["none", "any JSON", "most keys", "more keys inside", "longest key", "64 bits", "$ and . in values", "deepest"],
)
def test_valid_metadata_has_no_errors(metadata: dict[str, Any]) -> None:
    assert metadata_errors(metadata) == {}


@pytest.mark.parametrize(
    ("metadata", "path", "message"),
    [
        ("text", "metadata", "must be an object"),
        ([], "metadata", "must be an object"),
        (None, "metadata", "must be an object"),
        ({f"key {number}": 1 for number in range(MAX_KEYS + 1)}, "metadata", "has 51 keys; at most 50"),
        ({"long": "x" * MAX_BYTES}, "metadata", "at most 16,384 are kept"),
        ({"$where": 1}, "metadata.$where", "must not contain"),
        ({"in $ide": 1}, "metadata.in $ide", "must not contain"),
        ({"a.b": 1}, "metadata.a.b", "must not contain"),
        ({"nul\0": 1}, "metadata.nul\0", "must not contain"),
        ({"": 1}, "metadata.", "must not be empty"),
        ({" \t": 1}, "metadata. \t", "must not be empty"),
        ({"k" * 101: 1}, f"metadata.{'k' * 101}", "at most 100 characters"),
        ({"deep": {"er": [0, {"$set": 1}]}}, "metadata.deep.er.1.$set", "must not contain"),
        (nested(MAX_DEPTH + 1), "metadata", "nested more than 10 times"),
        ({"list": [[[[[[[[[[[]]]]]]]]]]]}, "metadata", "nested more than 10 times"),
        ({"number": 2**63}, "metadata", "64 bits"),
        ({"number": -(2**63) - 1}, "metadata", "64 bits"),
        ({"text": "\ud800"}, "metadata", "valid Unicode"),
        ({"\ud800": "key"}, "metadata", "valid Unicode"),
        ({"object": object()}, "metadata", "cannot store"),
    ],
)
def test_an_error_names_the_path_of_the_invalid_value(metadata: Any, path: str, message: str) -> None:
    errors = metadata_errors(metadata)
    assert list(errors) == [path]
    assert message in errors[path]


def test_metadata_may_take_16_kib_of_bson() -> None:
    bytes_around = 5 + 1 + len("text\0") + 4 + 1
    assert metadata_errors({"text": "x" * (MAX_BYTES - bytes_around)}) == {}
    assert metadata_errors({"text": "x" * (MAX_BYTES - bytes_around + 1)}) != {}


def test_a_path_starts_with_the_name_of_the_field() -> None:
    assert list(metadata_errors({"a.b": 1}, "notes")) == ["notes.a.b"]


A, B, C = ({"key": value} for value in "abc")


@pytest.mark.parametrize(
    ("base", "mine", "stored", "merged", "is_conflict"),
    [
        ({}, {}, {}, {}, False),
        (A, A, A, A, False),
        # Only one side changed.
        ({}, A, {}, A, False),
        ({}, {}, A, A, False),
        (A, B, A, B, False),
        (A, A, B, B, False),
        (A, {}, A, {}, False),
        (A, A, {}, {}, False),
        # Both sides made the same change.
        ({}, A, A, A, False),
        (A, B, B, B, False),
        (A, {}, {}, {}, False),
        # If both sides made different changes, the stored value stays.
        ({}, A, B, B, True),
        (A, B, C, C, True),
        (A, B, {}, {}, True),
        (A, {}, B, B, True),
        # A key with the value null counts as present.
        (A, {"key": None}, A, {"key": None}, False),
        (A, {"key": None}, {}, {}, True),
        ({}, {"key": None}, {}, {"key": None}, False),
    ],
)
def test_merging_two_changes_of_a_key(
    base: dict[str, Any], mine: dict[str, Any], stored: dict[str, Any], merged: dict[str, Any], *, is_conflict: bool
) -> None:
    assert merge(base, mine, stored) == (merged, ["key"] if is_conflict else [])


def test_keys_are_merged_independently_and_keep_their_order() -> None:
    base = {"left": 1, "mine": 1, "theirs": 1, "both": 1, "gone": 1}
    mine = {"left": 1, "mine": 2, "theirs": 1, "both": 2, "added": 2}
    stored = {"before": 3, "left": 1, "mine": 1, "theirs": 3, "both": 3, "gone": 1, "after": 3}
    merged, conflicts = merge(base, mine, stored)
    expected = {"before": 3, "left": 1, "mine": 2, "theirs": 3, "both": 3, "after": 3, "added": 2}
    assert (list(merged.items()), conflicts) == (list(expected.items()), ["both"])
    assert stored["mine"] == 1


def test_apply_changes_sets_keys_and_deletes_those_with_none() -> None:
    assert apply_changes({"a": 1, "b": 2, "c": None}, {"a": None, "b": 3, "d": 4, "e": None}) == {
        "b": 3,
        "c": None,
        "d": 4,
    }

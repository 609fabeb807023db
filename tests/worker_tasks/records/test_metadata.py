"""What metadata may be, the path of what it may not, and how two changes of it are merged."""

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
    """A value inside this many objects."""
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
def test_good_metadata_have_no_errors(metadata: dict[str, Any]) -> None:
    assert metadata_errors(metadata) == {}


@pytest.mark.parametrize(
    ("metadata", "path", "words"),
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
        ({"object": object()}, "metadata", "can not store"),
    ],
)
def test_what_can_not_be_kept_is_named_by_its_path(metadata: Any, path: str, words: str) -> None:
    errors = metadata_errors(metadata)
    assert list(errors) == [path]
    assert words in errors[path]


def test_the_largest_that_is_kept_is_16_kib_as_mongodb_counts() -> None:
    bytes_around = 5 + 1 + len("text\0") + 4 + 1
    assert metadata_errors({"text": "x" * (MAX_BYTES - bytes_around)}) == {}
    assert metadata_errors({"text": "x" * (MAX_BYTES - bytes_around + 1)}) != {}


def test_a_path_begins_with_what_the_asker_calls_it() -> None:
    assert list(metadata_errors({"a.b": 1}, "notes")) == ["notes.a.b"]


A, B, C = ({"key": value} for value in "abc")


@pytest.mark.parametrize(
    ("base", "mine", "stored", "merged", "is_conflict"),
    [
        ({}, {}, {}, {}, False),
        (A, A, A, A, False),
        # One side alone.
        ({}, A, {}, A, False),
        ({}, {}, A, A, False),
        (A, B, A, B, False),
        (A, A, B, B, False),
        (A, {}, A, {}, False),
        (A, A, {}, {}, False),
        # Both sides, the same.
        ({}, A, A, A, False),
        (A, B, B, B, False),
        (A, {}, {}, {}, False),
        # Both sides, differently: what is stored stays.
        ({}, A, B, B, True),
        (A, B, C, C, True),
        (A, B, {}, {}, True),
        (A, {}, B, B, True),
        # A key with null is there.
        (A, {"key": None}, A, {"key": None}, False),
        (A, {"key": None}, {}, {}, True),
        ({}, {"key": None}, {}, {"key": None}, False),
    ],
)
def test_two_changes_of_a_key_are_merged(
    base: dict[str, Any], mine: dict[str, Any], stored: dict[str, Any], merged: dict[str, Any], *, is_conflict: bool
) -> None:
    assert merge(base, mine, stored) == (merged, ["key"] if is_conflict else [])


def test_each_key_is_merged_by_itself_and_keeps_its_place() -> None:
    base = {"left": 1, "mine": 1, "theirs": 1, "both": 1, "gone": 1}
    mine = {"left": 1, "mine": 2, "theirs": 1, "both": 2, "added": 2}
    stored = {"before": 3, "left": 1, "mine": 1, "theirs": 3, "both": 3, "gone": 1, "after": 3}
    merged, conflicts = merge(base, mine, stored)
    kept = {"before": 3, "left": 1, "mine": 2, "theirs": 3, "both": 3, "after": 3, "added": 2}
    assert (list(merged.items()), conflicts) == (list(kept.items()), ["both"])
    assert stored["mine"] == 1


def test_a_change_sets_keys_and_deletes_those_with_null() -> None:
    assert apply_changes({"a": 1, "b": 2, "c": None}, {"a": None, "b": 3, "d": 4, "e": None}) == {
        "b": 3,
        "c": None,
        "d": 4,
    }

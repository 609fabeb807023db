"""Comparisons of two results, checked against the same comparison of dicts in Python."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from tests.worker_tasks.analysis.support import (
    TEXTS,
    build,
    built_artifact,
    older_and_newer,
    random_documents,
    record,
    result,
    state_of,
    with_table,
)
from worker_tasks.analysis import artifacts, reader, result_diff
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.result_diff import ResultDiff, diff_spec
from worker_tasks.infra.connections import Document

pytestmark = pytest.mark.usefixtures("servers")

LISTS = ("added", "gone", "changed_from", "changed_to")


def compare(
    older: Sequence[Document], newer: Sequence[Document], key: Sequence[str] = ()
) -> tuple[ResultDiff, dict[str, list[int]]]:
    """Compares two results. Returns the difference and its lists of row numbers."""
    first, second = older_and_newer(older, newer)
    spec = diff_spec(first, list(key))
    artifact = built_artifact(second, spec)
    assert artifact.is_done, artifact
    diff = ResultDiff.from_document(artifact.data)
    lists = {name: reader.unpack_numbers(artifacts.read_range(second, spec, name)) for name in LISTS}
    assert (len(lists["added"]), len(lists["gone"])) == (diff.added, diff.gone)
    assert len(lists["changed_from"]) == len(lists["changed_to"]) == diff.changed
    assert diff.same + diff.changed + diff.gone == len(older)
    assert diff.same + diff.changed + diff.added == len(newer)
    assert result_diff.diff_row_numbers(second, spec, "added", 1, 2) == lists["added"][1:3]
    return diff, lists


@pytest.mark.parametrize("seed", range(2))
def test_rows_are_paired_by_key_and_compared_as_in_python(seed: int) -> None:
    chance = random.Random(seed)
    older = random_documents(seed, 150)
    newer = [dict(each) for each in older if chance.random() < 0.8]
    names = ("text", "flag", "whole", "exact")
    for each in newer:
        if chance.random() < 0.3:
            name = chance.choice(names)
            each[name] = chance.choice([other[name] for other in older if other.get(name) is not None])
        if chance.random() < 0.1:
            each.pop(chance.choice(names), None)
        if chance.random() < 0.1:
            each[chance.choice(names)] = None
    newer += [each | {"_id": 1000 + number} for number, each in enumerate(random_documents(seed + 50, 20))]
    chance.shuffle(newer)
    diff, lists = compare(older, newer, ["_id"])
    before = {each["_id"]: number for number, each in enumerate(older)}
    after = {each["_id"]: number for number, each in enumerate(newer)}
    changes: Counter[str] = Counter()
    pairs = []
    for identity in sorted(before.keys() & after.keys(), key=after.__getitem__):
        was, is_now = older[before[identity]], newer[after[identity]]
        different = [name for name in names if repr(was.get(name, ...)) != repr(is_now.get(name, ...))]
        changes.update(different)
        if different:
            pairs.append((before[identity], after[identity]))
    assert lists["added"] == sorted(after[identity] for identity in after.keys() - before.keys())
    assert lists["gone"] == sorted(before[identity] for identity in before.keys() - after.keys())
    assert list(zip(lists["changed_from"], lists["changed_to"], strict=True)) == pairs
    assert diff.changes == changes
    assert list(diff.changes.values()) == sorted(changes.values(), reverse=True)
    assert not diff.repeated


#: Old and new values; ``...`` stands for a missing field.
CHANGES: list[tuple[Any, Any]] = [
    (None, ...),
    (..., None),
    (None, ""),
    (..., ""),
    ("", " "),
    (None, "\x01"),
    (..., "\x02"),
    ("null", None),
    (1, 2),
    (Int64(2**53), Int64(2**53 + 1)),
    (Decimal128("1.10"), Decimal128("1.11")),
    (0.1, 0.1000000000000001),
    (True, False),
    (ObjectId("0" * 24), ObjectId("1" * 24)),
    (DatetimeMS(0), DatetimeMS(1)),
    (datetime(2026, 1, 1, tzinfo=UTC), None),
    ([], None),
    ([1, 2], [2, 1]),
    ([], [[]]),
    ("1", 1),
    ("a", ["a"]),
    ("true", True),
    ("65a000000000000000000001", ObjectId("65a000000000000000000001")),
]


def test_only_a_different_value_is_a_change() -> None:
    sides: list[list[Document]] = [
        [
            {"_id": 0} | {f"x{number}": each[side] for number, each in enumerate(CHANGES) if each[side] is not ...},
            {"_id": 1} | {f"x{number}": f"same {number}" for number in range(len(CHANGES))},
        ]
        for side in (0, 1)
    ]
    diff, _ = compare(sides[0], sides[1], ["_id"])
    assert (diff.changed, diff.same) == (1, 1)
    assert diff.changes == {f"x{number}": 1 for number in range(len(CHANGES))}
    for each in sides:
        assert compare(each, each, ["_id"])[0].same == 2


def test_null_in_place_of_a_document_is_a_change() -> None:
    filled: Document = {"_id": 2, "x": {"a": 1}}
    diff, _ = compare([{"_id": 1, "x": None}, filled], [{"_id": 1}, filled], ["_id"])
    assert (diff.changed, diff.changes) == (1, {"x.a": 1})


@pytest.mark.parametrize("odd", ["text", 5, ObjectId("0" * 24), DatetimeMS(10**12)], ids=str)
def test_one_value_of_another_type_changes_no_other_row(odd: Any) -> None:
    columns: list[list[Any]] = [
        ["one", "5", "true"],
        [1, 2, 3],
        [ObjectId(f"{number:024x}") for number in (5, 6, 7)],
        [DatetimeMS(number) for number in (0, 10**12 + 1, -5)],
        [Decimal128("1.50"), Decimal128("2"), Decimal128("NaN")],
        [0.5, 2.0, float("inf")],
        [True, False, True],
        [[1], [], ["x"]],
    ]
    older = [{"_id": row} | {f"x{number}": values[row] for number, values in enumerate(columns)} for row in range(3)]
    newer = [*older, {"_id": 9} | {f"x{number}": odd for number in range(len(columns))}]
    for sides, lists in ((older, newer), "added"), ((newer, older), "gone"):
        diff, numbers = compare(sides[0], sides[1], ["_id"])
        assert (diff.same, diff.changes, numbers[lists]) == (3, {}, [3])


def test_one_key_of_another_type_does_not_prevent_other_pairs() -> None:
    older: list[Document] = [{"_id": text, "x": 1} for text in ("a", "b", "c")]
    diff, lists = compare(older, [*older, {"_id": 4, "x": 1}], ["_id"])
    assert (diff.same, diff.gone, lists["added"]) == (3, 0, [3])


def test_values_with_separators_do_not_run_into_the_next_column() -> None:
    diff, _ = compare([{"_id": 1, "a": "x\x1f", "b": "y"}], [{"_id": 1, "a": "x", "b": "\x1fy"}], ["_id"])
    assert (diff.changed, diff.changes) == (1, {"a": 1, "b": 1})
    keys = [{"a": "x\x1f", "b": "y"}], [{"a": "x", "b": "\x1fy"}]
    diff, _ = compare(*keys, ["a", "b"])
    assert (diff.added, diff.gone, diff.changed) == (1, 1, 0)


def test_texts_of_every_kind_null_and_missing_values_are_keys() -> None:
    rows = [{"k": text, "x": 1} for text in TEXTS] + [{"k": None, "x": 1}, {"x": 1}]
    diff, lists = compare(rows, rows[::-1], ["k"])
    assert (diff.same, diff.repeated) == (len(rows), False)
    assert lists == {name: [] for name in LISTS}


def test_among_rows_with_the_same_key_equal_ones_are_paired_first() -> None:
    chance = random.Random(3)
    for _ in range(3):
        older, newer = ([{"k": chance.randrange(3), "x": chance.randrange(6)} for _ in range(12)] for _ in range(2))
        diff, _ = compare(older, newer, ["k"])
        before, after = (Counter((each["k"], each["x"]) for each in side) for side in (older, newer))
        keys_before, keys_after = (Counter(each["k"] for each in side) for side in (older, newer))
        same, paired = (before & after).total(), (keys_before & keys_after).total()
        assert diff.repeated
        assert (diff.same, diff.changed) == (same, paired - same)
        assert (diff.gone, diff.added) == (12 - paired, 12 - paired)


def test_columns_of_one_side_only_change_the_rows_with_a_value() -> None:
    diff, _ = compare(
        [{"_id": 1, "gone": 1, "in": {"a": 1, "b": 2}}, {"_id": 2}],
        [{"_id": 1, "in": {"a": 1, "c": 3}, "new": 2}, {"_id": 2}],
        ["_id"],
    )
    assert (diff.same, diff.changed) == (1, 1)
    assert diff.changes == {"gone": 1, "in.b": 1, "in.c": 1, "new": 1}
    assert (diff.only_older, diff.only_newer) == (["gone", "in.b"], ["in.c", "new"])


@pytest.mark.parametrize(
    ("documents", "key"),
    [
        ([{"x": number, "_id": number} for number in range(3)], ["_id"]),
        ([{"x": number, "_id": 1} for number in range(3)], ["x"]),
        ([{"x": 1, "name": f"n{number}"} for number in range(3)], ["name"]),
        ([{"x": 1, "y": number % 2} for number in range(3)], []),
        ([{"_id": number // 2, "orders": {"_id": number}} for number in range(4)], ["_id", "orders._id"]),
        ([{"_id": number // 2, "orders": {"_id": number}} if number else {"_id": 0} for number in range(4)], None),
        ([{"price": number / 2} for number in range(3)], []),
        ([{"name": None}, {"name": "a"}], []),
    ],
)
def test_the_default_key_identifies_rows(documents: list[Document], key: list[str] | None) -> None:
    diff, _ = compare(documents, documents)
    assert diff.key == (["_id", "orders._id"] if key is None else key)
    assert diff.same == len(documents)


@pytest.mark.parametrize(
    ("was", "is_now", "field"),
    [
        ({"city": "Rome"}, "Rome, unknown", "ad"),
        ({"city": "Rome"}, [{"city": "Rome"}], "ad"),
        ({"city": "Rome"}, {f"k{number}": number for number in range(101)}, "ad"),
        ({"geo": {"x": 1}}, {"geo": "1"}, "ad"),
        ({"city": "Rome"}, 5, "ad"),
    ],
)
def test_a_document_that_became_another_value_has_changed(was: Any, is_now: Any, field: str) -> None:
    same: list[Document] = [
        {"_id": 1, "ad": {"city": "Oslo"}},
        {"_id": 3},
        {"_id": 4, "ad": None},
        {"_id": 5, "ad": {}},
    ]
    older, newer = [*same, {"_id": 2, "ad": was}], [*same, {"_id": 2, "ad": is_now}]
    for sides in ((older, newer), (newer, older)):
        diff, lists = compare(*sides, ["_id"])
        assert (diff.same, diff.changed, diff.changes) == (4, 1, {field: 1})
        assert lists["changed_to"] == [4]
    diff, _ = compare(older, newer)
    assert diff.key == ["_id"]


def test_a_number_that_became_the_same_text_has_changed() -> None:
    diff, _ = compare([{"_id": 1, "v": 1}, {"_id": 2, "v": "x"}], [{"_id": 1, "v": "1"}, {"_id": 2, "v": 2}], ["_id"])
    assert (diff.same, diff.changes) == (0, {"v": 2})
    mixed: list[Document] = [{"_id": 1, "v": 1}, {"_id": 2, "v": "x"}, {"_id": 3, "v": "2"}]
    diff, _ = compare(mixed, [{"_id": 1, "v": "1"}, *mixed[1:2], {"_id": 3, "v": 2}], ["_id"])
    assert (diff.same, diff.changes) == (1, {"v": 2})


def test_without_a_key_entire_rows_are_compared() -> None:
    older = [{"x": 1, "y": number % 3} for number in range(10)]
    newer = [{"x": 1, "y": number % 2} for number in range(6)]
    diff, _ = compare(older, newer)
    before, after = (Counter(each["y"] for each in side) for side in (older, newer))
    assert diff.key == []
    assert (diff.same, diff.changed) == ((before & after).total(), 0)
    assert (diff.added, diff.gone) == ((after - before).total(), (before - after).total())


@pytest.mark.parametrize("older", [[], [{}], [{"a": 1}, {}]], ids=str)
@pytest.mark.parametrize("newer", [[], [{}, {}], [{"a": None}]], ids=str)
def test_nearly_empty_results_can_be_compared(older: list[Document], newer: list[Document]) -> None:
    compare(older, newer)


def test_a_key_that_one_result_lacks_fails_with_a_message() -> None:
    first, second = older_and_newer([{"a": 1}], [{"a": 1, "b": 2}])
    artifact = built_artifact(second, diff_spec(first, ["b"]))
    assert artifact.state is ArtifactState.FAILED
    assert "“b”" in (artifact.message or "")


def test_results_without_a_table_or_of_another_run_are_not_compared() -> None:
    newer, older, without_table = with_table([{"a": 1}]), with_table([{"a": 1}]), result([{"a": 1}])
    record(without_table)
    other_run = ArtifactSpec(ArtifactKind.COMPARISON, diff_spec(older, []).options | {"run": "another"})
    for spec in (diff_spec(without_table, []), other_run):
        build(newer, spec)
        assert state_of(newer, spec) is None

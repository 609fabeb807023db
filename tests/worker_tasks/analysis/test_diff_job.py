"""Two results beside each other, compared with what dicts in Python say of them."""

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
    older_and_newer,
    random_documents,
    record,
    result,
    with_table,
    worked_out,
)
from worker_tasks.analysis import artifacts, reader, result_diff
from worker_tasks.analysis.artifacts import ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.result_diff import ResultDiff, diff_spec
from worker_tasks.analysis.tasks import derive
from worker_tasks.infra.connections import Document

pytestmark = pytest.mark.usefixtures("servers")

LISTS = ("added", "gone", "changed_from", "changed_to")


def compared(
    older: Sequence[Document], newer: Sequence[Document], key: Sequence[str] = ()
) -> tuple[ResultDiff, dict[str, list[int]]]:
    """What a worker makes of both, and the row numbers that go with it."""
    first, second = older_and_newer(older, newer)
    wanted = diff_spec(first, list(key))
    found = worked_out(second, wanted)
    assert found.is_done, found
    figures = ResultDiff.from_document(found.data)
    lists = {name: reader.unpack_numbers(artifacts.read_range(second, wanted, name)) for name in LISTS}
    assert (len(lists["added"]), len(lists["gone"])) == (figures.added, figures.gone)
    assert len(lists["changed_from"]) == len(lists["changed_to"]) == figures.changed
    assert figures.same + figures.changed + figures.gone == len(older)
    assert figures.same + figures.changed + figures.added == len(newer)
    assert result_diff.diff_row_numbers(second, wanted, "added", 1, 2) == lists["added"][1:3]
    return figures, lists


@pytest.mark.parametrize("seed", range(2))
def test_rows_are_paired_by_key_and_told_as_python_tells_them(seed: int) -> None:
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
    found, lists = compared(older, newer, ["_id"])
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
    assert found.changes == changes
    assert list(found.changes.values()) == sorted(changes.values(), reverse=True)
    assert not found.repeated


#: Values, and what they became; ``...`` stands for a field that is not there.
BECAME: list[tuple[Any, Any]] = [
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


def test_a_value_that_became_another_is_a_change_and_itself_is_none() -> None:
    sides: list[list[Document]] = [
        [
            {"_id": 0} | {f"x{number}": each[side] for number, each in enumerate(BECAME) if each[side] is not ...},
            {"_id": 1} | {f"x{number}": f"same {number}" for number in range(len(BECAME))},
        ]
        for side in (0, 1)
    ]
    found, _ = compared(sides[0], sides[1], ["_id"])
    assert (found.changed, found.same) == (1, 1)
    assert found.changes == {f"x{number}": 1 for number in range(len(BECAME))}
    for each in sides:
        assert compared(each, each, ["_id"])[0].same == 2


def test_null_in_place_of_a_document_is_a_change() -> None:
    filled: Document = {"_id": 2, "x": {"a": 1}}
    found, _ = compared([{"_id": 1, "x": None}, filled], [{"_id": 1}, filled], ["_id"])
    assert (found.changed, found.changes) == (1, {"x.a": 1})


@pytest.mark.parametrize("odd", ["text", 5, ObjectId("0" * 24), DatetimeMS(10**12)], ids=str)
def test_one_value_of_another_kind_changes_no_other_row(odd: Any) -> None:
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
        found, numbers = compared(sides[0], sides[1], ["_id"])
        assert (found.same, found.changes, numbers[lists]) == (3, {}, [3])


def test_keys_of_which_one_is_of_another_kind_pair_the_others() -> None:
    older: list[Document] = [{"_id": text, "x": 1} for text in ("a", "b", "c")]
    found, lists = compared(older, [*older, {"_id": 4, "x": 1}], ["_id"])
    assert (found.same, found.gone, lists["added"]) == (3, 0, [3])


def test_values_are_told_apart_wherever_one_column_ends_and_the_next_begins() -> None:
    found, _ = compared([{"_id": 1, "a": "x\x1f", "b": "y"}], [{"_id": 1, "a": "x", "b": "\x1fy"}], ["_id"])
    assert (found.changed, found.changes) == (1, {"a": 1, "b": 1})
    keys = [{"a": "x\x1f", "b": "y"}], [{"a": "x", "b": "\x1fy"}]
    found, _ = compared(*keys, ["a", "b"])
    assert (found.added, found.gone, found.changed) == (1, 1, 0)


def test_values_of_every_kind_are_keys() -> None:
    rows = [{"k": text, "x": 1} for text in TEXTS] + [{"k": None, "x": 1}, {"x": 1}]
    found, lists = compared(rows, rows[::-1], ["k"])
    assert (found.same, found.repeated) == (len(rows), False)
    assert lists == {name: [] for name in LISTS}


def test_rows_of_the_same_key_are_paired_with_those_that_are_the_same_first() -> None:
    chance = random.Random(3)
    for _ in range(3):
        older, newer = ([{"k": chance.randrange(3), "x": chance.randrange(6)} for _ in range(12)] for _ in range(2))
        found, _ = compared(older, newer, ["k"])
        before, after = (Counter((each["k"], each["x"]) for each in side) for side in (older, newer))
        keys_before, keys_after = (Counter(each["k"] for each in side) for side in (older, newer))
        same, paired = (before & after).total(), (keys_before & keys_after).total()
        assert found.repeated
        assert (found.same, found.changed) == (same, paired - same)
        assert (found.gone, found.added) == (12 - paired, 12 - paired)


def test_columns_that_only_one_side_has_are_named_and_change_no_row() -> None:
    found, _ = compared(
        [{"_id": 1, "gone": 1, "in": {"a": 1, "b": 2}}], [{"_id": 1, "in": {"a": 1, "c": 3}, "new": 2}], ["_id"]
    )
    assert (found.same, found.changed) == (1, 0)
    assert (found.only_older, found.only_newer) == (["gone", "in.b"], ["in.c", "new"])


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
def test_rows_are_told_apart_by_what_usually_does(documents: list[Document], key: list[str] | None) -> None:
    found, _ = compared(documents, documents)
    assert found.key == (["_id", "orders._id"] if key is None else key)
    assert found.same == len(documents)


def test_without_a_key_whole_rows_are_compared() -> None:
    older = [{"x": 1, "y": number % 3} for number in range(10)]
    newer = [{"x": 1, "y": number % 2} for number in range(6)]
    found, _ = compared(older, newer)
    before, after = (Counter(each["y"] for each in side) for side in (older, newer))
    assert found.key == []
    assert (found.same, found.changed) == ((before & after).total(), 0)
    assert (found.added, found.gone) == ((after - before).total(), (before - after).total())


@pytest.mark.parametrize("older", [[], [{}], [{"a": 1}, {}]], ids=str)
@pytest.mark.parametrize("newer", [[], [{}, {}], [{"a": None}]], ids=str)
def test_results_of_hardly_anything_are_compared(older: list[Document], newer: list[Document]) -> None:
    compared(older, newer)


def test_a_key_that_is_not_in_both_fails_and_says_so() -> None:
    first, second = older_and_newer([{"a": 1}], [{"a": 1, "b": 2}])
    found = worked_out(second, diff_spec(first, ["b"]))
    assert found.state is ArtifactState.FAILED
    assert "“b”" in (found.message or "")


def test_results_that_have_no_table_or_are_gone_are_not_compared_and_may_be_asked_for_again() -> None:
    newer, older, bare = with_table([{"a": 1}]), with_table([{"a": 1}]), result([{"a": 1}])
    record(bare)
    other_run = ArtifactSpec(ArtifactKind.COMPARISON, diff_spec(older, []).options | {"run": "another"})
    for wanted in (diff_spec(bare, []), other_run):
        derive(newer.key, newer.task_id, newer.run, str(wanted.kind), wanted.options)
        assert artifacts.find_artifact(newer, wanted) is None

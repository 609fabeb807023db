"""Keys by path agree with ``localField``, ``foreignField`` and ``$path``; null and missing match nothing."""

import math
from typing import Any

import pytest
from bson import Binary, DBRef, Decimal128
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from tests.worker_tasks.joins.matching.bson_strategies import named_paths, paths, server_property, shapes, stored
from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.canonical_keys import canonical
from worker_tasks.joins.matching.paths import Side, key_reader, left_keys, other_keys, whole_key

#: Values to match, each in a list so that it is an element as a whole.
KEYS = [1, 2, 3, "x", True, [1, 2], [[1, 2]], [], {}, {"a": 1}, {"b": "x"}, {"0": 1}, [1], [{}], {"b": [1, 2]}, [[]]]

documents_of_shapes = st.lists(shapes(["a", "b", "0", "1"]), min_size=1, max_size=40)


def pairs(scratch: Database[Document], left: str, local: str, other: str, foreign: str) -> set[tuple[Any, Any]]:
    lookup = {"from": other, "localField": local, "foreignField": foreign, "as": "matches"}
    rows = scratch[left].aggregate([{"$lookup": lookup}])
    return {(row["_id"], match["_id"]) for row in rows for match in row["matches"]}


def matching(left: dict[Any, list[str]], other: dict[Any, list[str]]) -> set[tuple[Any, Any]]:
    return {(one, two) for one, keys in left.items() for two, others in other.items() if {*keys} & {*others}}


@server_property
@given(documents_of_shapes, paths)
def test_left_keys_agree_with_local_field(scratch: Database[Document], drawn: list[Document], path: str) -> None:
    documents = stored(scratch.left, drawn)
    keys = stored(scratch.right, [{"k": [key]} for key in KEYS])
    left = {document["_id"]: left_keys(document, path) for document in documents}
    other = {document["_id"]: other_keys(document, "k") for document in keys}
    # A left side without a key matches null on the server; there is none on the other side.
    assert matching(left, other) == pairs(scratch, "left", path, "right", "k")


@server_property
@given(documents_of_shapes, paths)
def test_other_keys_agree_with_foreign_field(scratch: Database[Document], drawn: list[Document], path: str) -> None:
    documents = stored(scratch.right, drawn)
    keys = stored(scratch.left, [{"k": [key]} for key in KEYS])
    left = {document["_id"]: left_keys(document, "k") for document in keys}
    other = {document["_id"]: other_keys(document, path) for document in documents}
    assert matching(left, other) == pairs(scratch, "left", "k", "right", path)


@server_property
@given(st.lists(shapes(["a", "b"]), min_size=1, max_size=30), named_paths, named_paths)
def test_whole_keys_agree_with_expressions(
    scratch: Database[Document], drawn: list[Document], path: str, foreign: str
) -> None:
    documents = stored(scratch.whole, drawn)
    equal = {"$and": [{"$eq": ["$$value", f"${foreign}"]}, {"$gt": ["$$value", None]}]}
    lookup = {
        "from": "whole",
        "let": {"value": f"${path}"},
        "pipeline": [{"$match": {"$expr": equal}}, {"$project": {"_id": 1}}],
        "as": "matches",
    }
    rows = list(scratch.whole.aggregate([{"$lookup": lookup}, {"$set": {"value": f"${path}"}}]))
    left_reader = key_reader(path, side="left", single=False)
    other_reader = key_reader(foreign, side="other", single=False)
    left = {document["_id"]: left_reader(document) for document in documents}
    other = {document["_id"]: other_reader(document) for document in documents}
    assert matching(left, other) == {(row["_id"], match["_id"]) for row in rows for match in row["matches"]}
    for row in rows:
        assert whole_key(row, path) == canonical(row.get("value"))


@pytest.mark.parametrize("value", [None, [], [None], math.nan, [math.nan, None, Decimal128("NaN")]])
@pytest.mark.parametrize("path", ["k", "n.k", "l.k"])
def test_null_and_nan_match_nothing(value: Any, path: str) -> None:
    document = {"k": value, "n": {"k": value}, "l": [{"k": value}, {}]}
    assert left_keys(document, path) == []
    assert left_keys({}, path) == other_keys({}, path) == []
    assert whole_key({}, "k") is None
    if not isinstance(value, list):
        assert other_keys(document, path) == []
        assert whole_key(document, "n.k") is None


def test_a_place_in_a_list() -> None:
    document = {"items": [{"sku": "A"}, {"sku": "B"}]}
    assert left_keys(document, "items.0.sku") == other_keys(document, "items.0.sku") == ["sA"]
    assert whole_key(document, "items.1.sku") == "sB"
    assert whole_key(document, "items.2.sku") is None
    assert left_keys({"items": []}, "items.0.sku") == []
    assert left_keys({"items": {"0": {"sku": "C"}}}, "items.0.sku") == ["sC"]
    assert whole_key({"a": [{"b": [1, 2]}, {"b": [3]}]}, "a.b.0") == canonical([1, 3])


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("side", ["left", "other"])
@pytest.mark.parametrize(("part", "key"), [("$id", "n5"), ("$ref", "susers"), ("$db", "sshop"), ("kind", "sx")])
def test_parts_of_a_dbref(part: str, key: str, side: Side, *, single: bool) -> None:
    document = {"customer": DBRef("users", 5, "shop", kind="x")}
    assert key_reader(f"customer.{part}", side=side, single=single)(document) == [key]


def test_dbrefs_in_a_list() -> None:
    document = {"all": [DBRef("users", 6), DBRef("users", 7)]}
    assert left_keys(document, "all.$id") == other_keys(document, "all.$id") == ["n6", "n7"]
    assert left_keys(document, "all.0.$id") == other_keys(document, "all.0.$id") == ["n6"]


def test_keys_are_distinct_and_cast_one_by_one() -> None:
    assert left_keys({"k": [1, 1.0, "1", "x", None]}, "k", cast="int") == ["n1"]
    assert left_keys({"k": ["A", "a", " a"]}, "k", fold="both") == ["sa"]
    assert left_keys({"k": [{"n": "1"}, {"n": "2"}]}, "k.n", cast="int") == ["n1", "n2"]
    assert whole_key({"k": ["1"]}, "k", cast="int") is None


def test_a_list_of_the_other_side_matches_as_a_whole_too() -> None:
    assert other_keys({"k": [1, 2]}, "k") == ["n1", "n2", canonical([1, 2])]
    assert left_keys({"k": [[1, 2]]}, "k") == [canonical([1, 2])]


@pytest.mark.parametrize("single", [True, False])
def test_only_casts_to_a_uuid_convert_the_other_side(*, single: bool) -> None:
    number = key_reader("k", side="other", single=single, cast="int")
    assert number({"k": "5"}) == ["s5"]
    uuid = key_reader("k", side="other", single=single, cast="uuid", fold="case")
    text = "12345678-1234-5678-1234-567812345678"
    assert uuid({"k": text}) == [canonical(Binary(bytes.fromhex(text.replace("-", "")), 4))]
    assert uuid({"k": "x"}) == []

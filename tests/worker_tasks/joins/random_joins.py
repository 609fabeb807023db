"""Random documents and joins, and the comparison of their rows, for the property tests of every method."""

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from bson import Decimal128, Int64, ObjectId

from tests.worker_tasks.joins.reference import MISSING, canonical
from worker_tasks.infra.connections import Document
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

PATHS = ["k", "m", "n.k", "_id"]
OID = ObjectId("65a000000000000000000001")


def random_key(rng: random.Random, gaps: float, *, lists: bool) -> Any:
    """A random key. It is one of only a few, so that many match, and has any of the types found in real collections."""
    drawn = rng.random()
    if drawn < gaps:
        return rng.choice([None, MISSING])
    if lists and drawn > 0.8:
        elements = [random_key(rng, gaps, lists=False) for _ in range(rng.randrange(4))]
        return [element for element in elements if element is not MISSING]
    numbers = [1, 1, 2, 2, 3, 1.0, 2.0, Decimal128("1"), Decimal128("2"), Int64(3)]
    others = ["1", "2", "a", "A", True, OID, str(OID), datetime(2024, 1, 1, tzinfo=UTC)]
    return rng.choice([*numbers, *others, {"x": 1}, {"x": 1, "y": 2}, {"y": 2, "x": 1}])


def random_documents(rng: random.Random, prefix: str) -> list[Document]:
    """Six random documents. Some sets have no gaps or no lists, like real collections."""
    gaps, lists = rng.choice([0, 0.3]), rng.random() < 0.5
    drawn = []
    for number in range(6):
        nested = random_key(rng, gaps, lists=lists)
        fields = {
            "_id": f"{prefix}{number}",
            "k": random_key(rng, gaps, lists=lists),
            "m": random_key(rng, gaps, lists=lists),
            "n": rng.choice([{"k": nested}, [{"k": nested}, {"k": 1}]] if lists else [{"k": nested}]),
        }
        for name in ("k", "m"):
            if fields[name] is MISSING:
                del fields[name]
        fields["n"] = _without_missing(fields["n"])
        drawn.append(fields)
    return drawn


def _without_missing(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_without_missing(element) for element in nested]
    return {name: inner for name, inner in nested.items() if inner is not MISSING}


def random_join(rng: random.Random, number: int, earlier: list[Join]) -> Join:
    kind = rng.choice(["left", "inner", "semi", "anti"] + ["outer"] * (number == 0))
    on = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        local = rng.choice(PATHS)
        can_refer_back = (
            earlier and earlier[0].embeds and earlier[0].shape_traits.holds_documents and earlier[0].fields_ is None
        )
        if can_refer_back and rng.random() < 0.5:
            local = f"a0.{local}"
        cast: Any = rng.choice([None] * 6 + ["int", "string"])
        on.append(KeyPair(local=local, foreign=rng.choice(PATHS), cast=cast))
    fields: dict[str, Any] = {"from_": rng.choice("lfg"), "kind": kind, "on": on}
    if kind in {"semi", "anti"}:
        return Join(**fields)
    shape = rng.choice(["array", "rows", "first"] + ["count"] * (kind != "outer"))
    fields |= {"as_": f"a{number}", "shape": shape}
    if shape == "first" or rng.random() < 0.4:
        fields["sort"] = [("_id", rng.choice([1, -1]))]
    if kind != "outer" and shape != "first" and (fields.get("sort") or shape == "count") and rng.random() < 0.3:
        fields["limit"] = rng.choice([1, 2])
    if rng.random() < 0.2:
        fields["match"] = rng.choice([{"k": 1}, {"m": {"$gt": 1}}])
    if rng.random() < 0.2 and shape != "count":
        fields["fields_"] = rng.choice([["_id", "k"], ["k", "m"]])
    return Join(**fields)


def random_spec(rng: random.Random) -> JoinSpec:
    joins: list[Join] = []
    for number in range(rng.choice([1, 1, 2])):
        joins.append(random_join(rng, number, joins))
    match = rng.choice([{}] * 5 + [{"m": {"$gt": 1}}])
    return JoinSpec(database="property", from_="l", joins=joins, match=match)


def unordered(rows: list[Document], spec: JoinSpec) -> Counter[str]:
    """Rows for comparison, independent of the order of rows and of unsorted matches."""
    unsorted = [join.as_ for join in spec.joins if join.shape == "array" and not join.sort]
    for row in rows:
        for name in unsorted:
            if name in row and isinstance(row[name], list):
                row[name] = sorted(row[name], key=lambda match: repr(canonical(match)))
    return Counter(repr(canonical({name: row[name] for name in sorted(row)})) for row in rows)

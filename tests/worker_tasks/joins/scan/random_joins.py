"""Random documents and random joins over them."""

import random
from datetime import UTC, datetime
from typing import Any

from bson import Binary, DBRef, Decimal128, Int64, ObjectId
from pydantic import ValidationError

from tests.worker_tasks.joins.reference import MISSING
from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan.layout import layout_of
from worker_tasks.joins.spec.spec import Expand, Join, JoinSpec, KeyPair

#: Collections by their names; ``v`` is a view of ``f`` without ``_id``, and ``h`` lies in another database.
NAMES = "lfgvh"
DATABASE, OTHER_DATABASE = "property", "property_too"
PATHS = ["k", "k", "m", "m", "n.k", "_id", "n", "p.k", "p.0.k", "p.1", "ref.$id", "ref", "k.0"]
PLAIN_PATHS = ["k", "k", "m", "n.k", "_id", "p.k"]
ELEMENT_PATHS = ["k", "k", "n.k", "ref.$id"]
LISTS = ["p", "q"]
CASTS: list[Any] = ["int", "string", "long", "double", "objectId", "date", "uuid", "uuidJavaLegacy"]
CASTS += ["uuidCsharpLegacy", "uuidPythonLegacy"]
OID = ObjectId("65a000000000000000000001")
UUID_TEXT = "01020304-0506-0708-090a-0b0c0d0e0f10"
UUID_BYTES = bytes(range(1, 17))

NUMBERS: list[Any] = [1, 1, 2, 2, 3, 1.0, 2.0, 2.5, Decimal128("1"), Decimal128("2"), Int64(3)]
OTHERS: list[Any] = ["1", "2", "a", "A", " a ", "l1", "l2", "f1", True, OID, str(OID), datetime(2024, 1, 1, tzinfo=UTC)]
OTHERS += [{"x": 1}, {"x": 1, "y": 2}, {"y": 2, "x": 1}, float("nan"), Decimal128("NaN"), float("inf")]
OTHERS += [UUID_TEXT, Binary(UUID_BYTES, 3), Binary(UUID_BYTES, 4), "a\x1fb'\"ü", "", {}, {"k": 1}]


def random_key(rng: random.Random, gaps: float, *, lists: bool) -> Any:
    """A random key. It is one of only a few, so that many match, and has any of the types found in real collections."""
    drawn = rng.random()
    if drawn < gaps:
        return rng.choice([None, MISSING])
    if lists and drawn > 0.8:
        return _present([random_key(rng, gaps, lists=lists and drawn > 0.97) for _ in range(rng.randrange(4))])
    return rng.choice(NUMBERS if rng.random() < 0.6 else OTHERS)


def random_documents(rng: random.Random, prefix: str) -> list[Document]:
    """Six random documents. Some sets have no gaps or no lists, like real collections."""
    gaps, lists = rng.choice([0, 0.3]), rng.random() < 0.5

    def key() -> Any:
        return random_key(rng, gaps, lists=lists)

    def element() -> Any:
        if rng.random() < 0.2:
            return rng.choice([1, None, "x", [], [{"k": 1}], [1], {}, DBRef("g", 1)])
        return _present({"k": key(), "n": {"k": key()}, "ref": rng.choice([MISSING, DBRef("g", rng.choice([1, 2]))])})

    def elements() -> Any:
        if rng.random() < 0.2:
            return rng.choice([MISSING, None, 1, {"k": 1}, []])
        return [element() for _ in range(rng.randrange(4))]

    drawn = []
    for number in range(6):
        nested = rng.choice([{"k": key()}, [{"k": key()}, {"k": 1}]] if lists else [{"k": key()}])
        reference = rng.choice([MISSING, DBRef("g", 1), DBRef("g", 2, "d"), 1])
        fields = {"_id": f"{prefix}{number}", "k": key(), "m": key(), "n": nested, "p": elements(), "q": elements()}
        drawn.append(_present({**fields, "ref": reference}))
    return drawn


def _present(value: Any) -> Any:
    """The value without what is missing in it."""
    if isinstance(value, list):
        return [_present(element) for element in value if element is not MISSING]
    if isinstance(value, dict):
        return {name: _present(inner) for name, inner in value.items() if inner is not MISSING}
    return value


def _pairs(rng: random.Random, paths: list[str], earlier: list[Join], *, plain: bool) -> list[KeyPair]:
    pairs = []
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        local = rng.choice(paths)
        if earlier and rng.random() < 0.5:
            before = rng.choice(earlier)
            local = before.as_ or local
            if before.shape != "count":
                local = f"{local}.{rng.choice(PLAIN_PATHS if plain else [*PATHS, '0.k', '1.m'])}"
        cast = rng.choice(["double", "objectId"] if plain else CASTS) if rng.random() < 0.2 else None
        fold: Any = rng.choice(["case", "blanks", "both"]) if rng.random() < 0.15 and not plain else None
        pairs.append(KeyPair(local=local, foreign=rng.choice(PLAIN_PATHS if plain else PATHS), cast=cast, fold=fold))
    return pairs


def _sort(rng: random.Random, paths: list[str]) -> Any:
    return [(rng.choice(paths), rng.choice([1, -1])) for _ in range(rng.choice([1, 1, 2]))]


def _random_join(rng: random.Random, number: int, earlier: list[Join], *, plain: bool) -> Join:
    into = rng.choice(LISTS) if rng.random() < 0.25 and not plain else None
    kind: Any = "left" if into else rng.choice(["left", "left", "inner", "semi", "anti"] + ["outer"] * (number == 0))
    before = [join for join in earlier if join.into == into and join.as_]
    paths = PLAIN_PATHS if plain else ELEMENT_PATHS if into else PATHS
    pairs = _pairs(rng, paths, before, plain=plain)
    if into:
        pairs = [pair.model_copy(update={"local": f"{into}.{pair.local}"}) for pair in pairs]
    fields: dict[str, Any] = {"from_": rng.choice("lfgv" if plain else NAMES), "into": into, "kind": kind, "on": pairs}
    if fields["from_"] == "h":
        fields["database"] = OTHER_DATABASE
    if rng.random() < 0.2:
        fields["match"] = rng.choice([{"k": 1}, {"m": {"$gt": 1}}])
    if kind in {"semi", "anti"}:
        return Join(**fields)
    shapes = ["array", "first"] + ["rows"] * (into is None) + ["count"] * (kind != "outer")
    name = rng.choice([f"a{number}"] * 4 + ["k", "m", "n", "p", "q", "ref", "we\"ird 'ü"])
    fields |= {"as_": name, "shape": rng.choice(shapes)}
    if rng.random() < 0.4:
        fields["sort"] = _sort(rng, ["_id", *PATHS])
    if plain and fields["shape"] != "count":
        fields["sort"] = [*fields.get("sort", [])[:1], ("_id", rng.choice([1, -1]))]
    if kind != "outer" and rng.random() < 0.3:
        fields["limit"] = rng.choice([1, 2])
    if rng.random() < 0.3 and fields["shape"] != "count":
        fields["fields_"] = rng.sample(["_id", "k", "m", "n.k", "p.k", "p.n", "n", "zz"], rng.choice([1, 2]))
    return Join(**fields)


def _random_spec(rng: random.Random) -> JoinSpec:
    # Plain joins are those that a lookup can do as well.
    plain = rng.random() < 0.4
    joins: list[Join] = []
    for number in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 4])):
        joins.append(_random_join(rng, number, joins, plain=plain))
    added = [join.as_ for join in joins if join.as_ and join.into is None]
    paths = [
        "_id",
        *PATHS,
        "p",
        *added,
        *(f"{name}.{path}" for name in added for path in ("k", "m", "n.k", "_id", "0.k")),
    ]
    fields: dict[str, Any] = {}
    if rng.random() < 0.2:
        fields["match"] = rng.choice([{"k": 1}, {"m": {"$gt": 1}}])
    if rng.random() < 0.25 and not plain:
        expand = rng.sample(["p", "q", "k", "n", "p.n", "n.k"], rng.choice([1, 1, 2]))
        fields["expand"] = [
            Expand(path=path, position=rng.choice([None, f"at{number}", "m"]), keep_empty=rng.random() < 0.5)
            for number, path in enumerate(expand)
        ]
    if rng.random() < 0.4:
        inner = [join.target for join in joins if join.into and join.target]
        shown = ["_id", "k", "m", "n.k", "n", "p", "p.k", "q.n.k", "at0", "ref.$id"]
        shown += [*added, *inner, *(f"{name}.{path}" for name in [*added, *inner] for path in ("k", "n.k", "_id"))]
        fields["fields_"] = rng.sample(shown, rng.choice([1, 2, 3]))
    if rng.random() < 0.4:
        fields["sort"] = _sort(rng, paths)
    if rng.random() < 0.2:
        fields["limit"] = rng.choice([1, 3, 8])
    return JoinSpec(database=DATABASE, from_=rng.choice("lllv"), joins=joins, **fields)


def random_spec(rng: random.Random) -> JoinSpec:
    """A random join that Dovetail accepts."""
    while True:
        try:
            spec = _random_spec(rng)
            layout_of(spec)
        except (ValidationError, InvalidInput):
            continue
        return spec

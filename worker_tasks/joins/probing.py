"""A look at a join before it runs: a sample of the left side taken through it, and what its keys find on the other.

Everything is bounded: so many documents, so many seconds. What could not be found out in time is None.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pymongo
from pymongo.errors import ExecutionTimeout, OperationFailure

from worker_tasks.connections import Document, connections
from worker_tasks.joins.catalog import Catalog
from worker_tasks.joins.keys import NOTHING, left_key
from worker_tasks.joins.pipeline import compile_pipeline
from worker_tasks.joins.sampling import Look, draw, kind_of, look_at
from worker_tasks.joins.spec import Cast, Join, JoinSpec, KeyPair
from worker_tasks.joins.stages import Stage, matching
from worker_tasks.joins.strategy import Step, Strategy, Way, is_bare
from worker_tasks.joins.suggestions import cast_to, repr_key

#: Documents of the left side that are taken through the join.
SAMPLE_ROWS = 200
#: Matches of one of them that are taken on to the next join.
SAMPLE_MATCHES = 5
#: Seconds that one question may take, and the preview.
PROBE_SECONDS, PREVIEW_SECONDS = 1.0, 1.0
PREVIEW_ROWS = 5


@dataclass(frozen=True)
class KeyFacts:
    """One pair of keys: the BSON types of the left side in the sample, ``missing`` among them, and the other side."""

    pair: KeyPair
    left: Counter[str]
    left_paths: frozenset[str]
    other: Look

    @property
    def empty(self) -> float:
        """The share of rows that have nothing here."""
        return sum(self.left[name] for name in ("missing", "null", "undefined")) / max(1, self.left.total())

    @property
    def left_types(self) -> dict[str, float]:
        """What is there, as shares of all that have something."""
        there = {
            name: count for name, count in self.left.items() if name not in {"missing", "null", "undefined", "array"}
        }
        total = sum(there.values())
        return {name: count / total for name, count in there.items()}

    @property
    def other_types(self) -> dict[str, float]:
        found = self.other.field(self.pair.foreign)
        return {} if found is None else {name: share for name, share in found.types.items() if name != "array"}


@dataclass(frozen=True)
class JoinFacts:
    """One join of the sample. Rows are those before this join.

    ``matched`` of them find something; ``matches`` are found for one on average, ``most`` for one key at most, which is
    ``most_key``. ``otherwise`` holds what would be matched without the join's own filter, ``in_other_case`` what with
    other blanks and capitals, ``cured`` what with a cast.
    """

    number: int
    join: Join
    rows: int
    matched: int | None
    matches: float | None
    most: int
    most_key: Any
    keys: list[KeyFacts]
    other: Look
    otherwise: int | None = None
    in_other_case: int = 0
    cured: tuple[int, Cast, int] | None = None

    @property
    def rate(self) -> float | None:
        return None if self.matched is None or not self.rows else self.matched / self.rows

    @property
    def is_unique(self) -> bool:
        """Whether an index of the other side lets no key be there twice."""
        paths = {pair.foreign for pair in self.join.on}
        return any(set(unique) <= paths for unique in self.other.unique)

    def kept(self, limit: int | None) -> float:
        """Matches of one row, on average, of which at most so many are kept."""
        mean = self.matches or 0.0
        return min(mean, limit) if limit is not None else mean


@dataclass
class Probe:
    """Takes a sample of the left side through the joins of a description."""

    spec: JoinSpec
    catalog: Catalog
    comment: str
    sample: list[Document] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._source = connections().joins[self.spec.database]
        self.sample = draw(self._source[self.spec.from_], self.spec.match, SAMPLE_ROWS, self.comment)

    def facts(self, number: int) -> JoinFacts:
        """What the join of this number finds.

        Raises:
            pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
        """
        join = self.spec.joins[number]
        other = look_at(self.spec.database, join.from_)
        rows = self._keys(number, join.on)
        paths = frozenset(path for document in self.sample for path in document)
        keys = [
            KeyFacts(pair, Counter(row["types"][place] for row in rows or []), paths, other)
            for place, pair in enumerate(join.on)
        ]
        if rows is None:
            return JoinFacts(number, join, 0, None, None, 0, None, keys, other)
        found = self._found(join, join.on, _wanted(rows))
        if found is None:
            return JoinFacts(number, join, len(rows), None, None, 0, None, keys, other)
        counts = [_count(row["keys"], found) for row in rows]
        most_key, most = max(found.items(), key=lambda each: each[1], default=(None, 0))
        facts = JoinFacts(
            number=number,
            join=join,
            rows=len(rows),
            matched=sum(1 for count in counts if count),
            matches=sum(counts) / max(1, len(rows)),
            most=most,
            most_key=None if most_key is None else [part[1] for part in most_key],
            keys=keys,
            other=other,
        )
        return JoinFacts(**{**vars(facts), **self._reasons(facts, rows)})

    def _reasons(self, facts: JoinFacts, rows: list[Document]) -> dict[str, Any]:
        """What would be found if something were otherwise, where little is."""
        join, matched = facts.join, facts.matched or 0
        reasons: dict[str, Any] = {}
        if matched == 0 and join.match:
            found = self._found(join.model_copy(update={"match": {}}), join.on, _wanted(rows))
            reasons["otherwise"] = None if found is None else sum(1 for row in rows if _count(row["keys"], found))
        if matched < len(rows) and len(join.on) == 1:
            reasons["in_other_case"] = self._matched_in_other_case(join, rows)
        for place, key in enumerate(facts.keys):
            cast = _cure(key)
            if cast is None:
                continue
            on = [*join.on[:place], key.pair.model_copy(update={"cast": cast}), *join.on[place + 1 :]]
            again = self._keys(facts.number, on)
            found = None if again is None else self._found(join, on, _wanted(again))
            cured = 0 if again is None or found is None else sum(1 for row in again if _count(row["keys"], found))
            if cured > matched:
                reasons["cured"] = (place, cast, cured)
        return reasons

    def _matched_in_other_case(self, join: Join, rows: list[Document]) -> int:
        texts = {row["keys"][0] for row in rows if isinstance(row["keys"][0], str)}
        variants = {
            text: {text.strip(), text.lower(), text.upper(), text.strip().upper(), text.strip().lower()}
            for text in texts
        }
        found = self._found(join, join.on, [[other] for others in variants.values() for other in others])
        if not found:
            return 0
        lost = [text for text in texts if not _count([text], found)]
        cured = {text for text in lost if any(_count([other], found) for other in variants[text])}
        return sum(1 for row in rows if isinstance(row["keys"][0], str) and row["keys"][0] in cured)

    def _before(self, number: int) -> list[Stage]:
        """The sample, taken through the joins before this one."""
        ids = [document["_id"] for document in self.sample if "_id" in document]
        earlier = [capped(join) for join in self.spec.joins[:number]]
        stages: list[Stage] = [{"$match": {"_id": {"$in": ids}}}]
        if not earlier:
            return stages
        spec = self.spec.model_copy(update={"match": {}, "joins": earlier, "fields_": None, "sort": [], "limit": None})
        return stages + compile_pipeline(spec, self.lookups(spec)).pipeline

    def lookups(self, spec: JoinSpec) -> Strategy:
        """Every join as a lookup, which is right for few rows whatever the indexes."""
        return Strategy(tuple(_lookup(join, self.catalog) for join in spec.joins))

    def _keys(self, number: int, on: list[KeyPair]) -> list[Document] | None:
        single = len(on) == 1
        shown = {
            "_id": 0,
            "keys": [left_key(pair, elementwise=single) for pair in on],
            "types": [{"$type": f"${pair.local}"} for pair in on],
            "elements": [{"$map": {"input": _listed(pair.local), "in": {"$type": "$$this"}}} for pair in on],
        }
        rows = self._ask(self.spec.from_, [*self._before(number), {"$project": shown}, {"$limit": SAMPLE_ROWS * 5}])
        for row in rows or []:
            # A list stands for its elements.
            row["types"] = [
                next(iter(elements), "missing") if name == "array" else name
                for name, elements in zip(row["types"], row["elements"], strict=True)
            ]
        return rows

    def _found(self, join: Join, on: list[KeyPair], wanted: list[list[Any]]) -> Counter[tuple[Any, ...]] | None:
        """How many documents of the other side each of these keys has."""
        if not wanted:
            return Counter()
        first = list({repr_key(key[0]): key[0] for key in wanted}.values())
        pipeline = [
            {"$match": {on[0].foreign: {"$in": first}}},
            *matching(join.match),
            {"$group": {"_id": [f"${pair.foreign}" for pair in on], "count": {"$sum": 1}}},
            {"$limit": 100_000},
        ]
        groups = self._ask(join.from_, pipeline)
        if groups is None:
            return None
        keys = {tuple(map(repr_key, key)) for key in wanted}
        found: Counter[tuple[Any, ...]] = Counter()
        for group in groups:
            for key in _elementwise(group["_id"]) if len(on) == 1 else [tuple(map(repr_key, group["_id"]))]:
                if key in keys:
                    found[key] += group["count"]
        return found

    def preview(self) -> tuple[list[Document], bool]:
        """A few joined rows; and whether they are of a sample, because to find the first ones would take too long."""
        spec = self.spec.model_copy(
            update={"joins": [capped(join) for join in self.spec.joins], "sort": [], "limit": PREVIEW_ROWS}
        )
        pipeline = compile_pipeline(spec, self.lookups(spec))
        whole = matching(pipeline.filter) + pipeline.pipeline
        if (rows := self._ask(spec.from_, whole, PREVIEW_SECONDS)) is not None:
            return rows, False
        few = [{"$match": {"_id": {"$in": [document.get("_id") for document in self.sample[: PREVIEW_ROWS * 4]]}}}]
        return self._ask(spec.from_, few + pipeline.pipeline, PREVIEW_SECONDS) or [], True

    def _ask(self, collection: str, pipeline: list[Stage], seconds: float = PROBE_SECONDS) -> list[Document] | None:
        try:
            with pymongo.timeout(seconds):
                return list(self._source[collection].aggregate(pipeline, comment=self.comment, allowDiskUse=True))
        except ExecutionTimeout:
            return None
        except OperationFailure:
            # Such as a joined document that is too big even so: then nothing is known.
            return None


def capped(join: Join) -> Join:
    """The same join with few matches for each row."""
    if not join.brings or join.shape in {"first", "count"}:
        return join
    limit = min(join.limit or SAMPLE_MATCHES, SAMPLE_MATCHES)
    return join.model_copy(update={"kind": "left" if join.kind == "outer" else join.kind, "limit": limit})


def _lookup(join: Join, catalog: Catalog) -> Step:
    return Step(Way.INDEX, 0, is_bare(join, catalog.known(join.from_)), guarded=True)


def _listed(path: str) -> Any:
    return {"$cond": [{"$isArray": f"${path}"}, f"${path}", []]}


def _wanted(rows: Iterable[Document]) -> list[list[Any]]:
    """The keys of rows that can match, each element of a list by itself."""
    wanted = []
    for row in rows:
        parts = [part if isinstance(part, list) and len(row["keys"]) == 1 else [part] for part in row["keys"]]
        wanted += [list(key) for key in product(*parts) if NOTHING not in key]
    return wanted


def _count(keys: list[Any], found: Counter[tuple[Any, ...]]) -> int:
    if len(keys) == 1:
        (key,) = keys
        elements = {repr_key(each) for each in (key if isinstance(key, list) else [key]) if each != NOTHING}
        return sum(found[(element,)] for element in elements)
    return found[tuple(map(repr_key, keys))]


def _elementwise(values: list[Any]) -> set[tuple[Any, ...]]:
    (value,) = values
    return {(repr_key(each),) for each in (value if isinstance(value, list) else [value])}


def _cure(key: KeyFacts) -> Cast | None:
    """The conversion that makes types meet that differ."""
    if key.pair.cast is not None or not key.left_types or not key.other_types:
        return None
    kinds = {kind_of(name) for name in key.other_types}
    odd = [name for name in key.left_types if kind_of(name) not in kinds]
    main = max(key.other_types, key=lambda name: key.other_types[name])
    return next((cast for name in odd if (cast := cast_to(name, main)) is not None), None)

"""A look at a join before it runs: a sample of the left side taken through it, and what its keys find on the other.

Everything is bounded: so many documents, so many seconds. What could not be found out in time is None.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pymongo.collation import Collation
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.keys import UNMATCHABLE, left_key
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import Stage, match_stages
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy, is_native_lookup
from worker_tasks.joins.preflight.sampling import WHOLE_DOCUMENTS, CollectionSample, draw_documents, sample_collection
from worker_tasks.joins.preflight.suggestions import equality_key
from worker_tasks.joins.spec.bson_types import type_bracket
from worker_tasks.joins.spec.casts import Cast, cast_to
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

#: Documents of the left side that are taken through the join.
SAMPLE_ROWS = 200
#: Matches of one of them that are taken on to the next join.
SAMPLE_MATCHES = 5
#: Seconds that one question may take, and the preview.
PROBE_SECONDS, PREVIEW_SECONDS = 1.0, 1.0
#: Seconds that all questions about one join may take together.
ALL_SECONDS = 5.0
PREVIEW_ROWS = 5
#: Names of types of what is not there.
NOTHING_THERE = frozenset({"missing", "null", "undefined"})
#: Capitals do not count.
OTHER_CASE = Collation("en", strength=2)


@dataclass(frozen=True)
class KeyStats:
    """One pair of keys.

    ``left`` counts the BSON types of what the sample has on the left side, each element of a list by itself; ``empty``
    is the share of rows that have nothing there. ``left_paths`` are the fields that there are.
    """

    pair: KeyPair
    left: Counter[str]
    empty: float
    left_paths: frozenset[str]
    other: CollectionSample

    @property
    def left_types(self) -> dict[str, float]:
        """As shares of all that is there."""
        return {name: count / self.left.total() for name, count in self.left.items()}

    @property
    def other_types(self) -> dict[str, float]:
        found = self.other.field(self.pair.foreign)
        return {} if found is None else {name: share for name, share in found.types.items() if name != "array"}


@dataclass(frozen=True)
class JoinStats:
    """One join of the sample. Rows are those before this join.

    ``matched`` of them find something; ``matches`` are found for one on average, of which the join's limit leaves
    ``kept``; ``most`` for one key at most, which is ``most_key``; ``found`` documents of the other side in all.
    ``is_whole`` says that no row was left out of the sample. ``otherwise`` holds what would be matched without the
    join's own filter, ``in_other_case`` what with other blanks and capitals, ``cured`` what with a cast.
    """

    number: int
    join: Join
    rows: int
    keys: list[KeyStats]
    other: CollectionSample
    matched: int | None = None
    matches: float | None = None
    kept: float = 0.0
    found: int = 0
    most: int = 0
    most_key: Any = None
    is_whole: bool = False
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


@dataclass
class Probe:
    """Takes a sample of the left side through the joins of a description."""

    spec: JoinSpec
    catalog: Catalog
    comment: str
    sample: list[Document] = field(init=False)

    def __post_init__(self) -> None:
        self._until = time.monotonic() + ALL_SECONDS
        self._source = default_source().database(self.spec.database)
        source = self._source[self.spec.from_]
        self.is_whole = self.catalog.stats(self.spec.from_).count <= WHOLE_DOCUMENTS
        size = WHOLE_DOCUMENTS if self.is_whole else SAMPLE_ROWS
        self.sample = draw_documents(source, self.spec.match, size, self.comment)

    def facts(self, number: int) -> JoinStats:
        """What the join of this number finds.

        Raises:
            pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
        """
        join = self.spec.joins[number]
        other = sample_collection(self.spec.database, join.from_)
        rows = self._keys(number, join.on)
        keys = [self._key_facts(number, place, rows or [], other) for place in range(len(join.on))]
        found = None if rows is None else self._found(join, join.on, _wanted(rows))
        if rows is None or found is None:
            return JoinStats(number, join, len(rows or []), keys, other)
        counts = [_count(row["keys"], found) for row in rows]
        most_key, most = max(found.items(), key=lambda each: each[1], default=(None, 0))
        facts = JoinStats(
            number=number,
            join=join,
            is_whole=self.is_whole,
            rows=len(rows),
            matched=sum(1 for count in counts if count),
            matches=sum(counts) / max(1, len(rows)),
            kept=sum(min(count, join.limit or count) for count in counts) / max(1, len(rows)),
            found=found.total(),
            most=most,
            most_key=None if most_key is None else [part[1] for part in most_key],
            keys=keys,
            other=other,
        )
        return JoinStats(**{**vars(facts), **self._reasons(facts, rows, found)})

    def _key_facts(self, number: int, place: int, rows: list[Document], other: CollectionSample) -> KeyStats:
        types = [row["types"][place] for row in rows]
        empty = sum(1 for names in types if not names) / max(1, len(rows))
        spec = self.spec
        paths = {field.path for field in sample_collection(spec.database, spec.from_).fields}
        for join in spec.joins[:number]:
            paths |= {
                f"{join.as_}.{field.path}" for field in sample_collection(spec.database, join.from_).fields if join.as_
            }
        left = Counter(name for names in types for name in names)
        return KeyStats(spec.joins[number].on[place], left, empty, frozenset(paths), other)

    def _reasons(self, facts: JoinStats, rows: list[Document], found: Counter[tuple[Any, ...]]) -> dict[str, Any]:
        """What would be found if something were otherwise, where little is."""
        join, matched = facts.join, facts.matched or 0
        reasons: dict[str, Any] = {}
        if matched == 0 and join.match:
            unfiltered = self._found(join.model_copy(update={"match": {}}), join.on, _wanted(rows))
            reasons["otherwise"] = sum(1 for row in rows if unfiltered and _count(row["keys"], unfiltered))
        if matched < len(rows) and len(join.on) == 1:
            reasons["in_other_case"] = self._matched_in_other_case(join, rows, found)
        for place, key in enumerate(facts.keys):
            cast = _cure(key)
            if cast is None:
                continue
            on = [*join.on[:place], key.pair.model_copy(update={"cast": cast}), *join.on[place + 1 :]]
            again = self._keys(facts.number, on)
            there = None if again is None else self._found(join, on, _wanted(again))
            cured = sum(1 for row in again or [] if there and _count(row["keys"], there))
            if cured > matched:
                reasons["cured"] = (place, cast, cured)
        return reasons

    def _matched_in_other_case(self, join: Join, rows: list[Document], found: Counter[tuple[Any, ...]]) -> int:
        """The rows that find nothing, and would if capitals and the blanks around them did not count."""
        lost = [row["keys"][0] for row in rows if isinstance(row["keys"][0], str) and not _count(row["keys"], found)]
        if not lost:
            return 0
        (pair,) = join.on
        variants = list({each for text in lost for each in (text, text.strip())})
        pipeline = [
            {"$match": {pair.foreign: {"$in": variants}}},
            *match_stages(join.match),
            {"$group": {"_id": f"${pair.foreign}"}},
        ]
        there = self._ask(join.from_, pipeline, collation=OTHER_CASE)
        plain = {_plain(group["_id"]) for group in there or [] if isinstance(group["_id"], str)}
        return sum(1 for text in lost if _plain(text) in plain)

    def _before(self, number: int) -> list[Stage]:
        """The sample, taken through the joins before this one."""
        ids = [document["_id"] for document in self.sample if "_id" in document]
        earlier = [limit_matches(join) for join in self.spec.joins[:number]]
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
            "types": [{"$map": {"input": _listed(pair.local), "in": {"$type": "$$this"}}} for pair in on],
        }
        rows = self._ask(
            self.spec.from_, [*self._before(number), {"$project": shown}, {"$limit": WHOLE_DOCUMENTS * SAMPLE_MATCHES}]
        )
        for row in rows or []:
            row["types"] = [[name for name in names if name not in NOTHING_THERE] for names in row["types"]]
        return rows

    def _found(self, join: Join, on: list[KeyPair], wanted: list[list[Any]]) -> Counter[tuple[Any, ...]] | None:
        """How many documents of the other side each of these keys has."""
        if not wanted:
            return Counter()
        first = list({equality_key(key[0]): key[0] for key in wanted}.values())
        pipeline = [
            {"$match": {on[0].foreign: {"$in": first}}},
            *match_stages(join.match),
            {"$group": {"_id": [f"${pair.foreign}" for pair in on], "count": {"$sum": 1}}},
            {"$limit": 100_000},
        ]
        groups = self._ask(join.from_, pipeline)
        if groups is None:
            return None
        keys = {tuple(map(equality_key, key)) for key in wanted}
        found: Counter[tuple[Any, ...]] = Counter()
        for group in groups:
            for key in _elementwise(group["_id"]) if len(on) == 1 else [tuple(map(equality_key, group["_id"]))]:
                if key in keys:
                    found[key] += group["count"]
        return found

    def preview(self) -> tuple[list[Document], bool]:
        """A few joined rows; and whether they are not the first ones, because to find those would take too long."""
        limit = min(self.spec.limit or PREVIEW_ROWS, PREVIEW_ROWS)
        spec = self.spec.model_copy(update={"joins": [limit_matches(join) for join in self.spec.joins], "limit": limit})
        for sort in [self.spec.sort, []] if self.spec.sort else [[]]:
            pipeline = compile_pipeline(spec.model_copy(update={"sort": sort}), self.lookups(spec))
            whole = match_stages(pipeline.filter) + pipeline.pipeline
            if (rows := self._ask(spec.from_, whole, PREVIEW_SECONDS)) is not None:
                return rows, sort != self.spec.sort
        few = [{"$match": {"_id": {"$in": [document.get("_id") for document in self.sample[: PREVIEW_ROWS * 4]]}}}]
        return self._ask(spec.from_, few + pipeline.pipeline, PREVIEW_SECONDS) or [], True

    def _ask(
        self, collection: str, pipeline: list[Stage], seconds: float = PROBE_SECONDS, collation: Collation | None = None
    ) -> list[Document] | None:
        left = self._until - time.monotonic()
        if left <= 0:
            return None
        options: dict[str, Any] = {"comment": self.comment, "allowDiskUse": True}
        if collation is not None:
            options["collation"] = collation
        try:
            with within(min(seconds, left)):
                return list(self._source[collection].aggregate(pipeline, **options))
        except TookTooLong:
            return None
        except OperationFailure:
            # Such as a joined document that is too big even so: then nothing is known.
            return None


def _plain(text: str) -> str:
    return text.strip().casefold()


def limit_matches(join: Join) -> Join:
    """The same join with few matches for each row."""
    if not (join.embeds and join.shape_traits.needs_all):
        return join
    limit = min(join.limit or SAMPLE_MATCHES, SAMPLE_MATCHES)
    return join.model_copy(update={"kind": join.kind_traits.one_sided or join.kind, "limit": limit})


def _lookup(join: Join, catalog: Catalog) -> Step:
    return Step(JoinMethod.INDEX, 0, is_native_lookup(join, catalog.stats(join.from_)), null_safe=True)


def _listed(path: str) -> Any:
    """The elements of a list, and what is no list as one of itself."""
    return {"$cond": [{"$isArray": f"${path}"}, f"${path}", [f"${path}"]]}


def _wanted(rows: Iterable[Document]) -> list[list[Any]]:
    """The keys of rows that can match, each element of a list by itself."""
    wanted = []
    for row in rows:
        parts = [part if isinstance(part, list) and len(row["keys"]) == 1 else [part] for part in row["keys"]]
        wanted += [list(key) for key in product(*parts) if UNMATCHABLE not in key]
    return wanted


def _count(keys: list[Any], found: Counter[tuple[Any, ...]]) -> int:
    if len(keys) == 1:
        (key,) = keys
        elements = {equality_key(each) for each in (key if isinstance(key, list) else [key]) if each != UNMATCHABLE}
        return sum(found[(element,)] for element in elements)
    return found[tuple(map(equality_key, keys))]


def _elementwise(values: list[Any]) -> set[tuple[Any, ...]]:
    (value,) = values
    return {(equality_key(each),) for each in (value if isinstance(value, list) else [value])}


def _cure(key: KeyStats) -> Cast | None:
    """The conversion that makes types meet that differ."""
    if key.pair.cast is not None or not key.left_types or not key.other_types:
        return None
    kinds = {type_bracket(name) for name in key.other_types}
    odd = [name for name in key.left_types if type_bracket(name) not in kinds]
    main = max(key.other_types, key=lambda name: key.other_types[name])
    return next((cast for name in odd if (cast := cast_to(name, main)) is not None), None)

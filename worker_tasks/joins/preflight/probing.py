"""Probes a join before it runs: takes a sample of the left side through it and counts the matches on the other side.

The numbers of documents and seconds are bounded. A statistic is None if a query takes too long to find it.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from pymongo.collation import Collation
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.keys import UNMATCHABLE, left_key
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import Stage, match_stages
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy, is_native_lookup
from worker_tasks.joins.preflight.join_stats import CastTrial, JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import WHOLE_DOCUMENTS, CollectionSample, draw_documents, sample_collection
from worker_tasks.joins.preflight.suggestions import equality_key
from worker_tasks.joins.spec.bson_types import type_bracket
from worker_tasks.joins.spec.casts import Cast, cast_to
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

#: The number of left documents taken through the join.
SAMPLE_ROWS = 200
#: The number of matches of one document taken on to the next join.
SAMPLE_MATCHES = 5
#: The largest number of keys to count on the other side.
MAX_KEYS = 100_000
#: Time limits in seconds: of one query, and of the preview.
PROBE_SECONDS, PREVIEW_SECONDS = 1.0, 1.0
#: Time limit in seconds of all queries about one join together.
ALL_SECONDS = 5.0
PREVIEW_ROWS = 5
#: MongoDB's names for the types of an absent value.
ABSENT_TYPES = frozenset({"missing", "null", "undefined"})
CASE_INSENSITIVE = Collation("en", strength=2)

#: A key on the other side, each of its parts as an ``equality_key``, and the number of documents that have it.
KeyCounts = Counter[tuple[Any, ...]]


@dataclass
class Probe:
    """Takes a sample of the left side through the joins of a spec."""

    spec: JoinSpec
    catalog: Catalog
    comment: str
    sample: list[Document] = field(init=False)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + ALL_SECONDS
        left = find_collection(*self.spec.left)
        self.is_whole = self.catalog.stats(self.spec.left).count <= WHOLE_DOCUMENTS
        size = WHOLE_DOCUMENTS if self.is_whole else SAMPLE_ROWS
        self.sample = draw_documents(left, self.spec.match, size, self.comment)

    def join_stats(self, number: int) -> JoinStats:
        """Statistics of the join at this index.

        Raises:
            pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
        """
        join = self.spec.joins[number]
        other = sample_collection(self.spec.side(join))
        rows = self._left_keys(number, join.on)
        keys = [self._key_stats(number, pair_index, rows or [], other) for pair_index in range(len(join.on))]
        counts = None if rows is None else self._count_keys(join, join.on, _matchable_keys(rows))
        if rows is None or counts is None:
            return JoinStats(number, join, len(rows or []), keys, other)
        matches = [_match_count(row["keys"], counts) for row in rows]
        max_key, max_matches = max(counts.items(), key=lambda item: item[1], default=(None, 0))
        stats = JoinStats(
            number=number,
            join=join,
            is_whole=self.is_whole,
            rows=len(rows),
            matched=sum(1 for count in matches if count),
            mean_matches=sum(matches) / max(1, len(rows)),
            mean_kept=sum(min(count, join.limit or count) for count in matches) / max(1, len(rows)),
            other_matched=counts.total(),
            max_matches=max_matches,
            max_key=None if max_key is None else [part[1] for part in max_key],
            keys=keys,
            other=other,
        )
        return replace(stats, **self._diagnosis(stats, rows, counts))

    def _key_stats(self, number: int, pair_index: int, rows: list[Document], other: CollectionSample) -> KeyStats:
        types = [row["types"][pair_index] for row in rows]
        empty = sum(1 for names in types if not names) / max(1, len(rows))
        spec = self.spec
        paths = {field.path for field in sample_collection(spec.left).fields}
        for join in spec.joins[:number]:
            paths |= {f"{join.as_}.{field.path}" for field in sample_collection(spec.side(join)).fields if join.as_}
        left = Counter(name for names in types for name in names)
        return KeyStats(spec.joins[number].on[pair_index], left, empty, frozenset(paths), other)

    def _diagnosis(self, stats: JoinStats, rows: list[Document], counts: KeyCounts) -> dict[str, Any]:
        """The fields of JoinStats that explain missing matches: the matches that changes to the join would add."""
        join, matched = stats.join, stats.matched or 0
        diagnosis: dict[str, Any] = {}
        if matched == 0 and join.match:
            unfiltered = self._count_keys(join.model_copy(update={"match": {}}), join.on, _matchable_keys(rows))
            diagnosis["matched_unfiltered"] = _matched_rows(rows, unfiltered)
        if matched < len(rows) and len(join.on) == 1:
            diagnosis["matched_in_other_case"] = self._matched_in_other_case(join, rows, counts)
        for pair_index, key in enumerate(stats.keys):
            cast = _suggested_cast(key)
            if cast is None:
                continue
            on = list(join.on)
            on[pair_index] = key.pair.model_copy(update={"cast": cast})
            converted = self._left_keys(stats.number, on)
            other_counts = None if converted is None else self._count_keys(join, on, _matchable_keys(converted))
            would_match = _matched_rows(converted or [], other_counts)
            if would_match > matched:
                diagnosis["cast_trial"] = CastTrial(pair_index, cast, would_match)
        return diagnosis

    def _matched_in_other_case(self, join: Join, rows: list[Document], counts: KeyCounts) -> int:
        """The number of rows without a match that would have one if case and surrounding blanks did not count."""
        unmatched = [
            row["keys"][0] for row in rows if isinstance(row["keys"][0], str) and not _match_count(row["keys"], counts)
        ]
        if not unmatched:
            return 0
        (pair,) = join.on
        variants = list({each for text in unmatched for each in (text, text.strip())})
        pipeline = [
            {"$match": {pair.foreign: {"$in": variants}}},
            *match_stages(join.match),
            {"$group": {"_id": f"${pair.foreign}"}},
        ]
        groups = self._aggregate(self.spec.side(join), pipeline, collation=CASE_INSENSITIVE)
        others = {_normalized(group["_id"]) for group in groups or [] if isinstance(group["_id"], str)}
        return sum(1 for text in unmatched if _normalized(text) in others)

    def _earlier_stages(self, number: int) -> list[Stage]:
        """The stages that take the sample through the joins before this one."""
        ids = [document["_id"] for document in self.sample if "_id" in document]
        earlier = [limit_matches(join) for join in self.spec.joins[:number]]
        stages: list[Stage] = [{"$match": {"_id": {"$in": ids}}}]
        if not earlier:
            return stages
        spec = self.spec.model_copy(update={"match": {}, "joins": earlier, "fields_": None, "sort": [], "limit": None})
        return stages + compile_pipeline(spec, self.lookups(spec)).pipeline

    def lookups(self, spec: JoinSpec) -> Strategy:
        """A strategy with a lookup for every join, which is correct and, for few rows, fast."""
        return Strategy(tuple(_lookup_step(spec, join, self.catalog) for join in spec.joins))

    def _left_keys(self, number: int, on: list[KeyPair]) -> list[Document] | None:
        """The keys of the sampled rows, as ``{"keys": [...], "types": [[...], ...]}`` per row."""
        single = len(on) == 1
        fields = {
            "_id": 0,
            "keys": [left_key(pair, elementwise=single) for pair in on],
            "types": [{"$map": {"input": _as_list(pair.local), "in": {"$type": "$$this"}}} for pair in on],
        }
        stages = [*self._earlier_stages(number), {"$project": fields}, {"$limit": WHOLE_DOCUMENTS * SAMPLE_MATCHES}]
        rows = self._aggregate(self.spec.left, stages)
        for row in rows or []:
            row["types"] = [[name for name in names if name not in ABSENT_TYPES] for names in row["types"]]
        return rows

    def _count_keys(self, join: Join, on: list[KeyPair], keys: list[list[Any]]) -> KeyCounts | None:
        """The number of documents on the other side for each of these keys."""
        if not keys:
            return Counter()
        first_parts = list({equality_key(key[0]): key[0] for key in keys}.values())
        pipeline = [
            {"$match": {on[0].foreign: {"$in": first_parts}}},
            *match_stages(join.match),
            {"$group": {"_id": [f"${pair.foreign}" for pair in on], "count": {"$sum": 1}}},
            {"$limit": MAX_KEYS},
        ]
        groups = self._aggregate(self.spec.side(join), pipeline)
        if groups is None:
            return None
        counted = {tuple(map(equality_key, key)) for key in keys}
        counts: KeyCounts = Counter()
        for group in groups:
            values = group["_id"]
            for key in _element_keys(values) if len(on) == 1 else [tuple(map(equality_key, values))]:
                if key in counted:
                    counts[key] += group["count"]
        return counts

    def preview(self) -> tuple[list[Document], bool]:
        """A few joined rows, and whether they come from a sample because finding the first ones would take too long."""
        limit = min(self.spec.limit or PREVIEW_ROWS, PREVIEW_ROWS)
        spec = self.spec.model_copy(update={"joins": [limit_matches(join) for join in self.spec.joins], "limit": limit})
        for sort in [self.spec.sort, []] if self.spec.sort else [[]]:
            aggregation = compile_pipeline(spec.model_copy(update={"sort": sort}), self.lookups(spec))
            stages = match_stages(aggregation.filter) + aggregation.pipeline
            if (rows := self._aggregate(spec.left, stages, PREVIEW_SECONDS)) is not None:
                return rows, sort != self.spec.sort
        few = [{"$match": {"_id": {"$in": [document.get("_id") for document in self.sample[: PREVIEW_ROWS * 4]]}}}]
        return self._aggregate(spec.left, few + aggregation.pipeline, PREVIEW_SECONDS) or [], True

    def _aggregate(
        self, side: Side, pipeline: list[Stage], seconds: float = PROBE_SECONDS, collation: Collation | None = None
    ) -> list[Document] | None:
        """The documents of an aggregation, or None if they cannot be found in time."""
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            return None
        options: dict[str, Any] = {"comment": self.comment, "allowDiskUse": True}
        if collation is not None:
            options["collation"] = collation
        try:
            with within(min(seconds, remaining)):
                return list(find_collection(*side).aggregate(pipeline, **options))
        except TookTooLong:
            return None
        except OperationFailure:
            # For example, a joined document may be too big even with few matches.
            return None


def _normalized(text: str) -> str:
    return text.strip().casefold()


def limit_matches(join: Join) -> Join:
    """The same join with few matches per row, and without unmatched documents of the other side."""
    if not (join.embeds and join.shape_traits.needs_all):
        return join
    limit = min(join.limit or SAMPLE_MATCHES, SAMPLE_MATCHES)
    return join.model_copy(update={"kind": join.kind_traits.one_sided or join.kind, "limit": limit})


def _lookup_step(spec: JoinSpec, join: Join, catalog: Catalog) -> Step:
    return Step(JoinMethod.INDEX, 0, is_native_lookup(join, catalog.stats(spec.side(join))), null_safe=True)


def _as_list(path: str) -> Any:
    """The list at a path; any other value as a list of one."""
    return {"$cond": [{"$isArray": f"${path}"}, f"${path}", [f"${path}"]]}


def _matchable_keys(rows: Iterable[Document]) -> list[list[Any]]:
    """The keys of rows that can match. With a single pair, each element of a list is a key."""
    keys = []
    for row in rows:
        parts = [part if isinstance(part, list) and len(row["keys"]) == 1 else [part] for part in row["keys"]]
        keys += [list(key) for key in product(*parts) if UNMATCHABLE not in key]
    return keys


def _matched_rows(rows: list[Document], counts: KeyCounts | None) -> int:
    """The number of rows with a match; 0 if the counts are unknown."""
    return sum(1 for row in rows if counts and _match_count(row["keys"], counts))


def _match_count(keys: list[Any], counts: KeyCounts) -> int:
    """The number of matches of a row with these keys."""
    if len(keys) == 1:
        (key,) = keys
        elements = {equality_key(each) for each in (key if isinstance(key, list) else [key]) if each != UNMATCHABLE}
        return sum(counts[(element,)] for element in elements)
    return counts[tuple(map(equality_key, keys))]


def _element_keys(values: list[Any]) -> set[tuple[Any, ...]]:
    (value,) = values
    return {(equality_key(each),) for each in (value if isinstance(value, list) else [value])}


def _suggested_cast(key: KeyStats) -> Cast | None:
    """The conversion that would let left values match if nothing but their type prevents a match."""
    if key.pair.cast is not None or not key.left_types or not key.other_types:
        return None
    brackets = {type_bracket(name) for name in key.other_types}
    unmatchable = [name for name in key.left_types if type_bracket(name) not in brackets]
    main_type = max(key.other_types, key=lambda name: key.other_types[name])
    return next((cast for name in unmatchable if (cast := cast_to(name, main_type)) is not None), None)

"""Suggests keys for a join of two collections, judging by names, by types, and by trying the values of a sample."""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, get_args

from bson import Binary, Code, DBRef, Regex
from kombu.utils.encoding import ensure_bytes
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.matching.conversions import CASTS_OF_BOTH_SIDES, make_converter
from worker_tasks.joins.matching.paths import distinct_keys, left_values
from worker_tasks.joins.matching.raw_values import raw_value
from worker_tasks.joins.preflight.sampling import (
    CACHE_SECONDS,
    CollectionSample,
    Field,
    draw_documents,
    sample_collection,
)
from worker_tasks.joins.spec.casts import UUID_REPRESENTATIONS, Cast, casts_to
from worker_tasks.joins.spec.folds import Fold
from worker_tasks.joins.spec.sides import Side
from worker_tasks.records import live

#: Time limits in seconds: of all trials together, and of a single one.
TRIALS_SECONDS, TRIAL_SECONDS = 0.2, 0.1
#: The number of values of one side that a trial looks for on the other.
TRIAL_VALUES = 100
#: The numbers of pairs of keys to try and to suggest.
MAX_TRIED, MAX_SUGGESTED = 30, 4
#: The largest collection, in documents, that a trial may scan without an index.
MAX_UNINDEXED = 50_000
#: A pair is worth suggesting if a trial found this share of values, or if the names are this similar.
MIN_RATE, MIN_SIMILARITY = 0.05, 3.0
#: Texts are folded if at most this share of them is found as they are, and if that adds at least this much.
MAX_UNFOLDED_RATE, MIN_GAIN = 0.9, 0.1
#: From this share of found values, a unique key counts as the right one.
GOOD_RATE = 0.3
#: Score of several keys that are unique together.
COMPOUND_SCORE = 6.5


@dataclass(frozen=True)
class Pair:
    """Two fields that should be equal after a conversion, except for differences between texts that do not count."""

    local: str
    foreign: str
    cast: Cast | None = None
    fold: Fold | None = None


@dataclass(frozen=True)
class Suggestion:
    """Pairs of keys. ``rate`` is the share of tried left values that the other side has, None if untried."""

    pairs: tuple[Pair, ...]
    rate: float | None


@dataclass(frozen=True)
class LeftField:
    """A field of the left rows: its ``path`` in the row, and the collection that it comes from."""

    path: str
    side: Side
    field: Field

    @property
    def collection(self) -> str:
        return self.side.collection


def suggest_keys(left: list[LeftField], other: Side) -> list[Suggestion]:
    """The likeliest keys for joining a collection, the best first. Cached for two minutes.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    origins = sorted({(field.side, field.path.removesuffix(field.field.path)) for field in left}, key=repr)
    key = f"key_suggestions:{json.dumps([origins, other])}"
    if (cached := connections().results.get(key)) is not None:
        documents = json.loads(ensure_bytes(cached))
        return [Suggestion(tuple(Pair(**pair) for pair in each["pairs"]), each["rate"]) for each in documents]
    suggestions = _suggest(left, other)
    live.remember(key, json.dumps([asdict(each) for each in suggestions]), CACHE_SECONDS)
    return suggestions


def _suggest(left: list[LeftField], side: Side) -> list[Suggestion]:
    other = sample_collection(side)
    candidates = sorted(_candidates(left, other, side), key=lambda candidate: -candidate[0])
    trials = _Trials(side, other)
    scored = [(COMPOUND_SCORE, Suggestion(pairs, None)) for pairs in _compound_keys(left, other)]
    for similarity, local, foreign in islice(candidates, MAX_TRIED):
        pair, rate = trials.best_pair(local, foreign, may_fold=similarity >= MIN_SIMILARITY)
        best_rate = max(rate or 0.0, trials.reverse_rate(local, foreign.path, pair))
        if best_rate < MIN_RATE and similarity < MIN_SIMILARITY:
            continue
        scored.append((similarity + 2 * best_rate, Suggestion((pair,), rate)))
    scored.sort(key=lambda each: -each[0])
    suggestions = [suggestion for _, suggestion in scored]
    if any(_is_unique(suggestion, other) and (suggestion.rate or 0) >= GOOD_RATE for suggestion in suggestions):
        # If there is a unique key, similar names alone mislead: a year matches every document of that year.
        suggestions = [suggestion for suggestion in suggestions if suggestion.pairs[0].foreign in other.indexed]
    return suggestions[:MAX_SUGGESTED]


def _is_unique(suggestion: Suggestion, other: CollectionSample) -> bool:
    return tuple(pair.foreign for pair in suggestion.pairs) in other.unique


def _compound_keys(left: list[LeftField], other: CollectionSample) -> list[tuple[Pair, ...]]:
    """Unique indexes on several fields of the other side, if the left side has fields with all of their names."""
    by_name = {_normalized(field.path): field for field in reversed(left)}
    keys = []
    for paths in other.unique:
        locals_ = [by_name.get(_normalized(path)) for path in paths]
        if len(paths) > 1 and all(locals_):
            keys.append(tuple(Pair(local.path, path) for local, path in zip(locals_, paths, strict=True) if local))
    return keys


def _candidates(left: list[LeftField], other: CollectionSample, side: Side) -> list[tuple[float, LeftField, Field]]:
    """Pairs of fields that may be keys, each with a score from names and indexes."""
    candidates = []
    for local in left:
        for foreign in other.fields:
            is_indexed = foreign.path in other.indexed
            similarity = _similarity(local, foreign.path, side.collection)
            if not (is_indexed or similarity) or not _comparable(local.field, foreign):
                continue
            if local.field.path == foreign.path and local.side == side:
                continue  # would match each document with itself
            if local.field.path == foreign.path == "_id":
                similarity = -1.0  # every collection has an _id, so the equal names mean nothing
            candidates.append((similarity + is_indexed + 0.5 * ((foreign.path,) in other.unique), local, foreign))
    return candidates


def _similarity(local: LeftField, foreign: str, collection: str) -> float:
    """A score from 0 to 4 for the names of two keys."""
    left, right = _normalized(local.field.path), _normalized(foreign)
    if right == "id" and left in {f"{_singular(collection)}id", _singular(collection), f"{_normalized(collection)}id"}:
        return 4.0
    if left == "id" and right in {f"{_singular(local.side.collection)}id", f"{_normalized(local.side.collection)}id"}:
        return 4.0
    if left == right:
        return 3.0
    return 1.0 if len(right) > 2 and (left.endswith(right) or right.endswith(left)) else 0.0  # noqa: PLR2004


def _normalized(name: str) -> str:
    """The last part of a path, in lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())


def _singular(collection: str) -> str:
    name = _normalized(collection)
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    return name.removesuffix("s")


#: Types whose values are never taken for keys.
NEVER_KEYS = frozenset({"object", "array", "bool", "null"})


def _comparable(local: Field, foreign: Field) -> bool:
    return bool((local.brackets & foreign.brackets) - NEVER_KEYS) or bool(_casts_between(local, foreign))


def _casts_between(local: Field, foreign: Field) -> list[Cast]:
    """The conversions of which one is needed for left values to match; empty if they can match as they are."""
    if (local.brackets & foreign.brackets) - NEVER_KEYS:
        return []
    return casts_to(local.main_type, foreign.main_type)


class _Trials:
    """Looks up sampled values of one side on the other, until the time is up."""

    def __init__(self, side: Side, other: CollectionSample):
        self._side, self._other = side, other
        self._samples: dict[Side, list[Document]] = {}
        self._deadline = time.monotonic() + TRIALS_SECONDS

    def best_pair(self, local: LeftField, foreign: Field, *, may_fold: bool) -> tuple[Pair, float | None]:
        """The pair of these fields whose conversion finds the most left values, and their share if it was tried."""
        casts: list[Cast | None] = [*_casts_between(local.field, foreign)] or [None]
        tried = [self._tried(local, Pair(local.path, foreign.path, cast)) for cast in casts]
        best = max(tried, key=lambda each: each[1] or 0.0)
        both_texts = local.field.main_type == foreign.main_type == "string"
        if not (may_fold and both_texts) or best[1] is None or best[1] > MAX_UNFOLDED_RATE:
            return best
        folded = [self._tried(local, Pair(local.path, foreign.path, fold=fold)) for fold in get_args(Fold)]
        better = max(folded, key=lambda each: each[1] or 0.0)
        return better if (better[1] or 0.0) >= best[1] + MIN_GAIN else best

    def _tried(self, local: LeftField, pair: Pair) -> tuple[Pair, float | None]:
        values = _values(self._documents(local.side), local.field.path)
        return pair, self._rate(values, self._side, self._other, pair.foreign, pair)

    def reverse_rate(self, local: LeftField, foreign: str, pair: Pair) -> float:
        """The share of the other side's values that the left side has. More telling if the left side is bigger."""
        if pair.cast is not None or pair.fold is not None:
            return 0.0
        values = _values(self._documents(self._side), foreign)
        left = sample_collection(local.side)
        return self._rate(values, local.side, left, local.field.path, pair) or 0.0

    def _documents(self, side: Side) -> list[Document]:
        if side not in self._samples:
            self._samples[side] = draw_documents(find_collection(*side), {}, TRIAL_VALUES)
        return self._samples[side]

    def _rate(self, values: list[Any], side: Side, sample: CollectionSample, path: str, pair: Pair) -> float | None:
        is_small = (sample.count or 0) <= MAX_UNINDEXED
        if time.monotonic() > self._deadline or not (is_small or (path in sample.indexed and pair.fold is None)):
            return None
        tried = set(distinct_keys(values, make_converter(pair.cast, pair.fold))[:TRIAL_VALUES])
        if not tried:
            return 0.0
        # MongoDB cannot be asked for folded texts.
        query = {} if pair.fold else {path: {"$in": _asked(tried, pair.cast)}}
        try:
            with within(TRIAL_SECONDS):
                found = find_collection(*side).distinct(path, query)
        except (TookTooLong, OperationFailure):
            # For example, the distinct values may be more than fit into one document.
            return None
        of_both = make_converter(pair.cast if pair.cast in CASTS_OF_BOTH_SIDES else None, pair.fold)
        return len(tried.intersection(distinct_keys(found, of_both))) / len(tried)


def _values(documents: list[Document], path: str) -> list[Any]:
    """The values at a path, except documents and what no query can ask for."""
    values = [value for document in documents for value in left_values(document, path)]
    return [value for value in values if not isinstance(value, dict | DBRef | Regex | Code)]


def _asked(keys: Iterable[str], cast: Cast | None) -> list[Any]:
    """Values that are equal to those with these keys, or become equal by the conversion."""
    values = [raw_value(key) for key in keys]
    if cast not in UUID_REPRESENTATIONS:
        return values
    uuids = [value.as_uuid() for value in values]
    stored = [
        Binary.from_uuid(each, representation) for each in uuids for representation in UUID_REPRESENTATIONS.values()
    ]
    texts = [text for each in uuids for text in (str(each), str(each).upper(), each.hex)]
    return stored + texts

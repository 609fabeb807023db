"""Which fields of two collections are most likely meant to match: by name, by type, and by trying on a sample."""

import json
import re
import time
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from bson import ObjectId
from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.preflight.sampling import (
    KEPT_SECONDS,
    CollectionSample,
    Field,
    draw_documents,
    sample_collection,
    values_at,
)
from worker_tasks.joins.spec.bson_types import NUMBER, type_bracket, type_of
from worker_tasks.joins.spec.casts import CASTS, Cast, cast_to
from worker_tasks.records import live

#: Seconds that all tries may take, and one of them.
TRYING_SECONDS, ONE_TRY_SECONDS = 0.2, 0.1
#: Values of the left side that are looked for on the other.
TRIED_VALUES = 100
#: Pairs that are tried, and told.
MAX_TRIED, MAX_TOLD = 30, 4
#: Documents of a collection without an index that are looked through for one try.
MAX_UNINDEXED = 50_000
#: What is worth telling: this share of the tried values was found, or the names say so.
LEAST_RATE, TELLING_NAMES = 0.05, 3.0
#: The share of tried values from which on a key that leads to one document is taken for the right one.
GOOD_RATE = 0.3
#: Likeness of several fields that are unique together.
TOGETHER = 6.5


@dataclass(frozen=True)
class Pair:
    """What is to be equal, the left side after a conversion."""

    local: str
    foreign: str
    cast: Cast | None = None


@dataclass(frozen=True)
class Suggestion:
    """Pairs of keys: ``rate`` is the share of tried values of the left side that were found, None if none was tried."""

    pairs: tuple[Pair, ...]
    rate: float | None


@dataclass(frozen=True)
class LeftField:
    """A field of the left side, by the ``path`` under which the join knows it, and where it comes from."""

    path: str
    collection: str
    field: Field


def suggest_keys(database: str, left: list[LeftField], collection: str) -> list[Suggestion]:
    """The likeliest pairs, the best first.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    where = ",".join(sorted({f"{field.collection}:{field.path.removesuffix(field.field.path)}" for field in left}))
    key = f"key_suggestions:{database}.{where}.{collection}"
    if (kept := connections().results.get(key)) is not None:
        read = json.loads(ensure_bytes(kept))
        return [Suggestion(tuple(Pair(**pair) for pair in each["pairs"]), each["rate"]) for each in read]
    found = _suggest(database, left, collection)
    live.remember(key, json.dumps([asdict(each) for each in found]), KEPT_SECONDS)
    return found


def _suggest(database: str, left: list[LeftField], collection: str) -> list[Suggestion]:
    other = sample_collection(database, collection)
    candidates = sorted(_candidates(left, other, collection), key=lambda candidate: -candidate[0])
    tries = _Tries(database, collection, other)
    rated = [(TOGETHER, Suggestion(pairs, None)) for pairs in _together(left, other)]
    for likeness, local, foreign in islice(candidates, MAX_TRIED):
        cast = _cast_between(local.field, foreign)
        rate = tries.rate(local, foreign.path, cast)
        found = max(rate or 0.0, tries.rate_back(local, foreign.path, cast))
        if found < LEAST_RATE and likeness < TELLING_NAMES:
            continue
        rated.append((likeness + 2 * found, Suggestion((Pair(local.path, foreign.path, cast),), rate)))
    rated.sort(key=lambda each: -each[0])
    told = [suggestion for _, suggestion in rated]
    if any(_leads_to_one(suggestion, other) and (suggestion.rate or 0) >= GOOD_RATE for suggestion in told):
        # Beside these, what is only called the same would mislead: a year matches many documents of that year.
        told = [suggestion for suggestion in told if suggestion.pairs[0].foreign in other.indexed]
    return told[:MAX_TOLD]


def _leads_to_one(suggestion: Suggestion, other: CollectionSample) -> bool:
    return tuple(pair.foreign for pair in suggestion.pairs) in other.unique


def _together(left: list[LeftField], other: CollectionSample) -> list[tuple[Pair, ...]]:
    """Several fields that only together tell one document of the other side from the next, all on the left as well."""
    by_name = {_plain(field.path): field for field in reversed(left)}
    found = []
    for paths in other.unique:
        locals_ = [by_name.get(_plain(path)) for path in paths]
        if len(paths) > 1 and all(locals_):
            found.append(tuple(Pair(local.path, path) for local, path in zip(locals_, paths, strict=True) if local))
    return found


def _candidates(
    left: list[LeftField], other: CollectionSample, collection: str
) -> list[tuple[float, LeftField, Field]]:
    found = []
    for local in left:
        for foreign in other.fields:
            served = foreign.path in other.indexed
            likeness = _likeness(local, foreign.path, collection)
            if not (served or likeness) or not _comparable(local.field, foreign):
                continue
            if local.field.path == foreign.path and local.collection == collection:
                continue  # each document with itself
            if local.field.path == foreign.path == "_id":
                likeness = -1.0  # every collection has one; that says nothing
            found.append((likeness + served + 0.5 * ((foreign.path,) in other.unique), local, foreign))
    return found


def _likeness(local: LeftField, foreign: str, collection: str) -> float:
    """How much the two names say that they belong together."""
    here, there = _plain(local.field.path), _plain(foreign)
    if there == "id" and here in {f"{_singular(collection)}id", _singular(collection), f"{_plain(collection)}id"}:
        return 4.0
    if here == "id" and there in {f"{_singular(local.collection)}id", f"{_plain(local.collection)}id"}:
        return 4.0
    if here == there:
        return 3.0
    return 1.0 if len(there) > 2 and (here.endswith(there) or there.endswith(here)) else 0.0  # noqa: PLR2004


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())


def _singular(collection: str) -> str:
    plain = _plain(collection)
    if plain.endswith("ies"):
        return f"{plain[:-3]}y"
    return plain.removesuffix("s")


NEVER_KEYS = frozenset({"object", "array", "bool", "null"})


def _comparable(local: Field, foreign: Field) -> bool:
    return bool((local.kinds & foreign.kinds) - NEVER_KEYS) or _cast_between(local, foreign) is not None


def _cast_between(local: Field, foreign: Field) -> Cast | None:
    """The conversion of the left values without which nothing could match."""
    if (local.kinds & foreign.kinds) - NEVER_KEYS:
        return None
    return cast_to(local.main_type, foreign.main_type)


class _Tries:
    """Looks up values of the left side in the other collection, until the time is used up."""

    def __init__(self, database: str, collection: str, other: CollectionSample):
        self._database = database
        self._source = default_source().database(database)
        self._collection, self._other = collection, other
        self._samples: dict[str, list[Document]] = {}
        self._until = time.monotonic() + TRYING_SECONDS

    def rate(self, local: LeftField, foreign: str, cast: Cast | None) -> float | None:
        """The share of values that are found; None where that was not tried."""
        if cast is not None and CASTS[cast].estimate is None:
            return None
        values = _converted(self._sample(local.collection), local.field.path, cast)
        return self._rate(values, self._collection, self._other, foreign)

    def rate_back(self, local: LeftField, foreign: str, cast: Cast | None) -> float:
        """The share of the other side's values that are found on the left, which may be the bigger side."""
        if cast is not None:
            return 0.0
        values = _converted(self._sample(self._collection), foreign, None)
        look = sample_collection(self._database, local.collection)
        return self._rate(values, local.collection, look, local.field.path) or 0.0

    def _sample(self, collection: str) -> list[Document]:
        if collection not in self._samples:
            self._samples[collection] = draw_documents(self._source[collection], {}, TRIED_VALUES)
        return self._samples[collection]

    def _rate(self, values: list[Any], collection: str, look: CollectionSample, path: str) -> float | None:
        small = (look.count or 0) <= MAX_UNINDEXED
        if time.monotonic() > self._until or not (path in look.indexed or small):
            return None
        if not values:
            return 0.0
        try:
            with within(ONE_TRY_SECONDS):
                found = self._source[collection].distinct(path, {path: {"$in": values}})
        except TookTooLong:
            return None
        wanted = {equality_key(value) for value in values}
        return len(wanted & {equality_key(value) for value in found}) / len(wanted)


def _converted(documents: list[Document], path: str, cast: Cast | None) -> list[Any]:
    values = [value for document in documents for value in values_at(document, path) if not isinstance(value, dict)]
    unique = list({equality_key(value): value for value in values}.values())[:TRIED_VALUES]
    estimate = None if cast is None else CASTS[cast].estimate
    if estimate is None:
        return unique
    return [converted for value in unique if (converted := estimate(value)) is not None]


def equality_key(value: Any) -> tuple[str, Any]:
    """A value as a key that equals another one exactly if MongoDB would match the two."""
    kind = type_bracket(type_of(value))
    if kind == NUMBER:
        number = value.to_decimal() if hasattr(value, "to_decimal") else value
        return kind, number if number == number else "NaN"  # noqa: PLR0124 - that is how NaN is told
    return kind, value if isinstance(value, str | ObjectId | bool) else repr(value)

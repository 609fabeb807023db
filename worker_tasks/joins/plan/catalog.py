"""Statistics of the collections of a join, fetched from MongoDB when first needed."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import UNAUTHORIZED, InvalidInput, TookTooLong
from worker_tasks.infra.sources import find_collection, find_source
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import JoinSpec

#: Time limit in seconds of one query on the documents; after that its answer counts as unknown.
QUERY_SECONDS = 2.0
#: MongoDB's error code for a command on storage or indexes, which views lack.
COMMAND_NOT_SUPPORTED_ON_VIEW = 166
#: The number of documents assumed in a view, or in a bucket of a time series, if counting takes too long. MongoDB puts
#: at most 1,000 documents into one bucket.
UNKNOWN_COUNT, BUCKET_DOCUMENTS = 10**9, 1_000
#: MongoDB's names for types of collections.
VIEW, TIME_SERIES = "view", "timeseries"


@dataclass(frozen=True)
class Index:
    """An index: its fields in order, and any properties that keep it from serving an equality.

    A sparse index serves equalities, because keys here are never null, but it cannot tell whether a field is missing.
    """

    fields: tuple[str, ...]
    sparse: bool = False
    partial: bool = False
    collation: bool = False

    def serves(self, paths: Iterable[str]) -> bool:
        """Whether the index serves an equality on all of these fields."""
        compared = set(paths)
        return not self.partial and not self.collation and set(self.fields[: len(compared)]) == compared


@dataclass(frozen=True)
class CollectionStats:
    """The number and total bytes of a collection's documents, by MongoDB's counters, and its indexes.

    MongoDB keeps no counters for views and time series: their documents are counted, and their size is 0. A view has
    no indexes, and a time series none on ``_id``. ``collation`` is the default one for comparisons of text, None if
    they compare bytes.
    """

    count: int
    size: int
    indexes: tuple[Index, ...] = ()
    is_view: bool = False
    is_time_series: bool = False
    collation: Document | None = None

    def serves(self, paths: Iterable[str]) -> bool:
        return self.index_for(paths) is not None

    def index_for(self, paths: Iterable[str]) -> Index | None:
        """The first index that serves an equality on all of these fields, or None."""
        compared = list(paths)
        return next((index for index in self.indexes if index.serves(compared)), None)


@contextmanager
def require_readable(database: str, field: str = "join.database") -> Iterator[None]:
    """Translates MongoDB's refusal of a query in the block.

    Raises:
        InvalidInput: the MongoDB user may not read the database. The error is at ``field``.
    """
    try:
        yield
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        message = f"The MongoDB user may not read {database}: it is not open for joins."
        raise InvalidInput({field: message}) from error


class Catalog:
    """Statistics of the collections of one join, each from its own source. ``comment`` marks every query in MongoDB.

    A collection of the join may be given by its name alone.
    """

    def __init__(self, spec: JoinSpec, comment: str | None = None):
        self._comment = comment
        self._spec = spec
        self._cache: dict[Any, Any] = {}

    def require_collections(self) -> None:
        """Checks that every collection exists; MongoDB treats a missing one as empty.

        Raises:
            InvalidInput: names each missing collection, and an existing one with a similar name.
            pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        errors = {}
        for path, side in self._sides_by_path():
            existing = self._collection_names(path, side)
            if side.collection not in existing:
                errors[self._path_of_collection(path, side)] = _missing_error(side.collection, existing)
        if errors:
            raise InvalidInput(errors)

    def stats(self, of: Side | str) -> CollectionStats:
        """The size and the indexes of a collection."""
        side = self._side(of)
        return self._cached(("stats", side), lambda: self._fetch_stats(side))

    def _sides_by_path(self) -> Iterator[tuple[str, Side]]:
        yield "join", self._spec.left
        for number, join in enumerate(self._spec.joins):
            yield f"join.joins.{number}", self._spec.side(join)

    def _is_own(self, side: Side) -> bool:
        """Whether the description names the side by its collection alone."""
        return side[:2] == self._spec.left[:2]

    def _path_of_collection(self, path: str, side: Side) -> str:
        return f"{path}.from" if self._is_own(side) else f"{path}.from.collection"

    def _collection_names(self, path: str, side: Side) -> list[str]:
        field = "join.database" if self._is_own(side) else f"{path}.from.database"
        database = find_source(side.source, f"{path}.from.source").database(side.database)

        def names() -> list[str]:
            with require_readable(side.database, field):
                return database.list_collection_names(authorizedCollections=True)

        return self._cached(("names", side[:2]), names)

    def _side(self, of: Side | str) -> Side:
        if isinstance(of, Side):
            return of
        left = self._spec.left
        return next((side for side in self._spec.sides if side.collection == of), left._replace(collection=of))

    def _fetch_stats(self, side: Side) -> CollectionStats:
        entry = self._entry(side)
        traits: dict[str, Any] = {"is_time_series": entry.get("type") == TIME_SERIES, "collation": _collation(entry)}
        if entry.get("type") == VIEW:
            return self._view_stats(side, traits)
        try:
            storage = self._storage(side)
            indexes = tuple(filter(None, map(_index, find_collection(*side).list_indexes(comment=self._comment))))
        except OperationFailure as error:
            if error.code != COMMAND_NOT_SUPPORTED_ON_VIEW:
                raise
            return self._view_stats(side, traits)
        if all("count" in stats for stats in storage):
            count, size = (sum(int(stats[name]) for stats in storage) for name in ("count", "size"))
            return CollectionStats(count, size, indexes, **traits)
        buckets = sum(int(stats.get("timeseries", {}).get("bucketCount", 0)) for stats in storage)
        return CollectionStats(self._count(side, {}, default=buckets * BUCKET_DOCUMENTS), 0, indexes, **traits)

    def _view_stats(self, side: Side, traits: Document) -> CollectionStats:
        return CollectionStats(self._count(side, {}, default=UNKNOWN_COUNT), 0, is_view=True, **traits)

    def _storage(self, side: Side) -> list[Document]:
        """The storage statistics of a collection, one document per shard."""
        stages: list[Document] = [{"$collStats": {"storageStats": {}}}]
        return [stats["storageStats"] for stats in find_collection(*side).aggregate(stages, comment=self._comment)]

    def _entry(self, side: Side) -> Mapping[str, Any]:
        """The type and options of a collection, empty if it does not exist."""
        return self._cached(("entries", side[:2]), lambda: self._fetch_entries(side)).get(side.collection, {})

    def _fetch_entries(self, side: Side) -> dict[str, Mapping[str, Any]]:
        """The entries of all collections of the join in the side's database, by name."""
        database = find_source(side.source).database(side.database)
        names = [each.collection for each in [*self._spec.sides, side] if each[:2] == side[:2]]
        query = {"name": {"$in": names}}
        try:
            entries = list(database.list_collections(filter=query, comment=self._comment))
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            # A user with rights on single collections alone may see their names and types, not their options.
            entries = list(database.list_collections(filter=query, nameOnly=True, authorizedCollections=True))
        return {entry["name"]: entry for entry in entries}

    @cached_property
    def left_count(self) -> int:
        """The number of left documents that pass the filter, or of all left documents if counting takes too long."""
        return self.filtered_count(self._spec.left, self._spec.match)

    def filtered_count(self, of: Side | str, stored: filters.Filter) -> int:
        """The number of documents that pass a filter, or of all documents if counting takes too long."""
        total = self.stats(of).count
        return self._count(self._side(of), filters.to_query(stored), default=total) if stored else total

    @property
    def left_size(self) -> int:
        """The bytes of the left documents that pass the filter, estimated from the collection's mean document size."""
        stats = self.stats(self._spec.left)
        return stats.size * self.left_count // max(1, stats.count)

    def has_gaps(self, of: Side | str, path: str) -> bool:
        """Whether any document has null or no value at this path. True if the query takes too long."""
        side = self._side(of)
        return self._cached(("gap", side, path), lambda: self._any(side, {path: None}))

    def _any(self, side: Side, query: dict[str, Any]) -> bool:
        try:
            with within(QUERY_SECONDS):
                return find_collection(*side).find_one(query, {"_id": 1}, comment=self._comment) is not None
        except TookTooLong:
            return True

    def _count(self, side: Side, query: dict[str, Any], default: int) -> int:
        try:
            with within(QUERY_SECONDS):
                return find_collection(*side).count_documents(query, comment=self._comment)
        except TookTooLong:
            return default

    def _cached(self, key: Any, fetch: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = fetch()
        return self._cache[key]


def _index(document: Mapping[str, Any]) -> Index | None:
    """The index, or None if an equality cannot use it: text, geospatial and hidden ones."""
    kinds = dict(document["key"])
    if document.get("hidden") or any(kind not in {1, -1, "hashed"} for kind in kinds.values()):
        return None
    return Index(
        fields=tuple(kinds),
        sparse=bool(document.get("sparse")),
        partial="partialFilterExpression" in document,
        collation="collation" in document,
    )


def _collation(entry: Mapping[str, Any]) -> Document | None:
    """The default collation of a collection, or None for the simple one, which compares bytes."""
    collation = entry.get("options", {}).get("collation")
    return None if collation is None or collation.get("locale") == "simple" else dict(collation)


def _missing_error(name: str, existing: list[str]) -> str:
    similar = difflib.get_close_matches(name, existing, n=1)
    suggestion = f" Did you mean {similar[0]}?" if similar else ""
    return f"{name} does not exist, or is not open for joins.{suggestion}"

"""Statistics of the collections of a join, fetched from MongoDB when first needed."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import UNAUTHORIZED, InvalidInput, TookTooLong
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.spec import JoinSpec

#: Time limit in seconds of one query on the documents; after that its answer counts as unknown.
QUERY_SECONDS = 2.0
#: MongoDB's error code for a command on storage or indexes, which views lack.
COMMAND_NOT_SUPPORTED_ON_VIEW = 166


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

    A view has the size 0 and no indexes.
    """

    count: int
    size: int
    indexes: tuple[Index, ...] = ()
    is_view: bool = False

    def serves(self, paths: Iterable[str]) -> bool:
        return self.index_for(paths) is not None

    def index_for(self, paths: Iterable[str]) -> Index | None:
        """The first index that serves an equality on all of these fields, or None."""
        compared = list(paths)
        return next((index for index in self.indexes if index.serves(compared)), None)


@contextmanager
def require_readable(database: str) -> Iterator[None]:
    """Translates MongoDB's refusal of a query in the block.

    Raises:
        InvalidInput: the MongoDB user may not read the database.
    """
    try:
        yield
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        message = f"The MongoDB user may not read {database}: it is not open for joins."
        raise InvalidInput({"join.database": message}) from error


class Catalog:
    """Statistics of the collections of one join. ``comment`` marks every query in MongoDB."""

    def __init__(self, spec: JoinSpec, database: Database[Document], comment: str | None = None):
        self._comment = comment
        self._spec = spec
        self._database = database
        self._cache: dict[Any, Any] = {}

    def require_collections(self) -> None:
        """Checks that every collection exists; MongoDB treats a missing one as empty.

        Raises:
            InvalidInput: names each missing collection, and an existing one with a similar name.
            pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        with require_readable(self._database.name):
            existing = self._database.list_collection_names(authorizedCollections=True)
        names = {"join.from": self._spec.from_}
        names |= {f"join.joins.{number}.from": join.from_ for number, join in enumerate(self._spec.joins)}
        errors = {path: _missing_error(name, existing) for path, name in names.items() if name not in existing}
        if errors:
            raise InvalidInput(errors)

    def stats(self, collection: str) -> CollectionStats:
        """The size and the indexes of a collection."""
        return self._cached(("stats", collection), lambda: self._fetch_stats(collection))

    def _fetch_stats(self, collection: str) -> CollectionStats:
        try:
            (stats,) = self._database[collection].aggregate(
                [{"$collStats": {"storageStats": {}}}], comment=self._comment
            )
            storage = stats["storageStats"]
            indexes = [_index(document) for document in self._database[collection].list_indexes()]
        except OperationFailure as error:
            if error.code != COMMAND_NOT_SUPPORTED_ON_VIEW:
                raise
            return CollectionStats(self._count(collection, {}, default=10**9), 0, is_view=True)
        return CollectionStats(storage["count"], storage["size"], tuple(index for index in indexes if index))

    @cached_property
    def left_count(self) -> int:
        """The number of left documents that pass the filter, or of all left documents if counting takes too long."""
        return self.filtered_count(self._spec.from_, self._spec.match)

    def filtered_count(self, collection: str, stored: filters.Filter) -> int:
        """The number of documents that pass a filter, or of all documents if counting takes too long."""
        total = self.stats(collection).count
        return self._count(collection, filters.to_query(stored), default=total) if stored else total

    @property
    def left_size(self) -> int:
        """The bytes of the left documents that pass the filter, estimated from the collection's mean document size."""
        stats = self.stats(self._spec.from_)
        return stats.size * self.left_count // max(1, stats.count)

    def holds_lists(self, collection: str, path: str) -> bool:
        """Whether any document has a list at this path or on the way to it. True if the query takes too long."""
        query = {"$expr": {"$isArray": f"${path}"}}
        return self._cached(("list", collection, path), lambda: self._any(collection, query))

    def has_gaps(self, collection: str, path: str) -> bool:
        """Whether any document has null or no value at this path. True if the query takes too long."""
        return self._cached(("gap", collection, path), lambda: self._any(collection, {path: None}))

    def _any(self, collection: str, query: dict[str, Any]) -> bool:
        try:
            with within(QUERY_SECONDS):
                return self._database[collection].find_one(query, {"_id": 1}, comment=self._comment) is not None
        except TookTooLong:
            return True

    def _count(self, collection: str, query: dict[str, Any], default: int) -> int:
        try:
            with within(QUERY_SECONDS):
                return self._database[collection].count_documents(query, comment=self._comment)
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


def _missing_error(name: str, existing: list[str]) -> str:
    similar = difflib.get_close_matches(name, existing, n=1)
    suggestion = f" Did you mean {similar[0]}?" if similar else ""
    return f"{name} does not exist, or is not open for joins.{suggestion}"

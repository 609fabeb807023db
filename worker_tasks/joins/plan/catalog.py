"""What is known of the collections of a join before it runs. Nothing is asked before it is needed, nor twice."""

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

#: Seconds that one look at the data may take; what it would have told is then unknown.
QUERY_SECONDS = 2.0
#: MongoDB's code for what a view does not have: storage and indexes of its own.
COMMAND_NOT_SUPPORTED_ON_VIEW = 166


@dataclass(frozen=True)
class Index:
    """One index: its fields in order, and what keeps it from serving an equality.

    A sparse one serves equalities, since no key here is null, but can not tell whether a field is missing.
    """

    fields: tuple[str, ...]
    sparse: bool = False
    partial: bool = False
    collation: bool = False

    def serves(self, paths: Iterable[str]) -> bool:
        """Whether an equality on all of these fields is looked up in it."""
        wanted = set(paths)
        return not self.partial and not self.collation and set(self.fields[: len(wanted)]) == wanted


@dataclass(frozen=True)
class CollectionStats:
    """A collection: its documents and their bytes (by MongoDB's own counters), and its indexes; a view has none."""

    count: int
    size: int
    indexes: tuple[Index, ...] = ()
    is_view: bool = False

    def serves(self, paths: Iterable[str]) -> bool:
        return self.index_for(paths) is not None

    def index_for(self, paths: Iterable[str]) -> Index | None:
        """An index in which an equality on all of these fields is looked up."""
        wanted = list(paths)
        return next((index for index in self.indexes if index.serves(wanted)), None)


@contextmanager
def require_readable(database: str) -> Iterator[None]:
    """For what is asked of a database inside.

    Raises:
        InvalidInput: the MongoDB user may not read it.
    """
    try:
        yield
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        message = f"The MongoDB user may not read {database}: it is not open for joins."
        raise InvalidInput({"join.database": message}) from error


class Catalog:
    """The collections of one join, as MongoDB tells of them; ``comment`` marks every question."""

    def __init__(self, spec: JoinSpec, database: Database[Document], comment: str | None = None):
        self._comment = comment
        self._spec = spec
        self._database = database
        self._answers: dict[Any, Any] = {}

    def require_collections(self) -> None:
        """Refuses names of which nothing is there; MongoDB itself would take them for empty collections.

        Raises:
            InvalidInput: names each of them, and the name that may have been meant.
            pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        with require_readable(self._database.name):
            there = self._database.list_collection_names(authorizedCollections=True)
        named = {"join.from": self._spec.from_}
        named |= {f"join.joins.{number}.from": join.from_ for number, join in enumerate(self._spec.joins)}
        errors = {path: _not_there(name, there) for path, name in named.items() if name not in there}
        if errors:
            raise InvalidInput(errors)

    def stats(self, collection: str) -> CollectionStats:
        """Its size and its indexes."""
        return self._once(("known", collection), lambda: self._look_at(collection))

    def _look_at(self, collection: str) -> CollectionStats:
        try:
            (stats,) = self._database[collection].aggregate(
                [{"$collStats": {"storageStats": {}}}], comment=self._comment
            )
            storage = stats["storageStats"]
            indexes = [_index(document) for document in self._database[collection].list_indexes()]
        except OperationFailure as error:
            if error.code != COMMAND_NOT_SUPPORTED_ON_VIEW:
                raise
            return CollectionStats(self._counted(collection, {}, otherwise=10**9), 0, is_view=True)
        return CollectionStats(storage["count"], storage["size"], tuple(index for index in indexes if index))

    @cached_property
    def left_count(self) -> int:
        """How many documents of the left side its filter keeps; where counting takes too long, how many there are."""
        return self.counted(self._spec.from_, self._spec.match)

    def counted(self, collection: str, stored: filters.Filter) -> int:
        """How many documents a filter keeps; where counting takes too long, how many there are."""
        everything = self.stats(collection).count
        return self._counted(collection, filters.to_query(stored), otherwise=everything) if stored else everything

    @property
    def left_size(self) -> int:
        """Bytes of these documents, if all of the collection are alike."""
        everything = self.stats(self._spec.from_)
        return everything.size * self.left_count // max(1, everything.count)

    def holds_lists(self, collection: str, path: str) -> bool:
        """Whether some document has a list at this path, or on the way there; True where that takes too long."""
        look = {"$expr": {"$isArray": f"${path}"}}
        return self._once(("list", collection, path), lambda: self._any(collection, look))

    def has_gaps(self, collection: str, path: str) -> bool:
        """Whether some document has nothing or null at this path; True where that takes too long."""
        return self._once(("gap", collection, path), lambda: self._any(collection, {path: None}))

    def _any(self, collection: str, query: dict[str, Any]) -> bool:
        try:
            with within(QUERY_SECONDS):
                return self._database[collection].find_one(query, {"_id": 1}, comment=self._comment) is not None
        except TookTooLong:
            return True

    def _counted(self, collection: str, query: dict[str, Any], otherwise: int) -> int:
        try:
            with within(QUERY_SECONDS):
                return self._database[collection].count_documents(query, comment=self._comment)
        except TookTooLong:
            return otherwise

    def _once(self, question: Any, ask: Callable[[], Any]) -> Any:
        if question not in self._answers:
            self._answers[question] = ask()
        return self._answers[question]


def _index(document: Mapping[str, Any]) -> Index | None:
    """An index that an equality can use; text, geographical and hidden ones are none."""
    kinds = dict(document["key"])
    if document.get("hidden") or any(kind not in {1, -1, "hashed"} for kind in kinds.values()):
        return None
    return Index(
        fields=tuple(kinds),
        sparse=bool(document.get("sparse")),
        partial="partialFilterExpression" in document,
        collation="collation" in document,
    )


def _not_there(name: str, there: list[str]) -> str:
    close = difflib.get_close_matches(name, there, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"{name} does not exist, or is not open for joins.{meant}"

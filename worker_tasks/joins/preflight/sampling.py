"""Samples of collections: their fields, with types and fill rates, and their indexes."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson
from kombu.utils.encoding import ensure_bytes
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import InvalidInput, TookTooLong
from worker_tasks.infra.sources import find_collection, find_source, open_databases
from worker_tasks.joins.matching.paths import as_document
from worker_tasks.joins.plan.catalog import COMMAND_NOT_SUPPORTED_ON_VIEW, TIME_SERIES, VIEW, require_readable
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.bson_types import type_bracket, type_of
from worker_tasks.joins.spec.names import collection_error, path_error
from worker_tasks.joins.spec.sides import Side
from worker_tasks.records import live

#: The number of documents in a sample.
SAMPLE_DOCUMENTS = 200
#: A collection with at most this many documents is sampled whole.
WHOLE_DOCUMENTS = 1_000
#: Time limit in seconds for drawing a random sample; after that, the first and the last documents serve as one.
DRAWING_SECONDS = 0.3
#: Levels of nested fields that are sampled, and elements of each list.
MAX_DEPTH, MAX_ELEMENTS = 3, 20
#: The largest numbers of fields listed for a sample and of collections listed for a database.
MAX_FIELDS, MAX_COLLECTIONS = 300, 200
#: Seconds that samples and suggestions stay in Redis.
CACHE_SECONDS = 120
#: Time limit in seconds for listing the names of a database's collections; seconds that they stay in Redis; and
#: seconds until a database that could not be listed is asked again.
LISTING_SECONDS, NAMES_SECONDS, RETRY_SECONDS = 0.5, 20, 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Field:
    """One path of the documents in a sample.

    ``filled`` is the share of documents with a value at the path, ``types`` the share of each BSON type among the
    values. Null does not count as a value; a list counts as a value beside its elements.
    """

    path: str
    filled: float
    types: dict[str, float]

    @property
    def main_type(self) -> str:
        """The most frequent type."""
        return max(self.types, key=lambda name: self.types[name], default="null")

    @property
    def brackets(self) -> frozenset[str]:
        """The brackets of its types; see ``type_bracket``."""
        return frozenset(map(type_bracket, self.types))


@dataclass(frozen=True)
class CollectionSample:
    """A collection as seen through a sample of its documents.

    ``count`` is the number of all documents, None for a view and if counting a time series takes too long; ``sampled``
    that in the sample.
    ``size`` is the mean size of a sampled document as JSON, in bytes. ``indexed`` holds the first path of each index,
    ``unique`` the paths of each unique index.
    """

    count: int | None
    sampled: int
    size: float
    indexed: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    fields: tuple[Field, ...]

    def field(self, path: str) -> Field | None:
        """The field at a path; places in lists, such as that of ``items.0.sku``, do not count."""
        plain = ".".join(part for part in path.split(".") if not part.isdecimal())
        return next((field for name in (path, plain) for field in self.fields if field.path == name), None)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        document = json.loads(text)
        return cls(
            count=document["count"],
            sampled=document["sampled"],
            size=document["size"],
            indexed=tuple(document["indexed"]),
            unique=tuple(map(tuple, document["unique"])),
            fields=tuple(Field(**field) for field in document["fields"]),
        )


@dataclass(frozen=True)
class ListedCollection:
    """A collection of a database. ``count`` is None for a view and if counting a time series takes too long."""

    name: str
    count: int | None
    is_view: bool = False
    is_time_series: bool = False


def collections_of(database: str, source: str | None = None) -> list[ListedCollection]:
    """The collections of a database, sorted by name.

    Raises:
        InvalidInput: the MongoDB user may not read the database.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    opened = find_source(source).database(database)
    types = _collection_types(opened)
    deadline = time.monotonic() + DRAWING_SECONDS
    return [_listed(opened[name], kind, deadline) for name, kind in types]


def _listed(collection: Collection[Document], kind: str, deadline: float) -> ListedCollection:
    if kind == VIEW:
        return ListedCollection(collection.name, None, is_view=True)
    if kind == TIME_SERIES:
        count = _counted(collection, deadline - time.monotonic())
        return ListedCollection(collection.name, count, is_time_series=True)
    return ListedCollection(collection.name, collection.estimated_document_count())


def _counted(collection: Collection[Document], seconds: float = DRAWING_SECONDS) -> int | None:
    """The number of documents of a time series, for which MongoDB keeps no counter; None if time is too short."""
    if seconds <= 0:
        return None
    try:
        with within(seconds):
            return collection.count_documents({})
    except TookTooLong:
        return None


def collection_names(database: str, source: str | None) -> list[str]:
    """The names of a database's collections, not always the newest; none if they cannot be listed quickly.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    key = f"collection_names:{source or ''}:{database}"
    if (cached := connections().results.get(key)) is not None:
        return list(json.loads(ensure_bytes(cached)))
    names: list[str] = []
    seconds = NAMES_SECONDS
    try:
        with within(LISTING_SECONDS):
            names = [name for name, _ in _collection_types(find_source(source).database(database))]
    except (InvalidInput, TookTooLong, PyMongoError) as error:
        logger.warning("%s is not listed: %s", f"{source}.{database}" if source else database, error)
        seconds = RETRY_SECONDS
    live.remember(key, json.dumps(names), seconds)
    return names


def _collection_types(database: Database[Document]) -> list[tuple[str, str]]:
    """The names of a database's collections, sorted, each with its type."""
    with require_readable(database.name):
        entries = list(database.list_collections(authorizedCollections=True, nameOnly=True))
    types = {entry["name"]: entry["type"] for entry in entries if not collection_error(entry["name"])}
    return sorted(types.items())[:MAX_COLLECTIONS]


def sample_collection(side: Side) -> CollectionSample:
    """Samples a collection, or returns a sample from the last two minutes.

    Raises:
        InvalidInput: the MongoDB user may not read the database, or the source is unknown.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    source = f"{side.source}:" if side.source else ""
    key = f"collection_look:{source}{side.database}.{side.collection}"
    if (cached := connections().results.get(key)) is not None:
        return CollectionSample.from_json(ensure_bytes(cached))
    opened = find_collection(*side)
    with require_readable(side.database):
        count, indexes = _count_and_indexes(opened)
    is_small = count is not None and count <= WHOLE_DOCUMENTS
    documents = draw_documents(opened, {}, WHOLE_DOCUMENTS if is_small else SAMPLE_DOCUMENTS)
    sample = CollectionSample(
        count=count,
        sampled=len(documents),
        size=mean_size(documents),
        indexed=tuple(dict.fromkeys(next(iter(index["key"])) for index in indexes)),
        unique=tuple(tuple(index["key"]) for index in indexes if _is_unique(index)),
        fields=tuple(_fields(documents)),
    )
    live.remember(key, sample.to_json(), CACHE_SECONDS)
    return sample


def field_type(side: Side, path: str) -> str | None:
    """The most frequent BSON type of a field.

    None if the field is unknown, or its database is not open for joins.

    Raises:
        InvalidInput: the MongoDB user may not read the database.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    if not is_open(side) or collection_error(side.collection):
        return None
    field = sample_collection(side).field(path)
    if field is None:
        return None
    # The elements of a list count instead of the list; the sample has both under the same path.
    return max((name for name in field.types if name != "array"), key=lambda name: field.types[name], default=None)


def is_open(side: Side) -> bool:
    """Whether the database of a collection is open for joins."""
    return side.database in open_databases().get(side.source, ())


def _is_unique(index: Any) -> bool:
    return index["name"] == "_id_" or (bool(index.get("unique")) and "partialFilterExpression" not in index)


def _count_and_indexes(source: Collection[Document]) -> tuple[int | None, list[Any]]:
    listing = source.database.list_collections(filter={"name": source.name}, authorizedCollections=True, nameOnly=True)
    kind = next((entry["type"] for entry in listing), None)
    if kind == VIEW:
        return None, []
    try:
        indexes = list(source.list_indexes())
        return _counted(source) if kind == TIME_SERIES else source.estimated_document_count(), indexes
    except OperationFailure as error:
        if error.code != COMMAND_NOT_SUPPORTED_ON_VIEW:
            raise
        return None, []


def draw_documents(
    source: Collection[Document], stored: filters.Filter, size: int, comment: str | None = None
) -> list[Document]:
    """Documents that pass a filter: random ones or, if that takes too long, the first and the last, or just any.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    query = filters.to_query(stored)
    pipeline: list[Document] = [{"$match": query}] if query else []
    try:
        with within(DRAWING_SECONDS):
            return list(source.aggregate([*pipeline, {"$sample": {"size": size}}], comment=comment))
    except TookTooLong:
        pass
    try:
        with within(DRAWING_SECONDS):
            ends = [source.find(query, comment=comment).sort("_id", order).limit(size // 2) for order in (1, -1)]
            return list({repr(document.get("_id", document)): document for end in ends for document in end}.values())
    except TookTooLong:
        pass
    # Views and time series have no index on _id.
    try:
        with within(DRAWING_SECONDS):
            return list(source.find(query, comment=comment).limit(size))
    except TookTooLong:
        return []


def mean_size(documents: list[Document]) -> float:
    """The mean size of documents as JSON, in bytes. Approximate: values without a JSON form count as text."""
    sizes = [len(orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)) for document in documents]
    return sum(sizes) / max(len(sizes), 1)


def _fields(documents: list[Document]) -> list[Field]:
    filled: Counter[str] = Counter()
    types: dict[str, Counter[str]] = {}
    for document in documents:
        seen: set[str] = set()
        for path, value in _walk(document, "", MAX_DEPTH):
            counts = types.setdefault(path, Counter())
            if value is None:
                continue
            counts[type_of(value)] += 1
            if path not in seen:
                seen.add(path)
                filled[path] += 1
    return [
        Field(path, filled[path] / len(documents), {name: n / counts.total() for name, n in counts.most_common()})
        for path, counts in list(types.items())[:MAX_FIELDS]
        if not path_error(path) and not path.endswith((".$ref", ".$db"))
    ]


def _walk(document: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every path of a document with its value. Paths lead through lists, as MongoDB's dotted paths do."""
    for name, value in document.items():
        path = f"{prefix}{name}"
        yield path, value
        if isinstance(value, list):
            yield from ((path, inner) for inner in value[:MAX_ELEMENTS] if not isinstance(inner, dict))
        if depth == 1:
            continue
        for element in value[:MAX_ELEMENTS] if isinstance(value, list) else [value]:
            if (inner := as_document(element)) is not None:
                yield from _walk(inner, f"{path}.", depth - 1)

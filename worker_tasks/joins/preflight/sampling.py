"""What a collection looks like, from a bounded sample: its fields, their types, how often each of them is filled."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson
from kombu.utils.encoding import ensure_bytes
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.plan.catalog import COMMAND_NOT_SUPPORTED_ON_VIEW, require_readable
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.bson_types import type_bracket, type_of
from worker_tasks.joins.spec.names import collection_error, path_error
from worker_tasks.joins.spec.value_types import TypeOf
from worker_tasks.records import live

#: Documents of a sample.
SAMPLE_DOCUMENTS = 200
#: A collection of at most so many documents is looked at whole.
WHOLE_DOCUMENTS = 1_000
#: Seconds that drawing a sample may take; after that the first documents and the last stand for all.
DRAWING_SECONDS = 0.3
#: How deep fields inside fields are looked at, and elements of a list that are.
MAX_DEPTH, MAX_ELEMENTS = 3, 20
#: Fields that are told of one collection at most, and collections of one database.
MAX_FIELDS, MAX_COLLECTIONS = 300, 200
#: Seconds that what was seen is remembered in Redis.
KEPT_SECONDS = 120


@dataclass(frozen=True)
class Field:
    """One path of the documents in a sample.

    ``filled`` is the share of documents that have something there; ``types`` says how often each BSON type is among
    what they have.
    """

    path: str
    filled: float
    types: dict[str, float]

    @property
    def main_type(self) -> str:
        """The most frequent one."""
        return max(self.types, key=lambda name: self.types[name], default="null")

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(map(type_bracket, self.types))


@dataclass(frozen=True)
class CollectionSample:
    """A collection at a glance: how many documents (by MongoDB's counter; None of a view), and the fields of a sample.

    ``size`` is what a document of the sample takes as JSON, on average. ``indexed`` holds the paths that an index
    begins with, ``unique`` those paths, alone or together, of which no values are there twice.
    """

    count: int | None
    sampled: int
    size: float
    indexed: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    fields: tuple[Field, ...]

    def field(self, path: str) -> Field | None:
        return next((field for field in self.fields if field.path == path), None)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        read = json.loads(text)
        return cls(
            count=read["count"],
            sampled=read["sampled"],
            size=read["size"],
            indexed=tuple(read["indexed"]),
            unique=tuple(map(tuple, read["unique"])),
            fields=tuple(Field(**field) for field in read["fields"]),
        )


def collections_of(database: str) -> list[tuple[str, int | None]]:
    """The collections that are open for joins, by name, with their number of documents; None for a view.

    Raises:
        InvalidInput: the MongoDB user may not read it.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    source = default_source().database(database)
    with require_readable(database):
        found = list(source.list_collections(authorizedCollections=True, nameOnly=True))
    kinds = {entry["name"]: entry["type"] for entry in found if not collection_error(entry["name"])}
    names = sorted(kinds)[:MAX_COLLECTIONS]
    return [(name, None if kinds[name] == "view" else source[name].estimated_document_count()) for name in names]


def sample_collection(database: str, collection: str) -> CollectionSample:
    """A collection at a glance, as it was within the last minutes.

    Raises:
        InvalidInput: the MongoDB user may not read it.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    key = f"collection_look:{database}.{collection}"
    if (kept := connections().results.get(key)) is not None:
        return CollectionSample.from_json(ensure_bytes(kept))
    source = default_source().database(database)[collection]
    with require_readable(database):
        count, indexes = _count_and_indexes(source)
    is_small = count is not None and count <= WHOLE_DOCUMENTS
    documents = draw_documents(source, {}, WHOLE_DOCUMENTS if is_small else SAMPLE_DOCUMENTS)
    look = CollectionSample(
        count=count,
        sampled=len(documents),
        size=mean_size(documents),
        indexed=tuple(dict.fromkeys(next(iter(index["key"])) for index in indexes)),
        unique=tuple(tuple(index["key"]) for index in indexes if _is_unique(index)),
        fields=tuple(_fields(documents)),
    )
    live.remember(key, look.to_json(), KEPT_SECONDS)
    return look


def field_types(database: str) -> TypeOf:
    """Tells the BSON type of most values of a field; nothing about databases that are not open for joins."""
    is_open = database in settings().open_databases

    def main_type(collection: str, path: str) -> str | None:
        if not is_open or collection_error(collection):
            return None
        found = sample_collection(database, collection).field(path)
        if found is None:
            return None
        # The elements of a list count, which the sample has under the same path.
        return max((name for name in found.types if name != "array"), key=lambda name: found.types[name], default=None)

    return main_type


def _is_unique(index: Any) -> bool:
    return index["name"] == "_id_" or (bool(index.get("unique")) and "partialFilterExpression" not in index)


def _count_and_indexes(source: Collection[Document]) -> tuple[int | None, list[Any]]:
    try:
        return source.estimated_document_count(), list(source.list_indexes())
    except OperationFailure as error:
        if error.code != COMMAND_NOT_SUPPORTED_ON_VIEW:
            raise
        return None, []


def draw_documents(
    source: Collection[Document], stored: filters.Filter, size: int, comment: str | None = None
) -> list[Document]:
    """Some documents that a filter keeps: at random, or where that takes too long the first ones and the last.

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
            ends = (source.find(query, comment=comment).sort("_id", way).limit(size // 2) for way in (1, -1))
            return list({repr(found["_id"]): found for end in ends for found in end}.values())
    except TookTooLong:
        return []


def mean_size(documents: list[Document]) -> float:
    """Bytes of a document as JSON, on average; about, because values that JSON has not are counted as text."""
    sizes = [len(orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS)) for document in documents]
    return sum(sizes) / max(len(sizes), 1)


def _fields(documents: list[Document]) -> list[Field]:
    filled: Counter[str] = Counter()
    types: dict[str, Counter[str]] = {}
    for document in documents:
        seen: set[str] = set()
        for path, value in _walk(document, "", MAX_DEPTH):
            found = types.setdefault(path, Counter())
            if value is None:
                continue
            found[type_of(value)] += 1
            if path not in seen:
                seen.add(path)
                filled[path] += 1
    return [
        Field(path, filled[path] / len(documents), {name: count / found.total() for name, count in found.most_common()})
        for path, found in list(types.items())[:MAX_FIELDS]
        if not path_error(path)
    ]


def _walk(document: Document, before: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every path and what is there; through lists as MongoDB's dotted paths lead through them."""
    for name, value in document.items():
        path = f"{before}{name}"
        yield path, value
        if isinstance(value, list):
            yield from ((path, inner) for inner in value[:MAX_ELEMENTS] if not isinstance(inner, dict))
        if depth == 1:
            continue
        for inner in value[:MAX_ELEMENTS] if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _walk(inner, f"{path}.", depth - 1)


def values_at(document: Any, path: str) -> list[Any]:
    """What is at a path, each element of a list by itself, as ``localField`` takes it; nothing for null and missing."""
    head, _, rest = path.partition(".")
    if isinstance(document, list):
        return [value for element in document if isinstance(element, dict) for value in values_at(element, path)]
    if not isinstance(document, dict) or head not in document:
        return []
    if rest:
        return values_at(document[head], rest)
    value = document[head]
    return [each for each in (value if isinstance(value, list) else [value]) if each is not None]

"""Turns a JoinSpec into a plan: an aggregation, its parts, and the snapshot that the parts read."""

from dataclasses import dataclass, field
from math import isnan
from typing import Any

import bson
from bson import Int64, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.pipeline import Aggregation, compile_pipeline
from worker_tasks.joins.plan.stages import Stage, match_stages
from worker_tasks.joins.plan.strategy import JoinMethod, Strategy, choose_strategy
from worker_tasks.joins.spec import filters, mongosh
from worker_tasks.joins.spec.spec import Join, JoinSpec
from worker_tasks.queue import capacity

#: The largest number of parts of a join.
MAX_PARTS = 32
#: Seconds that finding the borders of the parts may take; after that, the join runs in one part.
CUT_SECONDS = 5.0
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
#: Error codes of a server without snapshots: NotAReplicaSet, SnapshotUnavailable, InvalidOptions.
NO_SNAPSHOT = frozenset({123, 246, 72})


@dataclass(frozen=True)
class Plan:
    """How a join is run.

    The result is stored under the Redis key ``key``. ``parts`` holds the filter on ``_id`` of each part, ``snapshot``
    the cluster time that all of them read (None for a single part). ``total`` is the expected number of rows, None if
    unknown. ``watched`` names the fields that joins leave empty in rows without a match. ``steps`` and ``note`` are
    for people.
    """

    key: str
    database: str
    collection: str
    pipeline: list[Stage]
    parts: list[filters.Filter] = field(default_factory=lambda: [{}])
    snapshot: Timestamp | None = None
    total: int | None = None
    watched: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    note: str | None = None

    def to_bson(self) -> bytes:
        return bson.encode(vars(self))

    @classmethod
    def from_bson(cls, data: bytes) -> "Plan":
        return cls(**bson.decode(data, CODEC))

    def to_document(self) -> dict[str, Any]:
        """The plan as stored with the task."""
        pipeline = mongosh.aggregate(self.database, self.collection, self.pipeline)
        return {
            "steps": self.steps,
            "parts": len(self.parts),
            "note": self.note,
            "pipeline": pipeline,
            "snapshot_at": None if self.snapshot is None else self.snapshot.as_datetime().isoformat(),
        }

    def pipeline_of(self, part: int) -> list[Stage]:
        """The aggregation of one part."""
        bounds = self.parts[part]
        return [{"$match": bounds}, *self.pipeline] if bounds else self.pipeline


def make_plan(spec: JoinSpec, key: str, comment: str, *, divided: bool = True) -> Plan:
    """Plans a join from statistics of its collections.

    Args:
        key: the Redis key of the result.
        comment: marks every operation in MongoDB, so that a stop finds it.
        divided: whether the join may be divided into parts.

    Raises:
        InvalidInput: a collection does not exist.
        TooExpensive: every method takes too long.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    catalog = Catalog(spec, default_source().database(spec.database), comment)
    catalog.require_collections()
    strategy = choose_strategy(spec, catalog, settings().join_seconds)
    aggregation = compile_pipeline(spec, strategy)
    count = catalog.left_count if aggregation.collection == spec.from_ else catalog.stats(aggregation.collection).count
    parts: list[filters.Filter] = [{}]
    snapshot: Timestamp | None = None
    note: str | None = None
    number = min(count // settings().part_documents, MAX_PARTS)
    if divided and number > 1 and is_divisible(spec, strategy) and capacity.slots() > 1:
        parts, snapshot, note = _divide(spec.database, aggregation, number, comment)
    return Plan(
        key=key,
        database=spec.database,
        collection=aggregation.collection,
        pipeline=match_stages(aggregation.filter) + aggregation.pipeline,
        parts=parts,
        snapshot=snapshot,
        total=_total(spec, catalog),
        watched=_watched(spec),
        steps=_steps(spec, strategy, catalog),
        note=note,
    )


def is_divisible(spec: JoinSpec, strategy: Strategy) -> bool:
    """Whether each left document can be joined independently of the others."""
    needs_all = spec.sort or spec.limit is not None or any(join.kind_traits.keeps_other for join in spec.joins)
    return not needs_all and all(step.method is not JoinMethod.ONE_PASS for step in strategy.steps)


def _divide(
    database: str, aggregation: Aggregation, count: int, comment: str
) -> tuple[list[filters.Filter], Timestamp | None, str | None]:
    """Divides an aggregation into ranges of ``_id`` with about equally many documents.

    Returns:
        The filter of each range, the snapshot that they were read from, and no note. If it cannot be divided: one
        filter that keeps everything, no snapshot, and a note with the reason.
    """
    collection = default_source().database(database)[aggregation.collection]
    with default_source().session(snapshot=True) as session:
        try:
            with within(CUT_SECONDS):
                borders = _borders(collection, aggregation.filter, count, session, comment)
        except TookTooLong:
            return [{}], None, f"in one part: cutting it took more than {CUT_SECONDS:.0f} s"
        except OperationFailure as error:
            if error.code not in NO_SNAPSHOT:
                raise
            return [{}], None, "in one part: this MongoDB has no snapshots that several parts could share"
        if not _share_bracket(borders):
            return [{}], None, "in one part: its _id values are of several types"
        return _ranges(borders[:-1]), snapshot_of(session), None


def _borders(
    collection: Collection[Document], stored: filters.Filter, count: int, session: ClientSession, comment: str
) -> list[Any]:
    """The smallest ``_id`` of each part, and the largest of all."""
    if stored:
        bucketing = [*match_stages(stored), {"$bucketAuto": {"groupBy": "$_id", "buckets": count}}]
        buckets = list(collection.aggregate(bucketing, session=session, comment=comment, allowDiskUse=True))
        return [*(bucket["_id"]["min"] for bucket in buckets), buckets[-1]["_id"]["max"]] if buckets else []
    # Walking the index on _id reads no documents.
    length = -(-collection.estimated_document_count() // count)
    borders: list[Any] = []
    start: filters.Filter = {}
    while border := _find_id(collection, start, 1, len(borders) and length, session, comment):
        borders += border
        start = {"_id": {"$gte": border[0]}}
    return borders + _find_id(collection, {}, -1, 0, session, comment)


def _find_id(  # noqa: PLR0913, PLR0917 - the parts of a query
    collection: Collection[Document],
    query: filters.Filter,
    direction: int,
    skip: int,
    session: ClientSession,
    comment: str,
) -> list[Any]:
    """A list of one ``_id``, read from the index alone, or an empty list."""
    cursor = collection.find(query, {"_id": 1}, session=session, comment=comment).hint([("_id", 1)])
    return [document["_id"] for document in cursor.sort("_id", direction).skip(skip).limit(1)]


def _ranges(borders: list[Any]) -> list[filters.Filter]:
    ranges: list[filters.Filter] = []
    for number, border in enumerate(borders):
        bounds = {} if number == 0 else {"$gte": border}
        if number + 1 < len(borders):
            bounds["$lt"] = borders[number + 1]
        ranges.append({"_id": bounds})
    return ranges


def _share_bracket(values: list[Any]) -> bool:
    """Whether range comparisons with these two values find every value between them.

    MongoDB compares only values of one type bracket, and sorts values by bracket. So if the first and the last value
    share a bracket, all values between them do.
    """
    brackets = {"number" if type(value) in {int, float, Int64} else type(value) for value in values}
    return len(brackets) == 1 and not any(isinstance(value, float) and isnan(value) for value in values)


def snapshot_of(session: ClientSession) -> Timestamp | None:
    """The cluster time of a snapshot session, known after its first operation."""
    return session._snapshot_time  # noqa: SLF001 - the driver offers no public access


def _steps(spec: JoinSpec, strategy: Strategy, catalog: Catalog) -> list[Document]:
    """The method and the index by which each collection is joined."""
    steps = []
    for join, step in zip(spec.joins, strategy.steps, strict=True):
        swapped = step.method is JoinMethod.SWAPPED
        looked_up_in = spec.from_ if swapped else join.from_
        paths = [pair.local if swapped else pair.foreign for pair in join.on]
        index = (
            catalog.stats(looked_up_in).index_for(paths)
            if step.method in {JoinMethod.INDEX, JoinMethod.SWAPPED}
            else None
        )
        steps.append(
            {
                "collection": join.from_,
                "way": str(step.method),
                "index": None if index is None else f"{looked_up_in}: {', '.join(index.fields)}",
                "estimated_seconds": round(step.seconds, 3),
            }
        )
    return steps


def _watched(spec: JoinSpec) -> list[str]:
    """The fields that joins leave empty in rows without a match."""
    watched = [join for join in spec.joins if join.kind_traits.keeps_left and _is_kept(join, spec.fields_)]
    return [join.as_ for join in watched if join.as_ is not None]


def _is_kept(join: Join, fields: list[str] | None) -> bool:
    """Whether the final rows still show that this join found a match or found none."""
    if fields is None or join.as_ in fields:
        return True
    # A count has no inner fields.
    return join.shape_traits.holds_documents and any(field.startswith(f"{join.as_}.") for field in fields)


def _total(spec: JoinSpec, catalog: Catalog) -> int | None:
    """The number of rows if each left document becomes exactly one row."""
    one_each = all(join.kind_traits.keeps_exactly_left and not join.shape_traits.repeats_rows for join in spec.joins)
    if not one_each:
        return None
    return catalog.left_count if spec.limit is None else min(catalog.left_count, spec.limit)

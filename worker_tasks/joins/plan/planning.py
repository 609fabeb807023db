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

from worker_tasks.infra import sources
from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.layout import layout_of
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.shell_commands import lookup_command, read_commands
from worker_tasks.joins.plan.stages import Stage, match_stages
from worker_tasks.joins.plan.strategy import STREAMED_BYTES, STREAMED_ROWS, JoinMethod, Strategy, choose_strategy
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import Join, JoinSpec, parse
from worker_tasks.queue import capacity

#: The largest number of parts of a join.
MAX_PARTS = 32
#: A scan is not divided if the other sides are larger than this share of the left side, because each part reads them
#: again; up to the smaller share, there may be several parts for each slot, so that all slots end together.
MAX_OTHER_SHARE, SMALL_OTHER_SHARE = 1.0, 0.02
#: The largest number of parts of a scan per slot. Each part opens a database and reads the other sides.
PARTS_PER_SLOT = 3
#: Seconds that finding the borders of the parts may take; after that, the join runs in one part.
CUT_SECONDS = 5.0
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
#: Error codes of a server without snapshots: NotAReplicaSet, SnapshotUnavailable, InvalidOptions.
NO_SNAPSHOT = frozenset({123, 246, 72})


@dataclass(frozen=True)
class Plan:
    """How a join is run.

    Attributes:
        key: the Redis key of the result.
        left: the collection that the join starts from.
        pipeline: the aggregation on ``left``, if MongoDB does all of the join.
        spec: the join, if the worker scans its sides.
        parts: the filter on ``_id`` of each part.
        snapshots: the cluster time that all reads of a source see, as pairs of source and time.
        total: the expected number of rows, None if unknown.
        watched: the fields that joins leave empty in rows without a match.
        columns: the fields that a result without rows has.
        steps, estimates, note: the plan in words and numbers, for people.
        starts_late: whether a scan reads large sides before it writes the first row.
    """

    key: str
    left: Side
    pipeline: list[Stage]
    method: JoinMethod = JoinMethod.LOOKUP
    spec: dict[str, Any] | None = None
    parts: list[filters.Filter] = field(default_factory=lambda: [{}])
    snapshots: list[tuple[str | None, Timestamp]] = field(default_factory=list)
    total: int | None = None
    watched: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    estimates: dict[str, float | None] = field(default_factory=dict)
    note: str | None = None
    starts_late: bool = False

    def to_bson(self) -> bytes:
        return bson.encode(vars(self) | {"method": str(self.method)})

    @classmethod
    def from_bson(cls, data: bytes) -> "Plan":
        values = bson.decode(data, CODEC)
        values |= {"left": Side(*values["left"]), "method": JoinMethod(values["method"])}
        return cls(**values | {"snapshots": [tuple(pair) for pair in values["snapshots"]]})

    @property
    def sources(self) -> set[str | None]:
        """The names of the sources that it reads."""
        return {self.left.source} if self.spec is None else {side.source for side in parse(self.spec).sides}

    def to_document(self) -> dict[str, Any]:
        """The plan as stored with the task."""
        instants = {source or "": time.as_datetime().isoformat() for source, time in self.snapshots}
        return {
            "method": str(self.method),
            "steps": self.steps,
            "estimated_seconds": self.estimates,
            "parts": len(self.parts),
            "note": self.note,
            "pipeline": self._shell_commands(),
            "snapshot_at": instants.get(self.left.source or ""),
            "snapshots": [{"source": name, "at": at} for name, at in instants.items()] if len(instants) > 1 else None,
        }

    def _shell_commands(self) -> str:
        """The commands that read the same data in MongoDB's shell."""
        return lookup_command(self.left, self.pipeline) if self.spec is None else read_commands(parse(self.spec))

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
        InvalidInput: a collection does not exist, or the join asks for something that no method can do.
        TooExpensive: every method takes too long.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    catalog = Catalog(spec, comment=comment)
    catalog.require_collections()
    strategy = choose_strategy(spec, catalog, settings().join_seconds)
    is_scan = strategy.method is JoinMethod.SCAN
    pipeline = layout_of(spec).rows.left.pipeline() if is_scan else compile_pipeline(spec, strategy)
    parts: list[filters.Filter] = [{}]
    snapshots: list[tuple[str | None, Timestamp]] = []
    note: str | None = None
    number = _number_of_parts(spec, catalog, strategy) if divided and is_divisible(spec) else 1
    if number > 1:
        parts, snapshot, note = _divide(spec.left, spec.match, number, comment)
        snapshots = [(spec.source, snapshot)] if snapshot is not None else []
    if is_scan:
        snapshots += _snapshots(spec, {source for source, _ in snapshots}, comment)
    return Plan(
        key=key,
        left=spec.left,
        pipeline=pipeline,
        method=strategy.method,
        spec=spec.canonical() if is_scan else None,
        parts=parts,
        snapshots=snapshots,
        total=_total(spec, catalog),
        watched=_watched(spec),
        columns=spec.known_columns,
        steps=_steps(spec, strategy, catalog),
        estimates={"lookup": _rounded(strategy.lookup_seconds), "scan": _rounded(strategy.scan_seconds)},
        note=note,
        starts_late=is_scan and _starts_late(spec, catalog),
    )


def _starts_late(spec: JoinSpec, catalog: Catalog) -> bool:
    """Whether the first rows are known long before a scan writes them; the first rows of an order are not."""
    others = [catalog.stats(spec.side(join)) for join in spec.joins]
    is_large = sum(each.count for each in others) > STREAMED_ROWS or sum(each.size for each in others) > STREAMED_BYTES
    return is_large and not spec.sort


def is_divisible(spec: JoinSpec) -> bool:
    """Whether each left document can be joined independently of the others."""
    return not (spec.sort or spec.limit is not None or any(join.kind_traits.keeps_other for join in spec.joins))


def _number_of_parts(spec: JoinSpec, catalog: Catalog, strategy: Strategy) -> int:
    """The number of parts to divide a join into.

    Each part of a scan reads the other sides again, or the range of them that can match its own documents.
    """
    slots = capacity.slots()
    if slots <= 1:
        return 1
    number = min(catalog.left_count // settings().part_documents, MAX_PARTS)
    if strategy.method is JoinMethod.LOOKUP or not spec.joins or is_by_id(spec):
        return number
    others = sum(catalog.stats(spec.side(join)).size for join in spec.joins)
    share = others / max(1, catalog.left_size)
    if share > MAX_OTHER_SHARE:
        return 1
    return min(number, slots * PARTS_PER_SLOT if share < SMALL_OTHER_SHARE else slots)


def is_by_id(spec: JoinSpec) -> bool:
    """Whether every join compares the left ``_id``, so that a range of it bounds the keys of the other sides."""
    return all(
        len(join.on) == 1
        and join.into is None
        and join.on[0].local == "_id"
        and not (join.on[0].cast or join.on[0].fold)
        for join in spec.joins
    )


def _snapshots(spec: JoinSpec, known: set[str | None], comment: str) -> list[tuple[str | None, Timestamp]]:
    """The present time of each source that the join reads, except the known ones and those without snapshots."""
    found: list[tuple[str | None, Timestamp]] = []
    for side in {side.source: side for side in spec.sides}.values():
        if side.source in known:
            continue
        source = sources.find_source(side.source)
        with source.session(snapshot=True) as session:
            try:
                source.database(side.database)[side.collection].find_one(
                    {}, {"_id": 1}, session=session, comment=comment
                )
            except OperationFailure as error:
                if error.code not in NO_SNAPSHOT:
                    raise
                continue
            if (time := snapshot_of(session)) is not None:
                found.append((side.source, time))
    return found


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _divide(
    left: Side, match: filters.Filter, count: int, comment: str
) -> tuple[list[filters.Filter], Timestamp | None, str | None]:
    """Divides the left side into ranges of ``_id`` with about equally many documents.

    Returns:
        The filter of each range, the snapshot that they were read from, and no note. If it cannot be divided: one
        filter that keeps everything, no snapshot, and a note with the reason.
    """
    source = sources.find_source(left.source)
    collection = source.database(left.database)[left.collection]
    with source.session(snapshot=True) as session:
        try:
            with within(CUT_SECONDS):
                borders = _borders(collection, match, count, session, comment)
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
        # A single part has no bounds; an empty document would be a value to find.
        ranges.append({"_id": bounds} if bounds else {})
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
    for join in spec.joins:
        index = None
        if strategy.method is JoinMethod.LOOKUP:
            index = catalog.stats(spec.side(join)).index_for([pair.foreign for pair in join.on])
        steps.append(
            {
                "collection": join.from_,
                "way": str(strategy.method),
                "index": None if index is None else f"{join.from_}: {', '.join(index.fields)}",
            }
        )
    return steps


def _watched(spec: JoinSpec) -> list[str]:
    """The fields that joins leave empty in rows without a match."""
    watched = [
        join
        for join in spec.joins
        if join.kind_traits.keeps_left and join.into is None and _is_kept(join, spec.fields_)
    ]
    return [join.as_ for join in watched if join.as_ is not None]


def _is_kept(join: Join, fields: list[str] | None) -> bool:
    """Whether the final rows still show that this join found a match or found none."""
    if fields is None or join.as_ in fields:
        return True
    # A count has no inner fields.
    return join.shape_traits.holds_documents and any(field.startswith(f"{join.as_}.") for field in fields)


def _total(spec: JoinSpec, catalog: Catalog) -> int | None:
    """The number of rows if each left document becomes exactly one row."""
    one_each = not spec.expand and all(
        join.kind_traits.keeps_exactly_left and not join.shape_traits.repeats_rows for join in spec.joins
    )
    if not one_each:
        return None
    return catalog.left_count if spec.limit is None else min(catalog.left_count, spec.limit)

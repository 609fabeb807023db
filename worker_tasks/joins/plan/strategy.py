"""Chooses between the two methods of a join from its spec and statistics of the collections. Pure: no I/O of its own.

*Lookup* lets MongoDB find the matches of each left document by an index. *Scan* reads each side once and joins them in
the worker. The costs are seconds on two shared cores, measured by ``benchmarks/methods.py``; only their ratios matter.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from worker_tasks.infra.errors import TooExpensive
from worker_tasks.joins.plan.catalog import CollectionStats
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: Seconds of a lookup per left document: with an equality, with a row for each match, with stages on the matches.
INDEXED, INDEXED_ROWS, INDEXED_PIPELINE = 12e-6, 32e-6, 46e-6
#: Seconds of a lookup per compared pair of documents, if no index serves it.
COMPARED = 0.4e-6
#: Seconds of a scan per document and per byte of all sides, and for starting it.
READ, READ_BYTE, START = 4e-6, 12e-9, 0.1
#: Up to this size, the whole other side fits into one document (of at most 16 MB).
FITS_BYTES = 12 * 1024 * 1024
#: Up to this many documents and bytes on the other sides together, a scan streams the left side through the join.
STREAMED_ROWS, STREAMED_BYTES = 200_000, 32 * 2**20
#: The casts that MongoDB's ``$convert`` and the worker do alike.
COMMON_CASTS = frozenset({None, "objectId", "date", "double"})


class JoinMethod(StrEnum):
    """How a join is run. The values are stored with tasks and shown to people."""

    LOOKUP = "lookup"
    SCAN = "scan"


@dataclass(frozen=True)
class Step:
    """How a lookup finds the matches of one join.

    ``native_lookup``: the lookup has no pipeline. ``null_safe``: a stage replaces left keys that match nothing by one
    that cannot occur; that is needless if every document of the other side has its key.
    """

    native_lookup: bool = False
    null_safe: bool = True


@dataclass(frozen=True)
class Strategy:
    """The chosen method.

    ``lookup_seconds`` and ``scan_seconds`` are the estimates, None for a method that would not give the right rows.
    ``steps`` are the steps of the lookup.
    """

    method: JoinMethod
    lookup_seconds: float | None
    scan_seconds: float | None
    steps: tuple[Step, ...] = ()

    @property
    def seconds(self) -> float:
        """The estimate for the chosen method."""
        seconds = self.lookup_seconds if self.method is JoinMethod.LOOKUP else self.scan_seconds
        return seconds or 0.0


class PlannerStats(Protocol):
    """Statistics for choosing a strategy, as :class:`worker_tasks.joins.plan.catalog.Catalog` provides them."""

    @property
    def left_count(self) -> int: ...
    @property
    def left_size(self) -> int: ...
    def stats(self, side: Side) -> CollectionStats: ...
    def has_gaps(self, side: Side, path: str) -> bool: ...


def choose_strategy(spec: JoinSpec, catalog: PlannerStats, max_seconds: float) -> Strategy:
    """Chooses the faster method that gives the right rows.

    Raises:
        TooExpensive: the chosen method would take longer than ``max_seconds``.
    """
    lookup = lookup_seconds(spec, catalog) if allows_lookup(spec) else None
    # Only MongoDB compares texts by a collation.
    has_collation = lookup is not None and catalog.stats(spec.left).collation is not None
    scan = None if has_collation else scan_seconds(spec, catalog)
    use_lookup = lookup is not None and (scan is None or lookup <= scan)
    strategy = Strategy(JoinMethod.LOOKUP if use_lookup else JoinMethod.SCAN, lookup, scan)
    if strategy.seconds > max_seconds:
        raise TooExpensive(_too_expensive_message(spec, catalog, strategy))
    if not use_lookup:
        return strategy
    return Strategy(JoinMethod.LOOKUP, lookup, scan, lookup_steps(spec, catalog))


def lookup_steps(spec: JoinSpec, catalog: PlannerStats) -> tuple[Step, ...]:
    """The steps of a lookup, one for each join."""
    return tuple(_step(spec, join, catalog) for join in spec.joins)


def allows_lookup(spec: JoinSpec) -> bool:
    """Whether MongoDB can run the join in one aggregation that gives the same rows as a scan."""
    if spec.expand or any(spec.side(join)[:2] != spec.left[:2] for join in spec.joins):
        return False
    return all(_allows_lookup(spec, join) for join in spec.joins)


def _allows_lookup(spec: JoinSpec, join: Join) -> bool:
    if join.into is not None or join.kind_traits.keeps_other:
        return False
    if any(pair.fold is not None or pair.cast not in COMMON_CASTS for pair in join.on):
        return False
    paths = [path for pair in join.on for path in (pair.local, pair.foreign)]
    if any(part.isdigit() or part.startswith("$") for path in paths for part in path.split(".")[1:]):
        return False
    # The pipeline sorts rows after it has dropped the fields that the join does not keep.
    sorted_by = [path.partition(".")[2] for path, _ in spec.sort if path.partition(".")[0] == join.as_]
    kept = join.fields_
    return kept is None or all(
        any(path == field or path.startswith(f"{field}.") for field in kept) for path in sorted_by
    )


def lookup_seconds(spec: JoinSpec, catalog: PlannerStats) -> float:
    """The estimated seconds of a lookup."""
    return sum(_lookup_seconds(spec, join, catalog) for join in spec.joins)


def _lookup_seconds(spec: JoinSpec, join: Join, catalog: PlannerStats) -> float:
    left, other = catalog.left_count, catalog.stats(spec.side(join))
    if not other.serves([pair.foreign for pair in join.on]):
        return left * other.count * COMPARED
    with_index = INDEXED_ROWS if join.shape_traits.repeats_rows else INDEXED
    return left * (with_index if is_native_lookup(join, other) else INDEXED_PIPELINE)


def scan_seconds(spec: JoinSpec, catalog: PlannerStats) -> float:
    """The estimated seconds of a scan."""
    others = [catalog.stats(spec.side(join)) for join in spec.joins]
    documents = catalog.left_count + sum(other.count for other in others)
    size = catalog.left_size + sum(other.size for other in others)
    return START + documents * READ + size * READ_BYTE


def is_native_lookup(join: Join, other: CollectionStats) -> bool:
    """Whether the lookup needs no pipeline, so that MongoDB runs it in its fast engine."""
    if len(join.on) > 1 or join.match or join.sort or join.limit or join.fields_:
        return False
    # Without a pipeline, all matches first go into the row, which must not exceed MongoDB's limit for a document.
    return (join.embeds and join.shape_traits.needs_all) or other.size <= FITS_BYTES


def _step(spec: JoinSpec, join: Join, catalog: PlannerStats) -> Step:
    native_lookup = is_native_lookup(join, catalog.stats(spec.side(join)))
    (pair, *more) = join.on
    may_match_nothing = bool(more) or pair.cast is not None or catalog.has_gaps(spec.side(join), pair.foreign)
    return Step(native_lookup=native_lookup, null_safe=not native_lookup or may_match_nothing)


def _too_expensive_message(spec: JoinSpec, catalog: PlannerStats, strategy: Strategy) -> str:
    missing = [
        join for join in spec.joins if not catalog.stats(spec.side(join)).serves([pair.foreign for pair in join.on])
    ]
    commands = [mongosh.create_index(join.from_, [pair.foreign for pair in join.on]) for join in missing]
    advice = f"Ask for {'; '.join(commands)}, or filter" if commands else "Filter"
    return f"It would take about {strategy.seconds:,.0f} s. {advice} the left side."

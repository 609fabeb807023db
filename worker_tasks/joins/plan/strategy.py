"""Chooses the method of each join from its spec and statistics of the collections. Pure: no I/O of its own.

The costs are seconds on two shared cores, measured by ``benchmarks/strategies.py``; only their ratios matter.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from worker_tasks.infra.errors import TooExpensive
from worker_tasks.joins.plan.catalog import CollectionStats
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: Seconds per left document for an equality that an index serves.
INDEXED = 12e-6
#: The same if each match becomes a row of its own.
INDEXED_ROWS = 32e-6
#: The same with several keys, or with stages on the matches: MongoDB runs a pipeline per document.
INDEXED_PIPELINE = 46e-6
#: Seconds per document of both sides if MongoDB holds the other side in a hash table.
HASHED = 5e-6
#: Seconds per document and per byte of both sides for one pass over both, grouped by key.
ONE_PASS, ONE_PASS_BYTE = 3e-6, 20e-9
#: Seconds per left document if the join runs from the other side.
SWAPPED = 10e-6
#: Seconds per compared pair of documents.
COMPARED = 0.4e-6
#: Above these limits MongoDB builds no hash table: its internalQueryCollectionMaxNoOfDocumentsToChooseHashJoin and
#: internalQueryCollectionMaxDataSizeBytesToChooseHashJoin.
HASHED_COUNT, HASHED_BYTES = 10_000, 100 * 1024 * 1024
#: Up to this size, the whole other side fits into one document (of at most 16 MB).
FITS_BYTES = 12 * 1024 * 1024
#: A method that shows its first rows at once wins unless another method is this many times as fast.
PREFERENCE = 2.0


class JoinMethod(StrEnum):
    """How one collection is joined. The values are stored with tasks and shown to people."""

    INDEX = "by index"
    HASH = "small side in memory"
    ONE_PASS = "one pass over both"  # noqa: S105 - no password
    SWAPPED = "from the other side"
    COMPARE = "every pair compared"


#: The methods that show their first rows at once.
STREAMING = frozenset({JoinMethod.INDEX, JoinMethod.HASH, JoinMethod.SWAPPED})
#: The methods that are a ``$lookup`` on the left side. MongoDB chooses among them by indexes and sizes.
LOOKUPS = frozenset({JoinMethod.INDEX, JoinMethod.HASH, JoinMethod.COMPARE})


@dataclass(frozen=True)
class Step:
    """The method chosen for one join, and its estimated time in seconds.

    ``native_lookup``: the lookup has no pipeline. ``null_safe``: a stage replaces null and missing keys by one that
    matches nothing; that is needless if no document of the other side lacks its key.
    """

    method: JoinMethod
    seconds: float
    native_lookup: bool = False
    null_safe: bool = True


@dataclass(frozen=True)
class Strategy:
    """The steps of all joins, in order."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


class PlannerStats(Protocol):
    """Statistics for choosing a strategy, as :class:`worker_tasks.joins.plan.catalog.Catalog` provides them."""

    @property
    def left_count(self) -> int: ...
    @property
    def left_size(self) -> int: ...
    def stats(self, collection: str) -> CollectionStats: ...
    def holds_lists(self, collection: str, path: str) -> bool: ...
    def has_gaps(self, collection: str, path: str) -> bool: ...


def choose_strategy(spec: JoinSpec, catalog: PlannerStats, max_seconds: float) -> Strategy:
    """Chooses the cheapest correct method for each join, with some preference for early first rows.

    Raises:
        TooExpensive: the chosen method would take longer than ``max_seconds``.
    """
    return Strategy(tuple(_step(spec, number, catalog, max_seconds) for number in range(len(spec.joins))))


def _step(spec: JoinSpec, number: int, catalog: PlannerStats, max_seconds: float) -> Step:
    join = spec.joins[number]
    # The check for correctness comes after the costs, because it may have to scan all documents.
    costs = estimate_costs(join, catalog)
    for method in sorted(costs, key=lambda method: costs[method] / (PREFERENCE if method in STREAMING else 1)):
        if not is_correct(spec, number, method, catalog):
            continue
        if costs[method] > max_seconds:
            raise TooExpensive(_too_expensive_message(join, catalog, costs[method]))
        return make_step(join, method, costs[method], catalog)
    raise AssertionError("comparing is always right")


def make_step(join: Join, method: JoinMethod, seconds: float, catalog: PlannerStats) -> Step:
    """A step by this method, with the options that follow from the statistics."""
    native_lookup = method in LOOKUPS and is_native_lookup(join, catalog.stats(join.from_))
    return Step(method, seconds, native_lookup, null_safe=not native_lookup or _needs_null_safety(join, catalog))


def estimate_costs(join: Join, catalog: PlannerStats) -> dict[JoinMethod, float]:
    """The seconds of each method, correct or not. Includes only the lookup that MongoDB would choose."""
    left, other = catalog.left_count, catalog.stats(join.from_)
    native_lookup = is_native_lookup(join, other)
    size = other.size + catalog.left_size
    costs = {
        JoinMethod.SWAPPED: max(other.count * INDEXED_PIPELINE, left * SWAPPED),
        JoinMethod.ONE_PASS: (left + other.count) * ONE_PASS + size * ONE_PASS_BYTE,
    }
    if other.serves([pair.foreign for pair in join.on]):
        with_index = INDEXED_ROWS if join.shape_traits.repeats_rows else INDEXED
        costs[JoinMethod.INDEX] = left * (with_index if native_lookup else INDEXED_PIPELINE)
    elif native_lookup and other.count <= HASHED_COUNT and 0 < other.size <= HASHED_BYTES:
        costs[JoinMethod.HASH] = (left + other.count) * HASHED
    else:
        costs[JoinMethod.COMPARE] = left * other.count * COMPARED
    return costs


def is_correct(spec: JoinSpec, number: int, method: JoinMethod, catalog: PlannerStats) -> bool:
    """Whether this method gives the right rows for the join at this index."""
    join = spec.joins[number]
    if method is JoinMethod.SWAPPED:
        return number == 0 and _may_swap(spec, join, catalog)
    if method is JoinMethod.ONE_PASS:
        return _may_group(spec, join, catalog)
    return True


def is_native_lookup(join: Join, other: CollectionStats) -> bool:
    """Whether the lookup needs no pipeline, so that MongoDB runs it in its fast engine."""
    if len(join.on) > 1 or join.match or join.sort or join.limit or join.fields_:
        return False
    # Without a pipeline, all matches first go into the row, which must not exceed MongoDB's limit for a document.
    return (join.embeds and join.shape_traits.needs_all) or other.size <= FITS_BYTES


def _may_swap(spec: JoinSpec, join: Join, catalog: PlannerStats) -> bool:
    """Whether the join can run from the other side: an inner join with a row per match, and an index on the left."""
    row_per_match = join.embeds and join.kind_traits.requires_match and join.shape_traits.repeats_rows
    symmetric = row_per_match and not join.sort and join.limit is None and not any(pair.cast for pair in join.on)
    return symmetric and catalog.stats(spec.from_).serves([pair.local for pair in join.on])


def _may_group(spec: JoinSpec, join: Join, catalog: PlannerStats) -> bool:
    """Whether grouping, which compares whole keys, is correct: for several keys, or for one that is never a list."""
    if len(join.on) > 1:
        return True
    (pair,) = join.on
    return not (_may_be_list(spec, pair.local, catalog) or catalog.holds_lists(join.from_, pair.foreign))


def _may_be_list(spec: JoinSpec, path: str, catalog: PlannerStats) -> bool:
    """Whether a field of the rows, perhaps from an earlier join, can hold a list or lie inside one."""
    head, _, rest = path.partition(".")
    for join in spec.joins:
        if join.as_ == head and join.embeds:
            return join.shape_traits.holds_list or (bool(rest) and catalog.holds_lists(join.from_, rest))
    return catalog.holds_lists(spec.from_, path)


def _needs_null_safety(join: Join, catalog: PlannerStats) -> bool:
    (pair,) = join.on
    return pair.cast is not None or catalog.has_gaps(join.from_, pair.foreign)


def _too_expensive_message(join: Join, catalog: PlannerStats, seconds: float) -> str:
    command = mongosh.create_index(join.from_, [pair.foreign for pair in join.on])
    pairs = catalog.left_count * catalog.stats(join.from_).count
    fields = ", ".join(f"{join.from_}.{pair.foreign}" for pair in join.on)
    return (
        f"No index serves {fields}: about {pairs:,} comparisons, {seconds:,.0f} s by estimate. "
        f"Ask for {command}, or filter the left side."
    )

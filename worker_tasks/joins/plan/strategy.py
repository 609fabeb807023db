"""JoinSpec and what is known of the collections to the way to run it. Pure: the facts are given.

The costs are seconds on two shared cores, measured by ``benchmarks/strategies.py``; what counts is their proportion.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from worker_tasks.infra.errors import TooExpensive
from worker_tasks.joins.plan.catalog import CollectionStats
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: Seconds for each document of the left side: an equality that an index serves.
INDEXED = 12e-6
#: The same where each match becomes a row of its own.
INDEXED_ROWS = 32e-6
#: The same with several keys, or where the matches are worked on: MongoDB runs a pipeline for each document.
INDEXED_PIPELINE = 46e-6
#: Seconds for each document of the left side, and of the other: MongoDB holds the other side in a hash table.
HASHED = 5e-6
#: Seconds for each document of both sides, and for each byte of them: one pass over both, grouped by key.
ONE_PASS, ONE_PASS_BYTE = 3e-6, 20e-9
#: Seconds for each document of the left side that is joined from the other side.
SWAPPED = 10e-6
#: Seconds for each pair of documents that are compared.
COMPARED = 0.4e-6
#: MongoDB makes no hash table of a side that is bigger: its internalQueryCollectionMaxNoOfDocumentsToChooseHashJoin
#: and internalQueryCollectionMaxDataSizeBytesToChooseHashJoin.
HASHED_COUNT, HASHED_BYTES = 10_000, 100 * 1024 * 1024
#: Bytes of the other side that all fit into one document (of at most 16 MB) together, whatever matches.
FITS_BYTES = 12 * 1024 * 1024
#: What shows its first rows at once is taken unless another way is this many times as fast.
PREFERENCE = 2.0


class JoinMethod(StrEnum):
    """How one collection is brought in. The value is what people read."""

    INDEX = "by index"
    HASH = "small side in memory"
    ONE_PASS = "one pass over both"  # noqa: S105 - no password
    SWAPPED = "from the other side"
    COMPARE = "every pair compared"


#: The ways that show their first rows at once.
STREAMING = frozenset({JoinMethod.INDEX, JoinMethod.HASH, JoinMethod.SWAPPED})
#: The ways that leave the rest to MongoDB: which of them it takes follows from indexes and sizes.
LOOKUPS = frozenset({JoinMethod.INDEX, JoinMethod.HASH, JoinMethod.COMPARE})


@dataclass(frozen=True)
class Step:
    """The way of one join, and the seconds that it is expected to take.

    ``bare``: nothing is done to the matches inside the lookup. ``guarded``: keys that are null or missing must be kept
    from matching; where no document of the other side lacks its key, they find nothing by themselves.
    """

    method: JoinMethod
    seconds: float
    native_lookup: bool = False
    null_safe: bool = True


@dataclass(frozen=True)
class Strategy:
    """The way of each join, in their order."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)


class PlannerStats(Protocol):
    """What a strategy is chosen by: :class:`worker_tasks.joins.plan.catalog.Catalog`, or what a test says."""

    @property
    def left_count(self) -> int: ...
    @property
    def left_size(self) -> int: ...
    def stats(self, collection: str) -> CollectionStats: ...
    def holds_lists(self, collection: str, path: str) -> bool: ...
    def has_gaps(self, collection: str, path: str) -> bool: ...


def choose_strategy(spec: JoinSpec, facts: PlannerStats, bearable_seconds: float) -> Strategy:
    """The cheapest way for each join.

    Raises:
        TooExpensive: all of them would take longer than ``bearable_seconds``.
    """
    return Strategy(tuple(_step(spec, number, facts, bearable_seconds) for number in range(len(spec.joins))))


def _step(spec: JoinSpec, number: int, facts: PlannerStats, bearable_seconds: float) -> Step:
    join = spec.joins[number]
    # The cheapest first; whether it is right is asked only then, because that may mean to look at all documents.
    costs = estimate_costs(join, facts)
    for way in sorted(costs, key=lambda way: costs[way] / (PREFERENCE if way in STREAMING else 1)):
        if not is_correct(spec, number, way, facts):
            continue
        if costs[way] > bearable_seconds:
            raise TooExpensive(_refusal(join, facts, costs[way]))
        return make_step(join, way, costs[way], facts)
    raise AssertionError("comparing is always right")


def make_step(join: Join, way: JoinMethod, seconds: float, facts: PlannerStats) -> Step:
    """A way, with what follows from the facts."""
    bare = way in LOOKUPS and is_native_lookup(join, facts.stats(join.from_))
    return Step(way, seconds, bare, null_safe=not bare or _needs_guard(join, facts))


def estimate_costs(join: Join, facts: PlannerStats) -> dict[JoinMethod, float]:
    """The seconds of each way, right or not; of the three kinds of lookup only the one that MongoDB would take."""
    left, other = facts.left_count, facts.stats(join.from_)
    bare = is_native_lookup(join, other)
    size = other.size + facts.left_size
    costs = {
        JoinMethod.SWAPPED: max(other.count * INDEXED_PIPELINE, left * SWAPPED),
        JoinMethod.ONE_PASS: (left + other.count) * ONE_PASS + size * ONE_PASS_BYTE,
    }
    if other.serves([pair.foreign for pair in join.on]):
        with_index = INDEXED_ROWS if join.shape_traits.repeats_rows else INDEXED
        costs[JoinMethod.INDEX] = left * (with_index if bare else INDEXED_PIPELINE)
    elif bare and other.count <= HASHED_COUNT and 0 < other.size <= HASHED_BYTES:
        costs[JoinMethod.HASH] = (left + other.count) * HASHED
    else:
        costs[JoinMethod.COMPARE] = left * other.count * COMPARED
    return costs


def is_correct(spec: JoinSpec, number: int, way: JoinMethod, facts: PlannerStats) -> bool:
    """Whether this way leads to the right rows of the join of this number."""
    join = spec.joins[number]
    if way is JoinMethod.SWAPPED:
        return number == 0 and _may_swap(spec, join, facts)
    if way is JoinMethod.ONE_PASS:
        return _may_group(spec, join, facts)
    return True


def is_native_lookup(join: Join, other: CollectionStats) -> bool:
    """Whether the lookup can do without a pipeline of its own, so that MongoDB takes its fast engine."""
    if len(join.on) > 1 or join.match or join.sort or join.limit or join.fields_:
        return False
    # Where the matches are not wanted themselves, they must not become a document that is too big.
    return (join.embeds and join.shape_traits.needs_all) or other.size <= FITS_BYTES


def _may_swap(spec: JoinSpec, join: Join, facts: PlannerStats) -> bool:
    """Flat rows of what matches are the same from either side, if the left one has the index."""
    flat = join.embeds and join.kind_traits.requires_match and join.shape_traits.repeats_rows
    whole = flat and not join.sort and join.limit is None
    locals_ = [pair.local for pair in join.on]
    return whole and not any(pair.cast for pair in join.on) and facts.stats(spec.from_).serves(locals_)


def _may_group(spec: JoinSpec, join: Join, facts: PlannerStats) -> bool:
    """Grouping takes a key as a whole, which is right for several keys, and for one that is never a list."""
    if len(join.on) > 1:
        return True
    (pair,) = join.on
    return not (_may_be_list(spec, pair.local, facts) or facts.holds_lists(join.from_, pair.foreign))


def _may_be_list(spec: JoinSpec, path: str, facts: PlannerStats) -> bool:
    """Whether a field of the left side, perhaps one that an earlier join brought, can hold a list or lead to one."""
    head, _, rest = path.partition(".")
    for join in spec.joins:
        if join.as_ == head and join.embeds:
            return join.shape_traits.holds_list or (bool(rest) and facts.holds_lists(join.from_, rest))
    return facts.holds_lists(spec.from_, path)


def _needs_guard(join: Join, facts: PlannerStats) -> bool:
    (pair,) = join.on
    return pair.cast is not None or facts.has_gaps(join.from_, pair.foreign)


def _refusal(join: Join, facts: PlannerStats, seconds: float) -> str:
    command = mongosh.create_index(join.from_, [pair.foreign for pair in join.on])
    pairs = facts.left_count * facts.stats(join.from_).count
    fields = ", ".join(f"{join.from_}.{pair.foreign}" for pair in join.on)
    return (
        f"No index serves {fields}: about {pairs:,} comparisons, {seconds:,.0f} s by estimate. "
        f"Ask for {command}, or filter the left side."
    )

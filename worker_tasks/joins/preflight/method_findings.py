"""Findings about how a join will run: the method, the estimates that it was chosen by, and the servers. Pure."""

from collections.abc import Sequence

from worker_tasks.joins.plan.strategy import JoinMethod, Strategy
from worker_tasks.joins.preflight.findings import Finding, Level, create_index, listed
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: An index is worth creating if a join takes longer than this many seconds without it.
SLOW_SECONDS = 1.0


def method_finding(
    spec: JoinSpec, strategy: Strategy, indexes: Sequence[str | None], indexable: Sequence[Join] = ()
) -> Finding:
    """The method by which the join will run, and why.

    Args:
        indexes: for each join the index that serves its keys, for people; None if there is none.
        indexable: the joins whose keys an index could serve.
    """
    is_lookup = strategy.method is JoinMethod.LOOKUP
    text = _lookup_text(spec, strategy, indexes) if is_lookup else _scan_text(spec, strategy, indexes)
    is_slow = strategy.seconds > SLOW_SECONDS
    commands = [create_index(join) for join in indexable] if is_slow and strategy.lookup_seconds is not None else []
    return Finding(Level.NOTE if commands else Level.GOOD, text, command="\n".join(commands) or None)


def _lookup_text(spec: JoinSpec, strategy: Strategy, indexes: Sequence[str | None]) -> str:
    took = describe_seconds(strategy.lookup_seconds)
    unserved = _unserved(spec, indexes)
    if unserved:
        text = f"No index serves {unserved}, but there are few documents to compare: {took}."
    else:
        text = f"{_named(indexes)} the matches of each row: {took}."
    if strategy.scan_seconds is None:
        return f"{text} Only MongoDB compares texts by the collation of {spec.from_}."
    return f"{text} Reading {_collections(spec)} whole would take {describe_seconds(strategy.scan_seconds)}."


def _scan_text(spec: JoinSpec, strategy: Strategy, indexes: Sequence[str | None]) -> str:
    took = describe_seconds(strategy.scan_seconds)
    text = f"A worker reads {_collections(spec)} once and joins them: {took}."
    if strategy.lookup_seconds is None:
        return f"{text} MongoDB alone cannot run this join."
    seconds = describe_seconds(strategy.lookup_seconds)
    if unserved := _unserved(spec, indexes):
        return f"{text} No index serves {unserved}; to find the matches of each row without one would take {seconds}."
    return f"{text} To find the matches of each row by index would take {seconds}."


def _named(indexes: Sequence[str | None]) -> str:
    names = list(dict.fromkeys(name for name in indexes if name is not None))
    return f"The index {names[0]} finds" if len(names) == 1 else f"The indexes {listed(names)} find"


def _unserved(spec: JoinSpec, indexes: Sequence[str | None]) -> str:
    """The keys that no index serves."""
    joins = [join for join, index in zip(spec.joins, indexes, strict=True) if index is None]
    return listed([", ".join(f"{join.from_}.{pair.foreign}" for pair in join.on) for join in joins])


def _collections(spec: JoinSpec) -> str:
    return listed(list(dict.fromkeys(side.collection for side in spec.sides)))


def describe_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    if seconds < 0.1:  # noqa: PLR2004
        return "under 0.1 s"
    return f"about {seconds:,.1f} s" if seconds < 100 else f"about {seconds:,.0f} s"  # noqa: PLR2004


def server_finding(spec: JoinSpec) -> Finding | None:
    """A note if the join reads from several servers, whose clocks and data no snapshot covers together."""
    first_of_each: dict[str | None, str] = {}
    for side in spec.sides:
        first_of_each.setdefault(side.source, side.collection)
    if len(first_of_each) == 1:
        return None
    names = listed(list(first_of_each.values()))
    return Finding(Level.NOTE, f"{names} are on different servers: they are not read at the same instant.")

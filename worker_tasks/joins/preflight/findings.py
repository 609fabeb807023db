"""What a look at a join tells a person: plain sentences with their numbers, and the cure where there is one. Pure."""

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from worker_tasks.joins.plan.strategy import JoinMethod, Step
from worker_tasks.joins.preflight.probing import JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import CollectionSample
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.bson_types import type_bracket, type_label_plural
from worker_tasks.joins.spec.spec import Join

#: The share above which something is worth telling.
FEW = 0.05
#: How much more must match in other case for that to be told.
OTHER_CASE = 0.1
#: A matched document of these bytes, times as many, does not fit into one (of 16 MB).
DOCUMENT_BYTES = 16 * 1024 * 1024


class Level(StrEnum):
    """How much a finding matters; in this order."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    STOP = "stop"


@dataclass(frozen=True)
class Cure:
    """One press that mends it: of join ``join``, or of its pair ``pair``, the field ``field`` becomes ``value``."""

    join: int
    pair: int
    field: str
    value: str


@dataclass(frozen=True)
class Finding:
    """``join`` is the number of the join that it is about, None for the whole; ``command`` is for MongoDB's shell."""

    level: Level
    text: str
    join: int | None = None
    cure: Cure | None = None
    command: str | None = None

    def to_document(self) -> dict[str, Any]:
        return asdict(self) | {"level": str(self.level)}


def format_percent(share: float) -> str:
    """``83 %``; never 0 or 100 for what is only nearly so."""
    rounded = round(share * 100)
    if rounded == 0 and share > 0:
        return "under 1 %"
    if rounded == 100 and share < 1:  # noqa: PLR2004
        return "over 99 %"
    return f"{rounded} %"


def join_findings(facts: JoinStats, left: str) -> Iterator[Finding]:
    """Everything worth saying about what a join finds.

    Args:
        left: what the rows before it are called.
    """
    of_keys = [finding for place, key in enumerate(facts.keys) for finding in _of_key(facts, place, key, left)]
    yield from of_keys
    if not any(finding.level is Level.STOP for finding in of_keys):
        yield from _of_matches(facts, left)
    yield from _of_amount(facts, left)


def _of_key(facts: JoinStats, place: int, key: KeyStats, left: str) -> Iterator[Finding]:
    join, pair, number = facts.join, key.pair, facts.number
    if facts.rows and key.empty == 1:
        close = difflib.get_close_matches(pair.local, key.left_paths, n=1)
        meant = f" Did you mean {close[0]}?" if close and close[0] != pair.local else ""
        cure = Cure(number, place, "local", close[0]) if meant else None
        yield Finding(Level.STOP, f"No document of {left} has {pair.local}.{meant}", number, cure)
    elif key.empty > FEW:
        fate = "match nothing" if join.kind_traits.keeps_left else "are left out"
        yield Finding(Level.NOTE, f"{format_percent(key.empty)} of {left} have no {pair.local}; they {fate}.", number)
    if key.other.sampled and key.other.field(pair.foreign) is None:
        paths = [field.path for field in key.other.fields]
        close = difflib.get_close_matches(pair.foreign, paths, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        cure = Cure(number, place, "foreign", close[0]) if close else None
        yield Finding(Level.STOP, f"No document of {join.from_} has {pair.foreign}.{meant}", number, cure)
        return
    if not key.other.sampled:
        yield Finding(Level.STOP, f"{join.from_} is empty.", number)
        return
    yield from _of_types(facts, place, key, left)


def _of_types(facts: JoinStats, place: int, key: KeyStats, left: str) -> Iterator[Finding]:
    here, there = _kinds(key.left_types), _kinds(key.other_types)
    pair, number = key.pair, facts.number
    if not here or not there or pair.cast is not None:
        return
    foreign = f"{facts.join.from_}.{pair.foreign}"
    cure, cured = None, ""
    if facts.cured is not None and facts.cured[0] == place:
        _, cast, matched = facts.cured
        cure = Cure(number, place, "cast", cast)
        cured = f" Converted to {cast}, {format_percent(matched / max(1, facts.rows))} find a match."
    if not here.keys() & there.keys():
        types = f"{left}.{pair.local} holds {_listed(here)}, {foreign} {_listed(there)}: they never match."
        yield Finding(Level.STOP, types + cured, number, cure)
        return
    odd = {kind: share for kind, share in here.items() if kind not in there}
    if odd and sum(odd.values()) > FEW:
        text = f"{format_percent(sum(odd.values()))} of {left}.{pair.local} are {_listed(odd)}, which never match {foreign}."
        yield Finding(Level.WARNING, text + cured, number, cure)
    strange = {kind: share for kind, share in there.items() if kind not in here}
    if strange and sum(strange.values()) > FEW:
        text = f"{format_percent(sum(strange.values()))} of {foreign} are {_listed(strange)}, which nothing of {left} matches."
        yield Finding(Level.WARNING, text, number)


def format_amount(number: float) -> str:
    """``2.9``, ``26,115``."""
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"  # noqa: PLR2004


def _kinds(types: dict[str, float]) -> dict[str, float]:
    kinds: dict[str, float] = {}
    for name, share in types.items():
        kinds[type_bracket(name)] = kinds.get(type_bracket(name), 0) + share
    return kinds


def _listed(kinds: dict[str, float]) -> str:
    return " and ".join(map(type_label_plural, kinds))


def _of_matches(facts: JoinStats, left: str) -> Iterator[Finding]:
    join, number, rate = facts.join, facts.number, facts.rate
    if rate is None:
        if facts.rows:
            text = f"How many of {left} match {join.from_} could not be found out in time."
            yield Finding(Level.NOTE, text, number)
        return
    on = ", ".join(f"{pair.local} = {pair.foreign}" for pair in join.on)
    if rate == 0:
        text = f"None of {facts.rows} sampled {left} finds a match in {join.from_} by {on}."
        if facts.otherwise:
            text = (
                f"The filter on {join.from_} removes every match: without it {format_percent(facts.otherwise / facts.rows)} "
                f"of {left} find one."
            )
        level = Level.NOTE if join.kind_traits.excludes_matches else Level.WARNING
        yield Finding(level, text, number)
    else:
        level = Level.GOOD if rate >= FEW else Level.WARNING
        nothing_left = rate == 1 and join.kind_traits.excludes_matches
        about = "" if facts.is_whole or rate == 1 else "About "
        text = f"{about}{format_percent(rate)} of {left} find a match in {join.from_} by {on}"
        text += ", so none is left over." if nothing_left else "."
        yield Finding(Level.WARNING if nothing_left else level, text, number)
    if facts.in_other_case and facts.in_other_case / facts.rows >= OTHER_CASE:
        share = format_percent(facts.in_other_case / facts.rows)
        text = f"{share} of {left} would match {join.from_} if capitals and blanks did not count; they do."
        yield Finding(Level.WARNING, text, number)


def _of_amount(facts: JoinStats, left: str) -> Iterator[Finding]:
    join, number, shape = facts.join, facts.number, facts.join.shape_traits
    if not join.embeds or not facts.matches or not facts.matched:
        return
    each = facts.matches / max(1, facts.matched) * facts.rows
    if shape.takes_one and each > 1 + FEW and not join.sort:
        text = f"Each match is one of {format_amount(each)} on average, and no order says which is the first."
        yield Finding(Level.WARNING, text, number)
    elif shape.repeats_rows and each > 1 + FEW:
        text = f"Each of {left} that matches is repeated {format_amount(each)} times on average: their values count as often."
        yield Finding(Level.NOTE, text, number)
    elif shape.holds_list and not join.kind_traits.keeps_other and each == 1 and facts.is_unique:
        text = f"Each of {left} matches one of {join.from_} at most: the match alone is handier than a list of one."
        yield Finding(Level.NOTE, text, number, Cure(number, 0, "shape", "first"))
    elif not shape.takes_one and each > 1 + FEW:
        yield Finding(
            Level.NOTE,
            f"{format_amount(each)} documents of {join.from_} match each on average, {facts.most:,} at most.",
            number,
        )
    most = min(facts.most, join.limit or facts.most)
    if shape.holds_list and most * facts.other.size > DOCUMENT_BYTES and join.fields_ is None:
        key = ", ".join(map(str, facts.most_key or []))
        size = most * facts.other.size / 2**20
        text = (
            f"{key} has {most:,} matches, about {size:,.0f} MB: more than the 16 MB of one document. "
            "Ask for one row per match, the first one or a count, for fewer fields, or set a limit."
        )
        yield Finding(Level.STOP, text, number)


def kept_field_findings(join: Join, number: int, fields: list[str] | None) -> Iterator[Finding]:
    """What is joined in vain."""
    if join.as_ is not None and fields is not None and not any(path.partition(".")[0] == join.as_ for path in fields):
        text = f"{join.from_} is joined into {join.as_}, which is not among the fields that are kept."
        yield Finding(Level.WARNING, text, number)


def filter_findings(paths: set[str], look: CollectionSample, collection: str, number: int | None) -> Iterator[Finding]:
    """What a filter asks for that no document of the sample has."""
    known = [field.path for field in look.fields]
    for path in sorted(paths):
        if look.sampled and path not in known and not any(name.startswith(f"{path}.") for name in known):
            close = difflib.get_close_matches(path, known, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            text = f"The filter asks for {path}, which no sampled document of {collection} has.{meant}"
            yield Finding(Level.WARNING, text, number)


def name_findings(join: Join, number: int, left_fields: set[str]) -> Iterator[Finding]:
    """What the join writes over."""
    if join.as_ is not None and join.as_ in left_fields:
        yield Finding(
            Level.WARNING, f"The matches take the place of the field {join.as_} that is there already.", number
        )


def method_finding(join: Join, number: int, step: Step, served_by: str | None, *, can_be_indexed: bool) -> Finding:
    """How it will be run, and what that means."""
    fields = ", ".join(f"{join.from_}.{pair.foreign}" for pair in join.on)
    if step.method is JoinMethod.INDEX:
        return Finding(Level.GOOD, f"The index {served_by} finds the matches.", number)
    command = create_index(join) if can_be_indexed else None
    if step.method is JoinMethod.HASH:
        text = f"No index serves {fields}; {join.from_} is small enough to be held in memory."
        return Finding(Level.GOOD, text, number)
    if step.method is JoinMethod.COMPARE:
        text = f"No index serves {fields}: every pair is compared, about {step.seconds:,.0f} s."
        level = Level.WARNING if step.seconds > 1 else Level.NOTE
        return Finding(level, text, number, command=command)
    if step.method is JoinMethod.ONE_PASS and served_by is None:
        took = f"about {step.seconds:,.1f} s before the first row"
        text = f"No index serves {fields}: both sides are read in one pass, {took}."
        return Finding(Level.NOTE, text, number, command=command)
    words = (
        "Both sides are read in one pass" if step.method is JoinMethod.ONE_PASS else "It is joined from the other side"
    )
    return Finding(Level.GOOD, f"{words}, which is the fastest here.", number)


def create_index(join: Join) -> str:
    """The command that makes the index which would serve this join."""
    return mongosh.create_index(join.from_, [pair.foreign for pair in join.on])

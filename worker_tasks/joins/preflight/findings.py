"""Findings about a join: plain sentences with numbers, and a cure if there is one. Pure."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from worker_tasks.joins.plan.strategy import JoinMethod, Step
from worker_tasks.joins.preflight.join_stats import JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import CollectionSample
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.bson_types import type_bracket, type_label_plural
from worker_tasks.joins.spec.spec import Join

#: Smaller shares are not worth a finding.
MIN_SHARE = 0.05
#: A finding is worthwhile if case or blanks keep this share of rows from matching.
MIN_OTHER_CASE_SHARE = 0.1
#: The largest document that MongoDB stores, in bytes.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024


class Level(StrEnum):
    """How much a finding matters, in ascending order."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    STOP = "stop"


@dataclass(frozen=True)
class Cure:
    """A change that people can apply with one click: ``field`` of a join, or of one of its pairs, becomes ``value``.

    ``join`` and ``pair`` are indexes.
    """

    join: int
    pair: int
    field: str
    value: str


@dataclass(frozen=True)
class Finding:
    """``join`` is the index of the join in question, None for the whole. ``command`` is for MongoDB's shell."""

    level: Level
    text: str
    join: int | None = None
    cure: Cure | None = None
    command: str | None = None

    def to_document(self) -> dict[str, Any]:
        return asdict(self) | {"level": str(self.level)}


def format_percent(share: float) -> str:
    """``83 %``. Says 0 or 100 only if the share is exactly that."""
    rounded = round(share * 100)
    if rounded == 0 and share > 0:
        return "under 1 %"
    if rounded == 100 and share < 1:  # noqa: PLR2004
        return "over 99 %"
    return f"{rounded} %"


def format_amount(number: float) -> str:
    """``2.9``, ``26,115``."""
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"  # noqa: PLR2004


def join_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    """Findings about the keys and the matches of a join.

    Args:
        left: the name of the rows before the join.
    """
    key_findings = [
        finding for pair_index, key in enumerate(stats.keys) for finding in _key_findings(stats, pair_index, key, left)
    ]
    yield from key_findings
    if not any(finding.level is Level.STOP for finding in key_findings):
        yield from _match_findings(stats, left)
    yield from _amount_findings(stats, left)
    yield from _size_findings(stats)


def _key_findings(stats: JoinStats, pair_index: int, key: KeyStats, left: str) -> Iterator[Finding]:
    join, pair, number = stats.join, key.pair, stats.number
    if stats.rows and key.empty == 1:
        similar = _most_similar(pair.local, key.left_paths)
        similar = None if similar == pair.local else similar
        cure = None if similar is None else Cure(number, pair_index, "local", similar)
        text = f"No document of {left} has {pair.local}.{_did_you_mean(similar)}"
        yield Finding(Level.STOP, text, number, cure)
    elif key.empty > MIN_SHARE:
        fate = "match nothing" if join.kind_traits.keeps_left else "are left out"
        yield Finding(Level.NOTE, f"{format_percent(key.empty)} of {left} have no {pair.local}; they {fate}.", number)
    if key.other.sampled and key.other.field(pair.foreign) is None:
        similar = _most_similar(pair.foreign, [field.path for field in key.other.fields])
        cure = None if similar is None else Cure(number, pair_index, "foreign", similar)
        text = f"No document of {join.from_} has {pair.foreign}.{_did_you_mean(similar)}"
        yield Finding(Level.STOP, text, number, cure)
        return
    if not key.other.sampled:
        yield Finding(Level.STOP, f"{join.from_} is empty.", number)
        return
    yield from _type_findings(stats, pair_index, key, left)


def _most_similar(name: str, names: Iterable[str]) -> str | None:
    similar = difflib.get_close_matches(name, names, n=1)
    return similar[0] if similar else None


def _did_you_mean(similar: str | None) -> str:
    return "" if similar is None else f" Did you mean {similar}?"


def _type_findings(stats: JoinStats, pair_index: int, key: KeyStats, left: str) -> Iterator[Finding]:
    left_brackets, other_brackets = _brackets(key.left_types), _brackets(key.other_types)
    pair, number = key.pair, stats.number
    if not left_brackets or not other_brackets or pair.cast is not None:
        return
    local, foreign = f"{left}.{pair.local}", f"{stats.join.from_}.{pair.foreign}"
    cure, conversion = _cast_cure(stats, pair_index)
    if not left_brackets.keys() & other_brackets.keys():
        types = f"{local} holds {_join_labels(left_brackets)}, {foreign} {_join_labels(other_brackets)}"
        yield Finding(Level.STOP, f"{types}: they never match.{conversion}", number, cure)
        return
    unmatchable = {bracket: share for bracket, share in left_brackets.items() if bracket not in other_brackets}
    if (share := sum(unmatchable.values())) > MIN_SHARE:
        labels = _join_labels(unmatchable)
        text = f"{format_percent(share)} of {local} are {labels}, which never match {foreign}."
        yield Finding(Level.WARNING, text + conversion, number, cure)
    unmatched = {bracket: share for bracket, share in other_brackets.items() if bracket not in left_brackets}
    if (share := sum(unmatched.values())) > MIN_SHARE:
        labels = _join_labels(unmatched)
        text = f"{format_percent(share)} of {foreign} are {labels}, which nothing of {left} matches."
        yield Finding(Level.WARNING, text, number)


def _cast_cure(stats: JoinStats, pair_index: int) -> tuple[Cure | None, str]:
    """The conversion of this pair that adds matches, and a sentence with their number; else None and no text."""
    trial = stats.cast_trial
    if trial is None or trial.pair_index != pair_index:
        return None, ""
    share = format_percent(trial.matched / max(1, stats.rows))
    cure = Cure(stats.number, pair_index, "cast", trial.cast)
    return cure, f" Converted to {trial.cast}, {share} find a match."


def _brackets(types: dict[str, float]) -> dict[str, float]:
    """The share of each type bracket, computed from the shares of types."""
    brackets: dict[str, float] = {}
    for name, share in types.items():
        brackets[type_bracket(name)] = brackets.get(type_bracket(name), 0) + share
    return brackets


def _join_labels(brackets: Iterable[str]) -> str:
    return " and ".join(map(type_label_plural, brackets))


def _match_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    join, number, rate = stats.join, stats.number, stats.rate
    if rate is None:
        if stats.rows:
            text = f"How many of {left} match {join.from_} could not be found out in time."
            yield Finding(Level.NOTE, text, number)
        return
    yield _rate_finding(stats, rate, left)
    if stats.matched_in_other_case and stats.matched_in_other_case / stats.rows >= MIN_OTHER_CASE_SHARE:
        share = format_percent(stats.matched_in_other_case / stats.rows)
        text = f"{share} of {left} would match {join.from_} if capitals and blanks did not count; they do."
        yield Finding(Level.WARNING, text, number)


def _rate_finding(stats: JoinStats, rate: float, left: str) -> Finding:
    join, number = stats.join, stats.number
    on = ", ".join(f"{pair.local} = {pair.foreign}" for pair in join.on)
    if rate == 0:
        text = f"None of {stats.rows} sampled {left} finds a match in {join.from_} by {on}."
        if stats.matched_unfiltered:
            share = format_percent(stats.matched_unfiltered / stats.rows)
            text = f"The filter on {join.from_} removes every match: without it {share} of {left} find one."
        level = Level.NOTE if join.kind_traits.excludes_matches else Level.WARNING
        return Finding(level, text, number)
    level = Level.GOOD if rate >= MIN_SHARE else Level.WARNING
    leaves_none = rate == 1 and join.kind_traits.excludes_matches
    about = "" if stats.is_whole or rate == 1 else "About "
    text = f"{about}{format_percent(rate)} of {left} find a match in {join.from_} by {on}"
    text += ", so none is left over." if leaves_none else "."
    return Finding(Level.WARNING if leaves_none else level, text, number)


def _amount_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    join, number, shape = stats.join, stats.number, stats.join.shape_traits
    if not join.embeds or not stats.mean_matches or not stats.matched:
        return
    # The average number of matches of a row that has any.
    each = stats.mean_matches / max(1, stats.matched) * stats.rows
    amount = format_amount(each)
    if shape.takes_one and each > 1 + MIN_SHARE and not join.sort:
        text = f"Each match is one of {amount} on average, and no order says which is the first."
        yield Finding(Level.WARNING, text, number)
    elif shape.repeats_rows and each > 1 + MIN_SHARE:
        text = f"Each of {left} that matches is repeated {amount} times on average: their values count as often."
        yield Finding(Level.NOTE, text, number)
    elif shape.holds_list and not join.kind_traits.keeps_other and each == 1 and stats.has_unique_key:
        text = f"Each of {left} matches one of {join.from_} at most: the match alone is handier than a list of one."
        yield Finding(Level.NOTE, text, number, Cure(number, 0, "shape", "first"))
    elif not shape.takes_one and each > 1 + MIN_SHARE:
        text = f"{amount} documents of {join.from_} match each on average, {stats.max_matches:,} at most."
        yield Finding(Level.NOTE, text, number)


def _size_findings(stats: JoinStats) -> Iterator[Finding]:
    join, shape = stats.join, stats.join.shape_traits
    if not join.embeds or not stats.mean_matches or not stats.matched:
        return
    embedded = min(stats.max_matches, join.limit or stats.max_matches)
    size = embedded * stats.other.size
    if shape.holds_list and size > MAX_DOCUMENT_BYTES and join.fields_ is None:
        key = ", ".join(map(str, stats.max_key or []))
        text = (
            f"{key} has {embedded:,} matches, about {size / 2**20:,.0f} MB: more than the 16 MB of one document. "
            "Ask for one row per match, the first one or a count, for fewer fields, or set a limit."
        )
        yield Finding(Level.STOP, text, stats.number)


def kept_field_findings(join: Join, number: int, fields: list[str] | None) -> Iterator[Finding]:
    """A warning if the result drops the joined field."""
    if join.as_ is not None and fields is not None and not any(path.partition(".")[0] == join.as_ for path in fields):
        text = f"{join.from_} is joined into {join.as_}, which is not among the fields that are kept."
        yield Finding(Level.WARNING, text, number)


def filter_findings(
    paths: set[str], sample: CollectionSample, collection: str, number: int | None
) -> Iterator[Finding]:
    """Warnings about fields of a filter that no sampled document has."""
    existing = [field.path for field in sample.fields]
    for path in sorted(paths):
        if sample.sampled and path not in existing and not any(name.startswith(f"{path}.") for name in existing):
            suggestion = _did_you_mean(_most_similar(path, existing))
            text = f"The filter asks for {path}, which no sampled document of {collection} has.{suggestion}"
            yield Finding(Level.WARNING, text, number)


def name_findings(join: Join, number: int, left_fields: set[str]) -> Iterator[Finding]:
    """A warning if the joined field overwrites another one."""
    if join.as_ is not None and join.as_ in left_fields:
        text = f"The matches take the place of the field {join.as_} that is there already."
        yield Finding(Level.WARNING, text, number)


def method_finding(join: Join, number: int, step: Step, served_by: str | None, *, can_be_indexed: bool) -> Finding:
    """The method by which the join will run, and an index that would help.

    Args:
        served_by: the index that serves the keys, for people; None if there is none.
    """
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
        duration = f"about {step.seconds:,.1f} s before the first row"
        text = f"No index serves {fields}: both sides are read in one pass, {duration}."
        return Finding(Level.NOTE, text, number, command=command)
    one_pass = step.method is JoinMethod.ONE_PASS
    description = "Both sides are read in one pass" if one_pass else "It is joined from the other side"
    return Finding(Level.GOOD, f"{description}, which is the fastest here.", number)


def create_index(join: Join) -> str:
    """The command that creates an index for this join."""
    return mongosh.create_index(join.from_, [pair.foreign for pair in join.on])

"""Findings about a join: plain sentences with numbers, and a cure if there is one. Pure."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from worker_tasks.joins.preflight.join_stats import JoinStats, KeyStats
from worker_tasks.joins.preflight.sampling import CollectionSample
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.bson_types import type_bracket, type_label_plural
from worker_tasks.joins.spec.spec import Join, KeyPair

#: Smaller shares are not worth a finding.
MIN_SHARE = 0.05
#: A finding is worthwhile if case or blanks keep this share of rows from matching.
MIN_FOLDED_SHARE = 0.1
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


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def join_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    """Findings about the keys and the matches of a join.

    Args:
        left: the name of the rows before the join.
    """
    if stats.join.into is not None:
        left = f"{left}.{stats.join.into}"
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
        text = f"No document of {left} has {_local_name(stats, pair)}.{_did_you_mean(similar)}"
        yield Finding(Level.STOP, text, number, cure)
    elif key.empty > MIN_SHARE:
        fate = "match nothing" if join.kind_traits.keeps_left else "are left out"
        text = f"{format_percent(key.empty)} of {left} have no {_local_name(stats, pair)}; they {fate}."
        yield Finding(Level.NOTE, text, number)
    if key.nan_rows:
        rows = "row has" if stats.is_whole and key.nan_rows == 1 else "rows have"
        sampled = "" if stats.is_whole else f"of {stats.rows:,} sampled "
        text = f"{key.nan_rows:,} {sampled}{rows} NaN as key in {left}.{_local_name(stats, pair)}; NaN matches nothing."
        yield Finding(Level.WARNING, text, number)
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


def _local_name(stats: JoinStats, pair: KeyPair) -> str:
    """The left key as a field of the rows that are compared."""
    return pair.local if stats.join.into is None else pair.local.removeprefix(f"{stats.join.into}.")


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
    local, foreign = f"{left}.{_local_name(stats, pair)}", f"{stats.join.from_}.{pair.foreign}"
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
    cure = Cure(stats.number, pair_index, "cast", trial.value)
    return cure, f" Converted to {trial.value}, {share} find a match."


def _brackets(types: dict[str, float]) -> dict[str, float]:
    """The share of each type bracket, computed from the shares of types."""
    brackets: dict[str, float] = {}
    for name, share in types.items():
        brackets[type_bracket(name)] = brackets.get(type_bracket(name), 0) + share
    return brackets


def _join_labels(brackets: Iterable[str]) -> str:
    return " and ".join(map(type_label_plural, brackets))


def _match_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    number, rate = stats.number, stats.rate
    if rate is None:
        if stats.rows:
            yield Finding(Level.NOTE, _unknown_rate(stats, left), number)
        return
    yield _rate_finding(stats, rate, left)
    yield from _trial_findings(stats, left)


def _unknown_rate(stats: JoinStats, left: str) -> str:
    other = stats.join.from_
    if not stats.matched_in_sample:
        return f"How many of {left} match {other} could not be found out in time."
    share = format_percent(stats.matched_in_sample / stats.rows)
    return f"At least {share} of {left} find a match in {other}: only a sample of {other} was compared."


#: The differences that each fold ignores.
_FOLDED = {"case": "capitals", "blanks": "blanks", "both": "capitals and blanks"}


def _trial_findings(stats: JoinStats, left: str) -> Iterator[Finding]:
    """Changes to keys of the same type that add matches."""
    number, other, fold, cast = stats.number, stats.join.from_, stats.fold_trial, stats.cast_trial
    matched = stats.matched or 0
    if fold is not None and (fold.matched - matched) / stats.rows >= MIN_FOLDED_SHARE:
        more = " more" if matched else ""
        share = f"{format_percent((fold.matched - matched) / stats.rows)}{more}"
        text = f"{share} of {left} would match {other} if {_FOLDED[fold.value]} did not count."
        yield Finding(Level.WARNING, text, number, Cure(number, fold.pair_index, "fold", fold.value))
    if cast is not None:
        key = stats.keys[cast.pair_index]
        if _brackets(key.left_types).keys() == _brackets(key.other_types).keys():
            cure, conversion = _cast_cure(stats, cast.pair_index)
            local, foreign = f"{left}.{_local_name(stats, key.pair)}", f"{other}.{key.pair.foreign}"
            text = f"{local} and {foreign} store UUIDs in different ways.{conversion}"
            yield Finding(Level.WARNING, text, number, cure)


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
    share = format_percent(rate)
    is_exact = stats.is_whole or rate == 1 or not share[0].isdigit()
    share = share.capitalize() if is_exact else f"About {share}"
    text = f"{share} of {left} find a match in {join.from_} by {on}"
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
        if sample.sampled and sample.field(path) is None and not any(name.startswith(f"{path}.") for name in existing):
            suggestion = _did_you_mean(_most_similar(path, existing))
            text = f"The filter asks for {path}, which no sampled document of {collection} has.{suggestion}"
            yield Finding(Level.WARNING, text, number)


def name_findings(join: Join, number: int, left_fields: set[str]) -> Iterator[Finding]:
    """A warning if the joined field overwrites another one."""
    if join.as_ is not None and join.as_ in left_fields:
        text = f"The matches take the place of the field {join.as_} that is there already."
        yield Finding(Level.WARNING, text, number)


def repetition_finding(factor: float, left: str, number: int | None) -> Finding | None:
    """A warning if flat rows repeat the documents of the left side.

    Args:
        factor: the number of rows in which a document appears, on average of those that appear at all.
        number: the join whose matches repeat them; None if there is more than one cause.
    """
    if factor <= 1 + MIN_SHARE:
        return None
    text = f"Each document of {left} appears {format_amount(factor)} times on average; "
    return Finding(Level.WARNING, f"{text}a sum of its own fields counts them that often.", number)


def create_index(join: Join) -> str:
    """The command that creates an index for this join."""
    return mongosh.create_index(join.from_, [pair.foreign for pair in join.on])

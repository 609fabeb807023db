"""Tries changes to a join that would add matches, with the sampled rows and the keys of the other side."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from worker_tasks.joins.plan.layout import JoinLayout, Layout, layout_of
from worker_tasks.joins.preflight.findings import MIN_FOLDED_SHARE
from worker_tasks.joins.preflight.join_stats import JoinStats, KeyStats, Trial
from worker_tasks.joins.preflight.key_counts import KeyIndex
from worker_tasks.joins.preflight.others import OtherReader, asked_filter
from worker_tasks.joins.preflight.small_join import Row, RowKeys, row_keys
from worker_tasks.joins.spec.bson_types import type_bracket
from worker_tasks.joins.spec.casts import UUID_REPRESENTATIONS, Cast, casts_to
from worker_tasks.joins.spec.folds import Fold
from worker_tasks.joins.spec.spec import JoinSpec


class Trials:
    """Counts the matches of rows after changes to one join."""

    def __init__(self, spec: JoinSpec, join: JoinLayout, rows: list[Row], reader: OtherReader):
        self._spec, self._join, self._rows, self._reader = spec, join, rows, reader

    def diagnosis(self, stats: JoinStats, keys: list[RowKeys]) -> dict[str, Any]:
        """The fields of JoinStats that explain missing matches."""
        found: dict[str, Any] = {}
        if stats.matched == 0 and self._join.other.match:
            without = self._layout_with({"match": {}}).others[self._join.number]
            groups = self._reader.groups(without.other, asked_filter(without, keys))
            found["matched_unfiltered"] = 0 if groups is None else KeyIndex.of(without.other, groups).matched_rows(keys)
        if stats.matched == stats.rows:
            return found
        may_fold = (stats.rows - (stats.matched or 0)) / stats.rows >= MIN_FOLDED_SHARE
        for place, key in enumerate(stats.keys):
            casts = (self._tried(place, "cast", cast) for cast in _candidates(key))
            found["cast_trial"] = _best(found.get("cast_trial"), casts, stats)
            folds = (self._tried(place, "fold", fold) for fold in get_args(Fold) if may_fold and _holds_texts(key))
            found["fold_trial"] = _best(found.get("fold_trial"), folds, stats)
        return found

    def _tried(self, place: int, field: Literal["cast", "fold"], value: str) -> Trial:
        """The rows that match after a change to one pair."""
        on = list(self._join.join.on)
        on[place] = on[place].model_copy(update={field: value})
        layout = self._layout_with({"on": on})
        changed = layout.others[self._join.number]
        keys = row_keys(layout, changed, self._rows)
        asked = asked_filter(changed, keys)
        groups = self._reader.groups(changed.other, asked)
        matched = 0 if groups is None else KeyIndex.of(changed.other, groups).matched_rows(keys)
        return Trial(place, field, value, matched)

    def _layout_with(self, change: dict[str, Any]) -> Layout:
        joins = list(self._spec.joins)
        joins[self._join.number] = self._join.join.model_copy(update=change)
        return layout_of(self._spec.model_copy(update={"joins": joins}))


def _best(best: Trial | None, trials: Iterator[Trial], stats: JoinStats) -> Trial | None:
    """The first trial with the most matches, if it has more than the join itself."""
    for trial in trials:
        if trial.matched > (stats.matched or 0 if best is None else best.matched):
            best = trial
    return best


def _holds_texts(key: KeyStats) -> bool:
    """Whether both sides compare texts, as they are."""
    is_text = "string" in key.left_types or key.pair.cast == "string"
    return is_text and key.pair.fold is None and "string" in key.other_types


def _candidates(key: KeyStats) -> list[Cast]:
    """The conversions that could let left values match if nothing but their type prevents a match."""
    if key.pair.cast is not None or not key.left_types or not key.other_types:
        return []
    brackets = {type_bracket(name) for name in key.other_types}
    main_type = max(key.other_types, key=lambda name: key.other_types[name])
    unmatchable = [name for name in key.left_types if type_bracket(name) not in brackets]
    casts = [cast for name in unmatchable for cast in casts_to(name, main_type)]
    if {"binData"} == key.left_types.keys() == key.other_types.keys():
        # Both sides may hold UUIDs, but as written by drivers of different ages.
        casts += [cast for cast in get_args(Cast) if cast in UUID_REPRESENTATIONS]
    return list(dict.fromkeys(casts))

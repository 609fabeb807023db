"""Compiles a JoinSpec and its strategy into an aggregation pipeline. Pure: no I/O.

One pair of keys matches like ``localField`` and ``foreignField``: an array stands for each of its elements. Several
pairs compare whole values. Null and missing match nothing, as in SQL.
"""

from typing import Any, NamedTuple

from worker_tasks.joins.plan import grouping
from worker_tasks.joins.plan.keys import left_key
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, sort_and_limit_stages
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.names import OWN_PREFIX
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

KEYS = f"{OWN_PREFIX}_keys"
MATCHES = f"{OWN_PREFIX}_matches"
LEFT = f"{OWN_PREFIX}_left"


class Aggregation(NamedTuple):
    """An aggregation: ``pipeline`` runs on the documents of ``collection`` that pass ``filter``."""

    collection: str
    filter: filters.Filter
    pipeline: list[Stage]


def compile_pipeline(spec: JoinSpec, strategy: Strategy) -> Aggregation:
    """The aggregation that runs this join by this strategy."""
    collection, match = spec.from_, spec.match
    stages: list[Stage] = []
    if strategy.steps[0].method is JoinMethod.SWAPPED:
        collection, match = spec.joins[0].from_, spec.joins[0].match
    else:
        stages += _left_fields(spec)
    for join, step in zip(spec.joins, strategy.steps, strict=True):
        if step.method is JoinMethod.SWAPPED:
            stages += _swapped_lookup_stages(spec, join)
        elif step.method is JoinMethod.ONE_PASS:
            stages += grouping.group_join_stages(join)
        else:
            stages += _lookup_stages(join, step)
            if join.kind_traits.keeps_other:
                stages.append(_unmatched_other_side(spec, join))
    return Aggregation(
        collection, match, stages + sort_and_limit_stages(spec.sort, spec.limit) + project_stages(spec.fields_)
    )


def _left_fields(spec: JoinSpec) -> list[Stage]:
    """Drops at an early stage the left fields that the join neither keeps nor uses."""
    if spec.fields_ is None:
        return []
    added = {join.as_ for join in spec.joins}
    used = [pair.local for join in spec.joins for pair in join.on] + [path for path, _ in spec.sort]
    paths = [path for path in [*spec.fields_, *used] if path.partition(".")[0] not in added]
    return project_stages(["_id", *paths])


def _lookup_stages(join: Join, step: Step) -> list[Stage]:
    target = join.as_ or MATCHES
    if not step.null_safe:
        return [_lookup(join, step, target, join.on[0].local), *_shape_stages(join, target)]
    return [
        *_key_stages(join.on),
        _lookup(join, step, target, f"{KEYS}.k0"),
        {"$unset": KEYS},
        *_shape_stages(join, target),
    ]


def _key_stages(on: list[KeyPair]) -> list[Stage]:
    single = len(on) == 1
    return [{"$set": {KEYS: {f"k{number}": left_key(pair, elementwise=single) for number, pair in enumerate(on)}}}]


def _lookup(join: Join, step: Step, target: str, local: str) -> Stage:
    keys, key_match = _lookup_keys(join.on, local)
    lookup: Stage = {"from": join.from_, "as": target, **keys}
    if step.native_lookup:
        return {"$lookup": lookup}
    pipeline = key_match + match_stages(join.match) + _match_pipeline(join)
    return {"$lookup": {**lookup, "pipeline": pipeline} if pipeline else lookup}


def _lookup_keys(on: list[KeyPair], local: str) -> tuple[Stage, list[Stage]]:
    """The fields that tell a ``$lookup`` its keys, and the stages that compare them if there are several pairs."""
    if len(on) == 1:
        return {"localField": local, "foreignField": on[0].foreign}, []
    variables = {f"k{number}": f"${KEYS}.k{number}" for number in range(len(on))}
    equal = [{"$eq": [f"${pair.foreign}", f"$$k{number}"]} for number, pair in enumerate(on)]
    return {"let": variables}, [{"$match": {"$expr": {"$and": equal}}}]


def _match_pipeline(join: Join) -> list[Stage]:
    """The stages on the matches of one row."""
    if not join.embeds:
        return sort_and_limit_stages([], 1) + project_stages(["_id"])
    if not join.embeds_documents:
        return sort_and_limit_stages([], join.limit) + project_stages(["_id"])
    return sort_and_limit_stages(join.sort, 1 if join.shape_traits.takes_one else join.limit) + project_stages(
        join.fields_
    )


def _shape_stages(join: Join, target: str) -> list[Stage]:
    shape = join.shape_traits
    if not join.embeds:
        return [*_selected_rows(join, target), {"$unset": target}]
    if shape.repeats_rows:
        keep = join.kind_traits.keeps_left
        return [{"$unwind": {"path": f"${target}", "preserveNullAndEmptyArrays": keep}}]
    stages = _selected_rows(join, target)
    if shape.takes_one:
        stages.append({"$set": {target: {"$first": f"${target}"}}})
    elif not shape.holds_documents:
        stages.append({"$set": {target: {"$size": f"${target}"}}})
    return stages


def _selected_rows(join: Join, target: str) -> list[Stage]:
    """Keeps the rows that the kind of join keeps, judged by their list of matches."""
    if join.kind_traits.excludes_matches:
        return [{"$match": {target: []}}]
    return [] if join.kind_traits.keeps_left else [{"$match": {target: {"$ne": []}}}]


def _swapped_lookup_stages(spec: JoinSpec, join: Join) -> list[Stage]:
    """An inner join with a row per match, run from the other side."""
    reversed_on = _reversed(join.on)
    keys, key_match = _lookup_keys(reversed_on, f"{KEYS}.k0")
    lookup: Stage = {"from": spec.from_, "as": LEFT, **keys}
    pipeline = key_match + match_stages(spec.match) + _left_fields(spec)
    if pipeline:
        lookup["pipeline"] = pipeline
    matches = _match_pipeline(join)
    return [
        *_key_stages(reversed_on),
        {"$lookup": lookup},
        {"$unwind": f"${LEFT}"},
        {"$unset": KEYS},
        *_merged_into_left(join, matches),
    ]


def _merged_into_left(join: Join, matches: list[Stage]) -> list[Stage]:
    """Puts the root, which is a match, into its left row."""
    if not matches:
        # The match must not contain the left row into which it is merged.
        other: Any = {"$unsetField": {"field": LEFT, "input": "$$ROOT"}}
        return [{"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: other}]}}]
    fields = [stage["$project"] | {LEFT: 1} for stage in matches]
    return [*({"$project": fields_} for fields_ in fields), *_merged_into_left(join, [])]


def _reversed(on: list[KeyPair]) -> list[KeyPair]:
    return [KeyPair(local=pair.foreign, foreign=pair.local) for pair in on]


def _unmatched_other_side(spec: JoinSpec, join: Join) -> Stage:
    """The rows that an outer join adds: an anti join from the other side finds them."""
    anti_join = Join(from_=spec.from_, kind="anti", on=_reversed(join.on), match=spec.match)
    embedded: Any = ["$$ROOT"] if join.shape_traits.holds_list else "$$ROOT"
    return {
        "$unionWith": {
            "coll": join.from_,
            "pipeline": [
                *match_stages(join.match),
                *_lookup_stages(anti_join, Step(JoinMethod.COMPARE, 0)),
                *project_stages(join.fields_),
                {"$replaceWith": {join.as_: embedded}},
            ],
        }
    }

"""JoinSpec and strategy to aggregation pipeline. Pure: no I/O.

What is joined by one pair of keys is matched as ``localField`` and ``foreignField`` do: an array stands for each of
its elements. With several pairs each compares whole values. Null and missing match nothing, as in SQL.
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
    """What to run: ``pipeline`` on ``collection``. ``filter`` is what keeps documents of it before anything else."""

    collection: str
    filter: filters.Filter
    pipeline: list[Stage]


def compile_pipeline(spec: JoinSpec, strategy: Strategy) -> Aggregation:
    """The aggregation that answers this description."""
    collection, first = spec.from_, spec.match
    stages: list[Stage] = []
    if strategy.steps[0].method is JoinMethod.SWAPPED:
        collection, first = spec.joins[0].from_, spec.joins[0].match
    else:
        stages += _left_fields(spec)
    for join, step in zip(spec.joins, strategy.steps, strict=True):
        if step.method is JoinMethod.SWAPPED:
            stages += _swapped(spec, join)
        elif step.method is JoinMethod.ONE_PASS:
            stages += grouping.group_join_stages(join)
        else:
            stages += _looked_up(join, step)
            if join.kind_traits.keeps_other:
                stages.append(_unmatched_of_the_other_side(spec, join))
    return Aggregation(
        collection, first, stages + sort_and_limit_stages(spec.sort, spec.limit) + project_stages(spec.fields_)
    )


def _left_fields(spec: JoinSpec) -> list[Stage]:
    """Leaves out early what is neither kept nor looked at."""
    if spec.fields_ is None:
        return []
    brought = {join.as_ for join in spec.joins}
    looked_at = [pair.local for join in spec.joins for pair in join.on] + [path for path, _ in spec.sort]
    wanted = [path for path in [*spec.fields_, *looked_at] if path.partition(".")[0] not in brought]
    return project_stages(["_id", *wanted])


def _looked_up(join: Join, step: Step) -> list[Stage]:
    target = join.as_ or MATCHES
    if not step.null_safe:
        return [_lookup(join, step, target, join.on[0].local), *_shaped(join, target)]
    return [*_with_keys(join.on), _lookup(join, step, target, f"{KEYS}.k0"), {"$unset": KEYS}, *_shaped(join, target)]


def _with_keys(on: list[KeyPair]) -> list[Stage]:
    single = len(on) == 1
    return [{"$set": {KEYS: {f"k{number}": left_key(pair, elementwise=single) for number, pair in enumerate(on)}}}]


def _lookup(join: Join, step: Step, target: str, local: str) -> Stage:
    lookup: Stage = {"from": join.from_, "as": target}
    on_keys: list[Stage] = []
    if len(join.on) == 1:
        lookup |= {"localField": local, "foreignField": join.on[0].foreign}
    else:
        lookup["let"] = {f"k{number}": f"${KEYS}.k{number}" for number in range(len(join.on))}
        equal = [{"$eq": [f"${pair.foreign}", f"$$k{number}"]} for number, pair in enumerate(join.on)]
        on_keys = [{"$match": {"$expr": {"$and": equal}}}]
    if step.native_lookup:
        return {"$lookup": lookup}
    inner = on_keys + match_stages(join.match) + _matches(join)
    return {"$lookup": {**lookup, "pipeline": inner} if inner else lookup}


def _matches(join: Join) -> list[Stage]:
    """What is done to the matches of one row."""
    if not join.embeds:
        return sort_and_limit_stages([], 1) + project_stages(["_id"])
    if not join.embeds_documents:
        return sort_and_limit_stages([], join.limit) + project_stages(["_id"])
    return sort_and_limit_stages(join.sort, 1 if join.shape_traits.takes_one else join.limit) + project_stages(
        join.fields_
    )


def _shaped(join: Join, target: str) -> list[Stage]:
    shape = join.shape_traits
    if not join.embeds:
        return [*_chosen(join, target), {"$unset": target}]
    if shape.repeats_rows:
        keep = join.kind_traits.keeps_left
        return [{"$unwind": {"path": f"${target}", "preserveNullAndEmptyArrays": keep}}]
    stages = _chosen(join, target)
    if shape.takes_one:
        stages.append({"$set": {target: {"$first": f"${target}"}}})
    elif not shape.holds_documents:
        stages.append({"$set": {target: {"$size": f"${target}"}}})
    return stages


def _chosen(join: Join, target: str) -> list[Stage]:
    """Keeps the rows that the kind of join keeps, by the list of their matches."""
    if join.kind_traits.excludes_matches:
        return [{"$match": {target: []}}]
    return [] if join.kind_traits.keeps_left else [{"$match": {target: {"$ne": []}}}]


def _swapped(spec: JoinSpec, join: Join) -> list[Stage]:
    """Flat rows of an inner join, looked up from the other side."""
    turned = _turned(join)
    lookup: Stage = {"from": spec.from_, "as": LEFT}
    if len(turned) == 1:
        lookup |= {"localField": f"{KEYS}.k0", "foreignField": turned[0].foreign}
        on_keys = []
    else:
        lookup["let"] = {f"k{number}": f"${KEYS}.k{number}" for number in range(len(turned))}
        equal = [{"$eq": [f"${pair.foreign}", f"$$k{number}"]} for number, pair in enumerate(turned)]
        on_keys = [{"$match": {"$expr": {"$and": equal}}}]
    inner = on_keys + match_stages(spec.match) + _left_fields(spec)
    if inner:
        lookup["pipeline"] = inner
    matches = _matches(join)
    return [
        *_with_keys(turned),
        {"$lookup": lookup},
        {"$unwind": f"${LEFT}"},
        {"$unset": KEYS},
        # Two steps, so that what the row is made of does not hold itself.
        *_beside_left(join, matches),
    ]


def _beside_left(join: Join, matches: list[Stage]) -> list[Stage]:
    if not matches:
        other: Any = {"$unsetField": {"field": LEFT, "input": "$$ROOT"}}
        return [{"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: other}]}}]
    fields = [stage["$project"] | {LEFT: 1} for stage in matches]
    return [*({"$project": fields_} for fields_ in fields), *_beside_left(join, [])]


def _turned(join: Join) -> list[KeyPair]:
    return [KeyPair(local=pair.foreign, foreign=pair.local) for pair in join.on]


def _unmatched_of_the_other_side(spec: JoinSpec, join: Join) -> Stage:
    """What an outer join adds: the same join from the other side, as an anti join."""
    back = Join(from_=spec.from_, kind="anti", on=_turned(join), match=spec.match)
    alone: Any = ["$$ROOT"] if join.shape_traits.holds_list else "$$ROOT"
    return {
        "$unionWith": {
            "coll": join.from_,
            "pipeline": [
                *match_stages(join.match),
                *_looked_up(back, Step(JoinMethod.COMPARE, 0)),
                *project_stages(join.fields_),
                {"$replaceWith": {join.as_: alone}},
            ],
        }
    }

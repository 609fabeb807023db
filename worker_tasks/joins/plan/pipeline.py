"""Compiles a JoinSpec and its strategy into an aggregation pipeline. Pure: no I/O.

One pair of keys matches like ``localField`` and ``foreignField``: an array stands for each of its elements. Several
pairs compare whole values. Null and missing match nothing, as in SQL.
"""

from worker_tasks.joins.plan.keys import left_key
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, sort_and_limit_stages, stored_paths
from worker_tasks.joins.plan.strategy import Step, Strategy
from worker_tasks.joins.spec.names import OWN_PREFIX
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

KEYS = f"{OWN_PREFIX}_keys"
MATCHES = f"{OWN_PREFIX}_matches"


def compile_pipeline(spec: JoinSpec, strategy: Strategy) -> list[Stage]:
    """The aggregation on the left collection that runs this join by lookups."""
    stages = [*match_stages(spec.match), *_left_fields(spec)]
    for join, step in zip(spec.joins, strategy.steps, strict=True):
        stages += _lookup_stages(join, step)
    return stages + sort_and_limit_stages(spec.sort, spec.limit) + project_stages(spec.fields_)


def _left_fields(spec: JoinSpec) -> list[Stage]:
    """Drops at an early stage the left fields that the join neither keeps nor uses."""
    if spec.fields_ is None:
        return []
    added = {join.as_ for join in spec.joins}
    # An order by fields inside a list depends on the elements that lack them.
    sorted_by = [path.partition(".")[0] for path, _ in spec.sort]
    used = [path for path in [*spec.fields_, *sorted_by] if path.partition(".")[0] not in added]
    # A join may replace a field that its own key, or the key of an earlier join, is read from.
    for number, join in enumerate(spec.joins):
        earlier = {each.as_ for each in spec.joins[:number]}
        used += [pair.local for pair in join.on if pair.local.partition(".")[0] not in earlier]
    return project_stages(["_id", *stored_paths(used)])


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

"""One pass over both sides, grouped by key: for bulk joins that no index serves, or that compare several keys.

Both sides become one stream of documents that carry their key; a group of one key holds what matches. A document
without a usable key gets one that nothing else has, so that it stays alone.
"""

from typing import Any

from worker_tasks.joins.plan.keys import matches_nothing, whole_left_key
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, projection
from worker_tasks.joins.spec.names import OWN_PREFIX
from worker_tasks.joins.spec.spec import Join

KEY, LEFT, OTHER = (f"{OWN_PREFIX}_{name}" for name in ("key", "left", "other"))


def group_join_stages(join: Join) -> list[Stage]:
    """The stages that bring this collection in."""
    return [
        *_left_side(join),
        {"$unionWith": {"coll": join.from_, "pipeline": _other_side(join)}},
        {"$group": {"_id": f"${KEY}", LEFT: {"$push": f"${LEFT}"}, OTHER: _gathered(join)}},
        *_chosen(join),
        *_rows(join),
    ]


def _left_side(join: Join) -> list[Stage]:
    keys = {f"k{number}": whole_left_key(pair) for number, pair in enumerate(join.on)}
    whole: Any = "$$ROOT"
    if join.embeds and join.shape_traits.may_be_missing:
        # A field of this name gives way also where nothing matches.
        whole = {"$unsetField": {"field": join.as_, "input": "$$ROOT"}}
    return [{"$project": {"_id": 0, KEY: _usable(keys, "left"), LEFT: whole}}]


def _other_side(join: Join) -> list[Stage]:
    keys = {f"k{number}": f"${pair.foreign}" for number, pair in enumerate(join.on)}
    whole = join.embeds_documents
    # What is sorted by may be a field that is not kept.
    early = project_stages(
        None if not whole or join.sort or join.fields_ is None else [*join.fields_, "_id", *_foreign(join)]
    )
    return [
        *match_stages(join.match),
        *early,
        {"$project": {"_id": 0, KEY: _usable(keys, "other"), OTHER: "$$ROOT" if whole else {"$literal": 1}}},
    ]


def _foreign(join: Join) -> list[str]:
    return [pair.foreign for pair in join.on]


def _usable(keys: dict[str, Any], side: str) -> Any:
    """The key; where some part of it matches nothing, the document's own ``_id`` in its place."""
    alone = {side: "$_id"}
    unusable = {"$or": [matches_nothing(f"$${name}") for name in keys]}
    return {"$let": {"vars": keys, "in": {"$cond": [unusable, alone, {name: f"$${name}" for name in keys}]}}}


def _gathered(join: Join) -> Any:
    if join.embeds_documents:
        return {"$push": f"${OTHER}"}
    return {"$sum": f"${OTHER}"}


def _chosen(join: Join) -> list[Stage]:
    """The groups that make rows, and of their matches those that are wanted."""
    kind = join.kind_traits
    found: Any = {"$ne": []} if join.embeds_documents else {"$gt": 0}
    found_nothing: Any = [] if join.embeds_documents else 0
    chosen: Stage = {} if kind.keeps_other else {LEFT: {"$ne": []}}
    if kind.excludes_matches:
        chosen[OTHER] = found_nothing
    elif kind.requires_match:
        chosen[OTHER] = found
    return [{"$match": chosen}] if chosen else []


def _rows(join: Join) -> list[Stage]:
    shape = join.shape_traits
    if not join.embeds:
        return [{"$unwind": f"${LEFT}"}, {"$replaceWith": f"${LEFT}"}]
    if not shape.holds_documents:
        least: Any = {"$min": [f"${OTHER}", join.limit]} if join.limit else f"${OTHER}"
        return [{"$unwind": f"${LEFT}"}, {"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: least}]}}]
    stages = _ordered_and_kept(join)
    matches: Any = f"${OTHER}"
    limit = 1 if shape.takes_one else join.limit
    if join.kind_traits.keeps_other:
        stages += _alone(join)
    elif limit is not None:
        stages.append({"$set": {OTHER: {"$slice": [matches, limit]}}})
    stages.append({"$unwind": f"${LEFT}"})
    if shape.takes_one:
        first = {"$cond": [{"$isArray": matches}, {"$first": matches}, "$$REMOVE"]}
        stages.append({"$set": {OTHER: first}})
    elif shape.repeats_rows:
        stages.append({"$unwind": {"path": matches, "preserveNullAndEmptyArrays": True}})
    return [*stages, {"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: matches}]}}]


def _ordered_and_kept(join: Join) -> list[Stage]:
    stages: list[Stage] = []
    if join.sort:
        stages.append({"$set": {OTHER: {"$sortArray": {"input": f"${OTHER}", "sortBy": dict(join.sort)}}}})
    if join.fields_ is not None:
        fields = {f"{OTHER}.{field}": 1 for field, shown in projection(join.fields_).items() if shown}
        stages.append({"$project": {LEFT: 1, **fields}})
    return stages


def _alone(join: Join) -> list[Stage]:
    """What of the other side matches nothing becomes a row of its own in an outer join."""
    no_left = {"$eq": [f"${LEFT}", []]}
    row = {join.as_: ["$$this"] if join.shape_traits.holds_list else "$$this"}
    rows = {"$map": {"input": f"${OTHER}", "in": row}}
    return [
        {
            "$set": {
                LEFT: {"$cond": [no_left, rows, f"${LEFT}"]},
                OTHER: {"$cond": [no_left, "$$REMOVE", f"${OTHER}"]},
            }
        }
    ]

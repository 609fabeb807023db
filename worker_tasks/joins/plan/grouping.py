"""One pass over both sides, grouped by key: for bulk joins on several keys or without an index.

Both sides become one stream of documents with their keys, so that documents that match end up in one group. A
document without a usable key gets a unique one and stays alone.
"""

from typing import Any

from worker_tasks.joins.plan.keys import matches_nothing, whole_left_key
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, projection
from worker_tasks.joins.spec.names import OWN_PREFIX
from worker_tasks.joins.spec.spec import Join

KEY, LEFT, OTHER = (f"{OWN_PREFIX}_{name}" for name in ("key", "left", "other"))


def group_join_stages(join: Join) -> list[Stage]:
    """The stages that join this collection."""
    return [
        *_left_side(join),
        {"$unionWith": {"coll": join.from_, "pipeline": _other_side(join)}},
        {"$group": {"_id": f"${KEY}", LEFT: {"$push": f"${LEFT}"}, OTHER: _collected_matches(join)}},
        *_selected_groups(join),
        *_rows(join),
    ]


def _left_side(join: Join) -> list[Stage]:
    keys = {f"k{number}": whole_left_key(pair) for number, pair in enumerate(join.on)}
    row: Any = "$$ROOT"
    if join.embeds and join.shape_traits.may_be_missing:
        # A row loses its own field of this name even if it has no match.
        row = {"$unsetField": {"field": join.as_, "input": "$$ROOT"}}
    return [{"$project": {"_id": 0, KEY: _usable_key(keys, "left"), LEFT: row}}]


def _other_side(join: Join) -> list[Stage]:
    keys = {f"k{number}": f"${pair.foreign}" for number, pair in enumerate(join.on)}
    early: list[Stage] = []
    # A sort may need fields that the join does not keep.
    if join.embeds_documents and not join.sort and join.fields_ is not None:
        early = project_stages([*join.fields_, "_id", *(pair.foreign for pair in join.on)])
    match: Any = "$$ROOT" if join.embeds_documents else {"$literal": 1}
    return [
        *match_stages(join.match),
        *early,
        {"$project": {"_id": 0, KEY: _usable_key(keys, "other"), OTHER: match}},
    ]


def _usable_key(keys: dict[str, Any], side: str) -> Any:
    """The key, or the document's own ``_id`` if a part of the key matches nothing."""
    unique = {side: "$_id"}
    unusable = {"$or": [matches_nothing(f"$${name}") for name in keys]}
    return {"$let": {"vars": keys, "in": {"$cond": [unusable, unique, {name: f"$${name}" for name in keys}]}}}


def _collected_matches(join: Join) -> Any:
    if join.embeds_documents:
        return {"$push": f"${OTHER}"}
    return {"$sum": f"${OTHER}"}


def _selected_groups(join: Join) -> list[Stage]:
    """Keeps the groups that become rows."""
    kind = join.kind_traits
    any_match: Any = {"$ne": []} if join.embeds_documents else {"$gt": 0}
    no_match: Any = [] if join.embeds_documents else 0
    condition: Stage = {} if kind.keeps_other else {LEFT: {"$ne": []}}
    if kind.excludes_matches:
        condition[OTHER] = no_match
    elif kind.requires_match:
        condition[OTHER] = any_match
    return [{"$match": condition}] if condition else []


def _rows(join: Join) -> list[Stage]:
    shape = join.shape_traits
    if not join.embeds:
        return [{"$unwind": f"${LEFT}"}, {"$replaceWith": f"${LEFT}"}]
    if not shape.holds_documents:
        count: Any = {"$min": [f"${OTHER}", join.limit]} if join.limit else f"${OTHER}"
        return [{"$unwind": f"${LEFT}"}, {"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: count}]}}]
    stages = _sorted_and_projected(join)
    matches: Any = f"${OTHER}"
    limit = 1 if shape.takes_one else join.limit
    if join.kind_traits.keeps_other:
        stages += _unmatched_rows(join)
    elif limit is not None:
        stages.append({"$set": {OTHER: {"$slice": [matches, limit]}}})
    stages.append({"$unwind": f"${LEFT}"})
    if shape.takes_one:
        first = {"$cond": [{"$isArray": matches}, {"$first": matches}, "$$REMOVE"]}
        stages.append({"$set": {OTHER: first}})
    elif shape.repeats_rows:
        stages.append({"$unwind": {"path": matches, "preserveNullAndEmptyArrays": True}})
    return [*stages, {"$replaceWith": {"$mergeObjects": [f"${LEFT}", {join.as_: matches}]}}]


def _sorted_and_projected(join: Join) -> list[Stage]:
    """Sorts the matches and keeps only their chosen fields."""
    stages: list[Stage] = []
    if join.sort:
        stages.append({"$set": {OTHER: {"$sortArray": {"input": f"${OTHER}", "sortBy": dict(join.sort)}}}})
    if join.fields_ is not None:
        fields = {f"{OTHER}.{field}": 1 for field, shown in projection(join.fields_).items() if shown}
        stages.append({"$project": {LEFT: 1, **fields}})
    return stages


def _unmatched_rows(join: Join) -> list[Stage]:
    """Turns documents of the other side without a match into rows of an outer join."""
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

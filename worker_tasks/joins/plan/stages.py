"""Aggregation stages that every join method uses."""

from typing import Any

from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.spec import Sort

Stage = dict[str, Any]


def match_stages(stored: filters.Filter) -> list[Stage]:
    return [{"$match": filters.to_query(stored)}] if stored else []


def sort_and_limit_stages(sort: Sort, limit: int | None) -> list[Stage]:
    # A field that is named again cannot change the order.
    directions = dict(reversed(sort))
    order = {path: directions[path] for path, _ in sort}
    stages: list[Stage] = [{"$sort": order}] if sort else []
    return [*stages, {"$limit": limit}] if limit is not None else stages


def project_stages(fields: list[str] | None) -> list[Stage]:
    """Keeps only these fields; ``_id`` only if it is among them."""
    if fields is None:
        return []
    return [{"$project": projection(fields)}]


def stored_paths(paths: list[str]) -> tuple[str, ...]:
    """The fields to read so that all of these paths are there. ``$project`` knows no places in lists and no DBRefs."""
    stored = []
    for path in paths:
        parts = path.split(".")
        length = next((place for place, part in enumerate(parts) if place and (part.isdigit() or part[0] == "$")), None)
        stored.append(".".join(parts[:length]))
    return tuple(dict.fromkeys(stored)) or ("_id",)


def projection(fields: list[str]) -> dict[str, int]:
    kept = dict.fromkeys(_outermost(fields), 1)
    # Fields inside _id exclude the rest of it by themselves.
    return kept if any(field.startswith("_id.") for field in kept) else {"_id": 0} | kept


def _outermost(fields: list[str]) -> list[str]:
    """The fields except those inside another one, which MongoDB would refuse as a path collision."""
    return [field for field in dict.fromkeys(fields) if not any(field.startswith(f"{other}.") for other in fields)]

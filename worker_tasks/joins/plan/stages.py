"""Stages that every way of joining is made of."""

from typing import Any

from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.spec import Sort

Stage = dict[str, Any]


def match_stages(stored: filters.Filter) -> list[Stage]:
    return [{"$match": filters.to_query(stored)}] if stored else []


def sort_and_limit_stages(sort: Sort, limit: int | None) -> list[Stage]:
    stages: list[Stage] = [{"$sort": dict(sort)}] if sort else []
    return [*stages, {"$limit": limit}] if limit is not None else stages


def project_stages(fields: list[str] | None) -> list[Stage]:
    """Only these fields; ``_id`` is one like any other."""
    if fields is None:
        return []
    return [{"$project": projection(fields)}]


def projection(fields: list[str]) -> dict[str, int]:
    return {"_id": 0} | dict.fromkeys(_outermost(fields), 1)


def _outermost(fields: list[str]) -> list[str]:
    """Without those inside another one, which MongoDB refuses as a collision."""
    return [field for field in dict.fromkeys(fields) if not any(field.startswith(f"{other}.") for other in fields)]

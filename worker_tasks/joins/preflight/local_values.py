"""The values of left keys as they are stored, before any conversion. Pure."""

from decimal import Decimal
from typing import Any

from bson import Decimal128

from worker_tasks.joins.matching.paths import left_values
from worker_tasks.joins.matching.projection import project
from worker_tasks.joins.plan.layout import JoinLayout, Layout
from worker_tasks.joins.preflight.small_join import Row
from worker_tasks.joins.spec.bson_types import type_of
from worker_tasks.joins.spec.spec import KeyPair


def local_values(layout: Layout, join: JoinLayout, row: Row, pair: KeyPair) -> list[Any]:
    """The values of a row that one pair of a join compares, except null; the elements of a list one by one."""
    path = pair.local if join.join.into is None else pair.local.removeprefix(f"{join.join.into}.")
    head = path.partition(".")[0]
    owner = next((each for each in _earlier(layout, join) if each.join.as_ == head), None)
    if owner is None:
        return left_values(row.left, path) if isinstance(row.left, dict) else []
    matches, shape = row.found.get(owner.number, []), owner.join.shape_traits
    if not shape.holds_documents:
        return [len(matches)]
    fields = owner.join.fields_
    kept = matches if fields is None else [project(match, fields) for match in matches]
    if not kept:
        return []
    return left_values({head: kept if shape.holds_list else kept[0]}, path)


def _earlier(layout: Layout, join: JoinLayout) -> list[JoinLayout]:
    """The earlier joins that add a field to the same rows."""
    same = [each for each in layout.others if each.join.into == join.join.into and each.number < join.number]
    return [each for each in same if each.join.embeds]


def types_of(values: list[Any]) -> list[str]:
    return [type_of(value) for value in values]


def has_only_nan(values: list[Any]) -> bool:
    """Whether there are values, all of them NaN."""
    return bool(values) and all(map(_is_nan, values))


def _is_nan(value: Any) -> bool:
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    if isinstance(number, Decimal):
        return number.is_nan()
    return isinstance(number, float) and number != number  # noqa: PLR0124 - only NaN differs from itself

"""Converts the description of a join into the form data of a draft."""

import json
from collections.abc import Iterator
from typing import Any

from werkzeug.datastructures import MultiDict

from webapp.builder.filter_rows import filter_rows
from webapp.builder.places import Place, side_value
from worker_tasks.joins.spec.sides import read_side
from worker_tasks.joins.spec.spec import JoinSpec

#: The value of the form's field ``alone``: the draft joins nothing.
ALONE = "y"


def spec_as_fields(spec: JoinSpec) -> MultiDict[str, str]:
    """A join as form data of a Draft."""
    return join_as_fields(spec.canonical())


def join_as_fields(join: dict[str, Any]) -> MultiDict[str, str]:
    """The document of a valid join as form data of a Draft, its parameters as names in braces."""
    left = read_side(join)
    place = Place(left.source, left.database)
    fields: list[tuple[str, Any]] = [("database", place.value), ("source", left.collection)]
    fields += _part_as_fields(join, "")
    fields += [("alone", None if join["joins"] else ALONE)]
    for number, expand in enumerate(join.get("expand", [])):
        fields += [(f"expand-{number}-{name}", value) for name, value in expand.items() if value]
    for number, each in enumerate(join["joins"]):
        prefix = f"joins-{number}-"
        fields.append((f"{prefix}source", side_value(read_side(each, left), place)))
        fields += _part_as_fields(each, prefix)
        fields += [(f"{prefix}name", each.get("as")), (f"{prefix}into", each.get("into"))]
        fields += [(f"{prefix}kind", each.get("kind", "left")), (f"{prefix}shape", each.get("shape", "array"))]
        for position, pair in enumerate(each["on"]):
            fields += [(f"{prefix}on-{position}-{name}", value) for name, value in pair.items()]
    return MultiDict([(name, str(value)) for name, value in fields if value is not None])


def _part_as_fields(part: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    rows, raw = filter_rows(part.get("match", {}))
    for place, row in enumerate(rows):
        yield from ((f"{prefix}filters-{place}-{name}", value) for name, value in row.items())
    if raw:
        yield f"{prefix}raw", json.dumps(raw, ensure_ascii=False)
    for field in part.get("fields") or []:
        yield f"{prefix}fields", field
    for place, (field, direction) in enumerate(part.get("sort", [])):
        yield f"{prefix}sort-{place}-field", field
        yield f"{prefix}sort-{place}-direction", direction
    yield f"{prefix}limit", part.get("limit")

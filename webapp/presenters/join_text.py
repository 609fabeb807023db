"""A join as text. Pure: no I/O."""

import json

import humanize

from webapp.presenters.value_text import Document, format_list
from worker_tasks.joins.spec.casts import CASTS
from worker_tasks.joins.spec.folds import FOLDS
from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind
from worker_tasks.joins.spec.sides import Side, read_side

#: A phrase for each kind of join, with the names of its two collections.
KIND_PHRASES = {
    "left": "{left} with their {other}",
    "inner": "{left} that have {other}, with them",
    "semi": "{left} that have {other}",
    "anti": "{left} without {other}",
    "outer": "All of {left} and {other}",
}

DIRECTION_LABELS = {1: "lowest first", -1: "highest first"}

SHAPE_LABELS = {
    "array": "all matches in a list",
    "rows": "one row for each match",
    "first": "the first match alone",
    "count": "how many there are",
}


def describe_join(join: Document) -> str:
    """A JoinSpec in a short phrase: ``Users with their orders``."""
    phrase, embedded, in_elements = collection_of(join), [], []
    for each in join["joins"]:
        kind, other = each.get("kind", DEFAULT_KIND), collection_of(each)
        if "into" in each:
            in_elements.append(f"{other} in each of {each['into']}")
        elif KINDS[kind].keeps_exactly_left:
            embedded.append(other)
        else:
            phrase = KIND_PHRASES[kind].format(left=phrase, other=other)
    if embedded:
        phrase = KIND_PHRASES[DEFAULT_KIND].format(left=phrase, other=format_list(embedded))
    if in_elements:
        phrase += f"{', and' if embedded else ' with'} {format_list(in_elements)}"
    if rows := _describe_rows(join):
        phrase += f", a row {rows}"
    elif not join["joins"]:
        phrase += " alone"
    return phrase[0].upper() + phrase[1:]


def _describe_rows(join: Document) -> str:
    """What has a row of its own: ``for each of items and for each match``."""
    expanded = [f"for each of {expand['path']}" for expand in join.get("expand", [])]
    return format_list([*expanded, *(["for each match"] if any(map(repeats_rows, join["joins"])) else [])])


def repeats_rows(join: Document) -> bool:
    """Whether one join of a JoinSpec returns a row for each match."""
    shape = SHAPES.get(join.get("shape", DEFAULT_SHAPE))
    return shape is not None and shape.repeats_rows


def collection_of(part: Document) -> str:
    """The name of the collection that a JoinSpec, or one of its joins, reads."""
    return read_side(part, Side(None, "", "")).collection


def describe_join_lines(join: Document) -> list[tuple[str, str]]:
    """A JoinSpec as pairs of label and text."""
    left = read_side(join)
    lines = [("From", describe_side(left)), *_part_lines(join), *map(describe_expand, join.get("expand", []))]
    for each in join["joins"]:
        other = describe_other_side(read_side(each, left), left)
        pairs = [describe_pair(pair) for pair in each["on"]]
        lines.append(("Join", describe_join_line(each.get("kind", DEFAULT_KIND), other, pairs)))
        if "as" in each:
            lines.append(("Into", describe_target(each["as"], each.get("into"), each.get("shape", DEFAULT_SHAPE))))
        lines += _part_lines(each)
    return lines


def describe_side(side: Side) -> str:
    """``shop.users``, or ``crm: sales.accounts`` in a source with a name."""
    name = f"{side.database}.{side.collection}"
    return f"{side.source}: {name}" if side.source else name


def describe_other_side(side: Side, left: Side) -> str:
    """The name of a joined collection, with its source and database if they are not those of the left side."""
    if side[:2] == left[:2]:
        return side.collection
    return describe_side(side)


def describe_expand(expand: Document) -> tuple[str, str]:
    """The label and the text for an expanded list."""
    text = f"one for each of {expand['path']}"
    if expand.get("position"):
        text += f", its position in {expand['position']}"
    return "Rows", f"{text}; rows whose list is empty stay" if expand.get("keep_empty") else text


def describe_join_line(kind: str, other: str, pairs: list[str]) -> str:
    """``rows with their orders, where _id = userId``."""
    return f"{KIND_PHRASES[kind].format(left='rows', other=other)}, where {' and '.join(pairs)}"


def describe_target(name: str, into: str | None, shape: str) -> str:
    """``orders: all matches in a list``."""
    place = f"{name} in each of {into}" if into else name
    return f"{place}: {SHAPE_LABELS[shape]}"


def describe_pair(pair: Document) -> str:
    """``userId as ObjectId = _id``."""
    local = f"{pair['local']} as {cast_name(pair['cast'])}" if pair.get("cast") else pair["local"]
    folded = f" ({FOLDS[pair['fold']].label})" if pair.get("fold") else ""
    return f"{local} = {pair['foreign']}{folded}"


def cast_name(cast: str) -> str:
    """The name of the type that a cast converts to: ``ObjectId``."""
    return CASTS[cast].type_name


def _part_lines(part: Document) -> list[tuple[str, str]]:
    lines = []
    if part.get("match"):
        lines.append(("Only where", json.dumps(part["match"], ensure_ascii=False)))
    if part.get("fields"):
        lines.append(("Fields", ", ".join(part["fields"])))
    if part.get("sort"):
        lines.append(
            ("Order", ", ".join(f"{field}, {DIRECTION_LABELS[direction]}" for field, direction in part["sort"]))
        )
    if part.get("limit"):
        lines.append(("At most", humanize.intcomma(part["limit"])))
    return lines


def kind_traits(kind: str) -> JoinKind:
    """The traits of a kind of join that its icon shows."""
    return KINDS[kind]


def describe_kind(kind: str, left: str, other: str) -> str:
    """A kind of join in a phrase with the names of its collections."""
    phrase = KIND_PHRASES[kind].format(left=left or "the left side", other=other or "the other side")
    return phrase[0].upper() + phrase[1:]


def as_curl(join: Document, root: str, metadata: Document) -> str:
    """The curl command that submits this join to the API of the web application at ``root``."""
    body = json.dumps({"join": join, "metadata": metadata}, ensure_ascii=False, indent=2).replace("'", "'\\''")
    return f"curl -X POST {root}api/v1/joins -H 'Content-Type: application/json' -d '{body}'"


def as_json(join: Document) -> str:
    """The join as one line of JSON, its keys in their original order."""
    return json.dumps(join, ensure_ascii=False, separators=(",", ":"))

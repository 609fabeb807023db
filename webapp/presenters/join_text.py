"""A join as text. Pure: no I/O."""

import json

import humanize

from webapp.presenters.value_text import Document, format_list
from worker_tasks.joins.spec.casts import CASTS
from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind

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
    """A short phrase for a JoinSpec, such as ``Users with their orders``."""
    phrase, embedded = join["from"], []
    for each in join["joins"]:
        kind = each.get("kind", DEFAULT_KIND)
        if KINDS[kind].keeps_exactly_left:
            embedded.append(each["from"])
        else:
            phrase = KIND_PHRASES[kind].format(left=phrase, other=each["from"])
    if embedded:
        phrase = KIND_PHRASES[DEFAULT_KIND].format(left=phrase, other=format_list(embedded))
    if any(map(repeats_rows, join["joins"])):
        phrase += ", a row for each match"
    return phrase[0].upper() + phrase[1:]


def repeats_rows(join: Document) -> bool:
    """Whether one join of a JoinSpec returns a row for each match."""
    shape = SHAPES.get(join.get("shape", DEFAULT_SHAPE))
    return shape is not None and shape.repeats_rows


def describe_join_lines(join: Document) -> list[tuple[str, str]]:
    """A JoinSpec as pairs of label and text."""
    lines = [("From", f"{join['database']}.{join['from']}")]
    lines += _side_lines(join)
    for each in join["joins"]:
        pairs = " and ".join(_describe_pair(pair) for pair in each["on"])
        kind = KIND_PHRASES[each.get("kind", DEFAULT_KIND)].format(left="rows", other=each["from"])
        lines.append(("Join", f"{kind}, where {pairs}"))
        if "as" in each:
            lines.append(("Into", f"{each['as']}: {SHAPE_LABELS[each.get('shape', DEFAULT_SHAPE)]}"))
        lines += _side_lines(each)
    return lines


def _describe_pair(pair: Document) -> str:
    local = f"{pair['local']} as {pair['cast']}" if pair.get("cast") else pair["local"]
    return f"{local} = {pair['foreign']}"


def cast_name(cast: str) -> str:
    """The name of the type that a cast converts to: ``ObjectId``."""
    return CASTS[cast].type_name


def _side_lines(side: Document) -> list[tuple[str, str]]:
    lines = []
    if side.get("match"):
        lines.append(("Only where", json.dumps(side["match"], ensure_ascii=False)))
    if side.get("fields"):
        lines.append(("Fields", ", ".join(side["fields"])))
    if side.get("sort"):
        lines.append(
            ("Order", ", ".join(f"{field}, {DIRECTION_LABELS[direction]}" for field, direction in side["sort"]))
        )
    if side.get("limit"):
        lines.append(("At most", humanize.intcomma(side["limit"])))
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

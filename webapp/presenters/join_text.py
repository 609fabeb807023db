"""A join as people say it. Pure: no I/O."""

import json

import humanize

from webapp.presenters.value_text import Document, listed
from worker_tasks.joins.spec.casts import CASTS
from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind

#: How each kind of join is said between two collections.
KIND_WORDS = {
    "left": "{left} with their {other}",
    "inner": "{left} that have {other}, with them",
    "semi": "{left} that have {other}",
    "anti": "{left} without {other}",
    "outer": "All of {left} and {other}",
}

DIRECTION_WORDS = {1: "lowest first", -1: "highest first"}

SHAPE_WORDS = {
    "array": "all matches in a list",
    "rows": "one row for each match",
    "first": "the first match alone",
    "count": "how many there are",
}


def describe_join(join: Document) -> str:
    """A JoinSpec in a few words."""
    words, with_them = join["from"], []
    for each in join["joins"]:
        kind = each.get("kind", DEFAULT_KIND)
        if KINDS[kind].keeps_exactly_left:
            with_them.append(each["from"])
        else:
            words = KIND_WORDS[kind].format(left=words, other=each["from"])
    if with_them:
        words = KIND_WORDS[DEFAULT_KIND].format(left=words, other=listed(with_them))
    if any(map(repeats_rows, join["joins"])):
        words += ", a row for each match"
    return words[0].upper() + words[1:]


def repeats_rows(join: Document) -> bool:
    """Whether one collection is joined with a row for each match."""
    shape = SHAPES.get(join.get("shape", DEFAULT_SHAPE))
    return shape is not None and shape.repeats_rows


def describe_join_lines(join: Document) -> list[tuple[str, str]]:
    """A JoinSpec in words, line by line."""
    lines = [("From", f"{join['database']}.{join['from']}")]
    lines += _side_lines(join)
    for each in join["joins"]:
        pairs = " and ".join(_pair_words(pair) for pair in each["on"])
        kind = KIND_WORDS[each.get("kind", DEFAULT_KIND)].format(left="rows", other=each["from"])
        lines.append(("Join", f"{kind}, where {pairs}"))
        if "as" in each:
            lines.append(("Into", f"{each['as']}: {SHAPE_WORDS[each.get('shape', DEFAULT_SHAPE)]}"))
        lines += _side_lines(each)
    return lines


def _pair_words(pair: Document) -> str:
    local = f"{pair['local']} as {pair['cast']}" if pair.get("cast") else pair["local"]
    return f"{local} = {pair['foreign']}"


def cast_name(cast: str) -> str:
    """The type that a cast converts to, as its name is commonly spelled."""
    return CASTS[cast].type_name


def _side_lines(side: Document) -> list[tuple[str, str]]:
    lines = []
    if side.get("match"):
        lines.append(("Only where", json.dumps(side["match"], ensure_ascii=False)))
    if side.get("fields"):
        lines.append(("Fields", ", ".join(side["fields"])))
    if side.get("sort"):
        lines.append(
            ("Order", ", ".join(f"{field}, {'lowest' if way == 1 else 'highest'} first" for field, way in side["sort"]))
        )
    if side.get("limit"):
        lines.append(("At most", humanize.intcomma(side["limit"])))
    return lines


def kind_traits(kind: str) -> JoinKind:
    """Which rows a kind of join keeps, as its drawing shows."""
    return KINDS[kind]


def describe_kind(kind: str, left: str, other: str) -> str:
    """A kind of join, said with the names of its collections."""
    words = KIND_WORDS[kind].format(left=left or "the left side", other=other or "the other side")
    return words[0].upper() + words[1:]


def as_curl(join: Document, root: str, metadata: Document) -> str:
    """The call of the API that asks for this join, of the web application at ``root``."""
    body = json.dumps({"join": join, "metadata": metadata}, ensure_ascii=False, indent=2).replace("'", "'\\''")
    return f"curl -X POST {root}api/v1/joins -H 'Content-Type: application/json' -d '{body}'"


def as_json(join: Document) -> str:
    """The join in one line, in the order in which it was written."""
    return json.dumps(join, ensure_ascii=False, separators=(",", ":"))

"""The collections that a join reads: which deployment, database and collection each of its sides names. Pure.

In a description, ``from`` is the name of a collection or an object:

    "orders"
    {"database": "archive", "collection": "orders"}
    {"source": "crm", "database": "crm", "collection": "accounts"}

The models hold its parts in fields of their own: ``from_``, ``source`` and ``database``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Document = dict[str, Any]

#: In a join, the source without a name. None there means: the source of the left side.
UNNAMED = ""

_PARTS = ("source", "database", "collection")

#: The names of the databases that are open for joins: by source, or those of the source without a name alone.
OpenDatabases = Iterable[str] | Mapping[str | None, Iterable[str]]


class Side(NamedTuple):
    """A collection that a join reads. The source without a name is None."""

    source: str | None
    database: str
    collection: str


@dataclass
class Unpacked:
    """A description with each ``from`` object unpacked into fields of its model.

    ``errors`` holds what cannot be unpacked, by path. ``places`` maps the path of an unpacked field to the place in
    the description that it comes from.
    """

    description: Any
    errors: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def unpack_side(self, side: Document, path: str, own_fields: tuple[str, ...]) -> Document:
        """Unpacks ``from``; ``own_fields`` are the fields of the model that only ``from`` may set."""
        unpacked = dict(side)
        for name in own_fields:
            if name in unpacked:
                del unpacked[name]
                self.errors[f"{path}.{name}"] = f'is not known here: write "from": {{"{name}": …, "collection": …}}.'
        given = unpacked.get("from")
        if not isinstance(given, dict):
            return unpacked
        self.errors |= {f"{path}.from.{name}": "is not known here." for name in given if name not in _PARTS}
        self.places |= {f"{path}.{name}": f"{path}.from.{name}" for name in ("source", "database")}
        self.places[f"{path}.from"] = f"{path}.from.collection"
        del unpacked["from"]
        if "collection" in given:
            unpacked["from"] = given["collection"]
        return unpacked | {name: given[name] for name in ("source", "database") if given.get(name) is not None}


def unpack(description: Any) -> Unpacked:
    """Unpacks each ``from`` object of a description."""
    unpacked = Unpacked(description)
    if not isinstance(description, dict):
        return unpacked
    copy = unpacked.unpack_side(description, "join", ("source",))
    if "database" in description:
        unpacked.places.pop("join.database", None)
        if copy["database"] != description["database"]:
            unpacked.errors["join.from.database"] = "is not the database that the join names: name it in one place."
            copy["database"] = description["database"]
    if isinstance(joins := description.get("joins"), list):
        copy["joins"] = [
            _unpack_join(unpacked, each, f"join.joins.{number}") if isinstance(each, dict) else each
            for number, each in enumerate(joins)
        ]
    unpacked.description = copy
    return unpacked


def _unpack_join(unpacked: Unpacked, join: Document, path: str) -> Document:
    copy = unpacked.unpack_side(join, path, ("source", "database"))
    given = join.get("from")
    if isinstance(given, dict) and "source" in given and given["source"] is None:
        copy["source"] = UNNAMED
    return copy


def read_side(part: Document, own: Side | None = None) -> Side:
    """The collection that a description or one of its joins names, valid or not.

    Args:
        own: the left side, for a join: its source and database count where the join names none.
    """
    named = part.get("from")
    given = named if isinstance(named, dict) else {"collection": named}
    if own is None:
        own = Side(None, str(part.get("database") or ""), "")
    source = given.get("source", own.source)
    return Side(
        None if source is None else str(source),
        str(given.get("database") or own.database),
        str(given.get("collection") or ""),
    )


def pack(side: Side, own: Side) -> str | Document:
    """The ``from`` of a side: the parts that differ from the join's ``own`` side, with those that they depend on."""
    if side.source != own.source:
        return side._asdict()
    if side.database != own.database:
        return {"database": side.database, "collection": side.collection}
    return side.collection


def open_errors(sides: Iterable[tuple[str, Side]], databases: OpenDatabases) -> Iterator[tuple[str, str]]:
    """The sides that are not open for joins, as pairs of path and reason.

    Args:
        sides: pairs of the path of a side, such as ``join.joins.0``, and the side.
    """
    known = databases if isinstance(databases, Mapping) else {None: databases}
    open_databases = {source: set(names) for source, names in known.items()}
    for path, side in sides:
        if side.source not in open_databases:
            yield f"{path}.from.source", _unknown_source(side.source, open_databases)
        elif side.database not in open_databases[side.source]:
            at_top = path == "join" and side.source is None
            owner = f" in {side.source}" if side.source else ""
            yield f"{path}.{'' if at_top else 'from.'}database", f"{side.database} is not open for joins{owner}."


def _unknown_source(source: str | None, known: Iterable[str | None]) -> str:
    names = sorted(name for name in known if name)
    what = f"unknown source “{source}”" if source else "is missing"
    return f"{what}: the known ones are {', '.join(names)}." if names else f"{what}: no source has a name."

"""The databases and collections that a draft chooses from, as values of its form.

A database is written as ``shop``, or as ``crm$sales`` in a source with a name. A collection of the left side's database
is written as its plain name, any other one as ``source$database$collection``. No name contains a ``$``.
"""

from typing import NamedTuple, Self

from wtforms.fields.choices import SelectChoice

from worker_tasks.infra.sources import all_sources
from worker_tasks.joins.preflight.sampling import collection_names
from worker_tasks.joins.spec.sides import Side

SEPARATOR = "$"


class Place(NamedTuple):
    """A database of a source. The source without a name is None."""

    source: str | None
    database: str

    @classmethod
    def parse(cls, text: str | None) -> Self:
        source, separator, database = (text or "").partition(SEPARATOR)
        return cls(source or None, database) if separator else cls(None, source)

    @property
    def value(self) -> str:
        return f"{self.source}{SEPARATOR}{self.database}" if self.source else self.database

    @property
    def label(self) -> str:
        return f"{self.source}: {self.database}" if self.source else self.database


def parse_side(text: str | None, own: Place) -> Side:
    """The collection that a value of the form names, seen from the left side's database."""
    parts = (text or "").split(SEPARATOR, 2)
    if len(parts) < 3:  # noqa: PLR2004
        return Side(own.source, own.database, text or "")
    source, database, collection = parts
    return Side(source or None, database, collection)


def side_value(side: Side, own: Place) -> str:
    """The value of the form for a collection; the opposite of ``parse_side``."""
    if side[:2] == own:
        return side.collection
    return SEPARATOR.join((side.source or "", side.database, side.collection))


def label_of(text: str) -> str:
    """A database or collection of the form in words."""
    match text.split(SEPARATOR, 2):
        case [source, database]:
            return Place(source, database).label
        case [source, database, collection]:
            return f"{Place(source or None, database).label}.{collection}"
        case _:
            return text


def open_places() -> list[Place]:
    """All databases that are open for joins, those of the source without a name first."""
    return [Place(source.name, database) for source in all_sources() for database in sorted(source.databases)]


def other_collections(own: Place) -> list[SelectChoice]:
    """The collections of all databases but one, grouped by source and database. Leaves out those that do not answer."""
    return [
        SelectChoice(side_value(Side(*place, name), own), name, optgroup=place.label)
        for place in open_places()
        if place != own
        for name in collection_names(place.database, place.source)
    ]

"""The kinds of join and the shapes of their matches, one row each. Pure.

Code that depends on a kind or a shape tests its flags, so a new kind or shape needs only a row here and its words in
``webapp/presenters/join_text.py``.
"""

from dataclasses import dataclass
from typing import Literal

#: These repeat the names in the tables, because type checkers cannot compute a type. A test compares them.
Kind = Literal["left", "inner", "semi", "anti", "outer"]
Shape = Literal["array", "rows", "first", "count"]


@dataclass(frozen=True, kw_only=True)
class JoinKind:
    """Which rows a join keeps, and whether it adds a field to them.

    ``keeps_left``: left rows without a match stay. ``keeps_other``: documents of the other side without a match
    become rows. ``excludes_matches``: left rows with a match are dropped. ``embeds``: the matches go into a field of
    the row; otherwise the join only selects rows. ``first_only``: no other join may precede it. ``one_sided``: the
    same kind without the rows of the other side.
    """

    name: Kind
    keeps_left: bool = False
    keeps_other: bool = False
    excludes_matches: bool = False
    embeds: bool = True
    first_only: bool = False
    one_sided: Kind | None = None

    @property
    def requires_match(self) -> bool:
        """Whether every resulting row has a match."""
        return not (self.keeps_left or self.keeps_other)

    @property
    def keeps_exactly_left(self) -> bool:
        """Whether the resulting rows are exactly those of the left side."""
        return self.keeps_left and not (self.keeps_other or self.excludes_matches)


@dataclass(frozen=True, kw_only=True)
class MatchShape:
    """How matches are stored in the field.

    ``holds_documents``: the field holds matching documents, not their number. ``holds_list``: one list holds all
    matches of a row. ``repeats_rows``: each match makes its own row. ``takes_one``: only the first match is kept.
    """

    name: Shape
    holds_documents: bool = True
    holds_list: bool = False
    repeats_rows: bool = False
    takes_one: bool = False

    @property
    def needs_all(self) -> bool:
        """Whether the result keeps every matching document."""
        return self.holds_documents and not self.takes_one

    @property
    def may_be_missing(self) -> bool:
        """Whether a row without a match lacks the field."""
        return self.holds_documents and not self.holds_list


KINDS: dict[str, JoinKind] = {
    kind.name: kind
    for kind in (
        JoinKind(name="left", keeps_left=True),
        JoinKind(name="inner"),
        JoinKind(name="semi", embeds=False),
        JoinKind(name="anti", keeps_left=True, excludes_matches=True, embeds=False),
        JoinKind(name="outer", keeps_left=True, keeps_other=True, first_only=True, one_sided="left"),
    )
}

SHAPES: dict[str, MatchShape] = {
    shape.name: shape
    for shape in (
        MatchShape(name="array", holds_list=True),
        MatchShape(name="rows", repeats_rows=True),
        MatchShape(name="first", takes_one=True),
        MatchShape(name="count", holds_documents=False),
    )
}

DEFAULT_KIND: Kind = "left"
DEFAULT_SHAPE: Shape = "array"

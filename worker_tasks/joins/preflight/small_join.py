"""Joins a few documents in plain Python, with the keys and the layout of a run. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.canonical_keys import LIST_TAG, canonical
from worker_tasks.joins.plan.layout import JoinLayout, Layout, Level, SideKey, SortKey

#: The canonical keys of one row, for each pair of a join.
RowKeys = list[list[str]]
#: Returns the documents of the other side of a join that pass its filter, at least those that match one of the rows.
Fetch = Callable[[JoinLayout, list[RowKeys]], list[Document]]


@dataclass(frozen=True)
class Row:
    """A row between two joins.

    ``left`` is the document of the left side, None in a row that an outer join adds. ``found`` holds the matches of
    each join so far that adds a field, and ``elements`` the contents of each list that takes matches.
    """

    left: Any
    found: dict[int, list[Document]] = field(default_factory=dict)
    elements: tuple[list["Row"] | None, ...] = ()


@dataclass(frozen=True)
class Others:
    """The documents of the other side of a join, in the order of matches, by their keys."""

    join: JoinLayout
    documents: list[Document]
    by_key: dict[tuple[str, ...], list[int]]

    @classmethod
    def of(cls, join: JoinLayout, documents: Iterable[Document]) -> "Others":
        other = join.other
        ordered = list(documents)
        if other.match_sort:
            ordered.sort(key=lambda document: [sort.read(document) for sort in other.match_sort])
        by_key: dict[tuple[str, ...], list[int]] = {}
        for place, document in enumerate(ordered):
            for key in key_tuples([each.read(document) for each in other.own_keys]):
                by_key.setdefault(key, []).append(place)
        return cls(join, ordered, by_key)

    def places(self, keys: RowKeys) -> list[int]:
        """The places of the documents that match a row with these keys."""
        return sorted({place for key in key_tuples(keys) for place in self.by_key.get(key, ())})


def key_tuples(keys: RowKeys) -> list[tuple[str, ...]]:
    """The keys that two documents must have in common to match: with several pairs, all values together."""
    if len(keys) == 1:
        return [(key,) for key in keys[0]]
    return [tuple(each[0] for each in keys)] if all(keys) else []


class SmallJoin:
    """Takes rows through the joins of a layout, one after the other.

    Args:
        documents: documents of the left side that pass its filter.
        most: the largest number of matches of a row to go on with; None for all.
    """

    def __init__(self, layout: Layout, documents: list[Document], most: int | None = None):
        self._layout, self._most = layout, most
        self.rows = [self._left_row(document) for document in layout.rows.left.expanded(documents)]

    def _left_row(self, document: Document) -> Row:
        lists = [document.get(level.name or "") for level in self._layout.lists]
        elements = ([Row(each) for each in held] if isinstance(held, list) else None for held in lists)
        return Row(document, elements=tuple(elements))

    def rows_before(self, join: JoinLayout) -> list[Row]:
        """The rows that a join compares: those so far, or the elements of the list that takes its matches."""
        if join.join.into is None:
            return self.rows
        place = [level.name for level in self._layout.lists].index(join.join.into)
        return [element for row in self.rows if row.elements for element in row.elements[place] or []]

    def keys(self, join: JoinLayout) -> list[RowKeys]:
        """The keys by which a join finds the matches of each row before it."""
        return row_keys(self._layout, join, self.rows_before(join))

    def step(self, join: JoinLayout, others: Others) -> None:
        """Takes the rows through a join."""
        rows, keys = self.rows_before(join), self.keys(join)
        if join.join.into is not None:
            for row, row_keys in zip(rows, keys, strict=True):
                row.found[join.number] = self._kept(join, others, others.places(row_keys))
            return
        used: set[int] = set()
        after: list[Row] = []
        for row, row_keys in zip(rows, keys, strict=True):
            places = others.places(row_keys)
            used.update(places)
            after += self._rows_after(row, join, self._kept(join, others, places))
        if join.join.kind_traits.keeps_other:
            unused = (document for place, document in enumerate(others.documents) if place not in used)
            after += [Row(None, {join.number: [document]}) for document in unused]
        self.rows = after

    def _kept(self, join: JoinLayout, others: Others, places: list[int]) -> list[Document]:
        limits = [1 if join.join.shape_traits.takes_one else join.join.limit]
        if join.join.embeds_documents:
            limits.append(self._most)
        limit = min((each for each in limits if each is not None), default=None)
        return [others.documents[place] for place in places[:limit]]

    @staticmethod
    def _rows_after(row: Row, join: JoinLayout, matches: list[Document]) -> list[Row]:
        kind = join.join.kind_traits
        if not join.join.embeds:
            return [row] if bool(matches) != kind.excludes_matches else []
        if not matches and not kind.keeps_left:
            return []
        if join.join.shape_traits.repeats_rows and matches:
            return [Row(row.left, {**row.found, join.number: [match]}, row.elements) for match in matches]
        return [Row(row.left, {**row.found, join.number: matches}, row.elements)]

    def result(self) -> list[Document]:
        """The rows as the result shows them, in its order."""
        level = self._layout.rows
        rows = self.rows
        if readers := _sort_readers(level):
            rows = sorted(rows, key=lambda row: [read(row) for read in readers])
        return [self._shown(row) for row in rows]

    def _shown(self, row: Row) -> Document:
        lists = {
            level.name or "": [_shown_at(level, element) for element in elements if _is_shown(level, element)]
            for level, elements in zip(self._layout.lists, row.elements, strict=False)
            if elements is not None
        }
        kept = {level.name for level in self._layout.lists if level.left.is_kept}
        shown = _shown_at(self._layout.rows, row, without=lists.keys())
        return {**shown, **{name: elements for name, elements in lists.items() if name in kept}}


def join_documents(layout: Layout, documents: list[Document], fetch: Fetch, most: int | None = None) -> list[Document]:
    """The rows of a whole join of these left documents, in the order of the result, without its limit."""
    small = SmallJoin(layout, documents, most)
    for join in layout.others:
        small.step(join, Others.of(join, fetch(join, small.keys(join))))
    return small.result()


def row_keys(layout: Layout, join: JoinLayout, rows: Iterable[Row]) -> list[RowKeys]:
    """The keys by which a join finds the matches of each of these rows."""
    level = next(level for level in (layout.rows, *layout.lists) if level.name == join.join.into)
    readers = _key_readers(level, join)
    return [[read(row) for read in readers] for row in rows]


def _is_shown(level: Level, element: Row) -> bool:
    """Whether an element stays: one that is not a document has none of the fields to keep."""
    return isinstance(element.left, dict) or not level.left.projections


def _shown_at(level: Level, row: Row, without: Iterable[str] = ()) -> Any:
    """A row of a level as the result shows it, except these fields. An element may be any value."""
    if level.name is not None and not isinstance(row.left, dict):
        return row.left
    dropped = set(without)
    shown = level.left.shown({name: value for name, value in (row.left or {}).items() if name not in dropped})
    for join in level.joins:
        matches = row.found.get(join.number)
        if join.shows_field and matches is not None:
            shown |= _field(join, matches)
    return shown


def _field(join: JoinLayout, matches: list[Document]) -> Document:
    """The field that a join adds to a row."""
    name, shape = join.join.as_ or "", join.join.shape_traits
    if not shape.holds_documents:
        return {name: len(matches)}
    if shape.holds_list:
        return {name: [join.other.shown(match) for match in matches]}
    return {name: join.other.shown(matches[0])} if matches else {}


def _key_readers(level: Level, join: JoinLayout) -> list[Callable[[Row], list[str]]]:
    """Reads the key of each pair of a join from a row."""
    owners: list[tuple[JoinLayout | None, SideKey]] = [(None, key) for key in level.left.onward_keys]
    owners += [(earlier, key) for earlier in level.joins for key in earlier.other.onward_keys]
    own = sorted((each for each in owners if each[1].join == join.number), key=lambda each: each[1].pair)
    return [_left_reader(key) if owner is None else _match_reader(owner, key) for owner, key in own]


def _left_reader(key: SideKey) -> Callable[[Row], list[str]]:
    return lambda row: key.read(row.left) if isinstance(row.left, dict) else []


def _match_reader(owner: JoinLayout, key: SideKey) -> Callable[[Row], list[str]]:
    shape = owner.join.shape_traits

    def read(row: Row) -> list[str]:
        matches = row.found.get(owner.number, [])
        if not shape.holds_documents:
            return [canonical(len(matches)) or ""]
        keys = [each for match in matches for each in key.read(match)]
        return [LIST_TAG + "".join(keys)] if key.in_list else list(dict.fromkeys(keys))

    return read


def _sort_readers(level: Level) -> list[Callable[[Row], Any]]:
    """Reads the criteria of the final order, the first one first."""
    owners: list[tuple[JoinLayout | None, SortKey]] = [(None, sort) for sort in level.left.row_sort]
    owners += [(join, sort) for join in level.joins for sort in join.other.row_sort]
    owners.sort(key=lambda each: each[1].number)
    return [_sort_reader(owner, sort) for owner, sort in owners]


def _sort_reader(owner: JoinLayout | None, sort: SortKey) -> Callable[[Row], Any]:
    if owner is None:
        return lambda row: sort.absent if row.left is None else sort.read(row.left)
    number, shape = owner.number, owner.join.shape_traits

    def read(row: Row) -> Any:
        matches: Sequence[Document] = row.found.get(number, ())
        if not shape.holds_documents:
            return -len(matches) if sort.descending else len(matches)
        return min((sort.read(match) for match in matches), default=sort.absent)

    return read

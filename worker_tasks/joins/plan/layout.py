"""Decides what a join reads from each side, and what of each document enters the result. Pure.

A *side* is the left collection, or the collection of one join. Both join methods follow the same layout, so they give
the same rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from worker_tasks.infra.connections import Document
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.matching.canonical_keys import canonical
from worker_tasks.joins.matching.conversions import convert
from worker_tasks.joins.matching.paths import element_reader, key_reader, path_parts
from worker_tasks.joins.matching.projection import projector
from worker_tasks.joins.matching.sort_keys import sort_key, sort_key_reader
from worker_tasks.joins.plan.expansion import expand
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, stored_paths
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import Expand, Join, JoinSpec, KeyPair

Fields = tuple[str, ...] | None
Value = TypeVar("Value")


@dataclass(frozen=True)
class SideKey:
    """The key by which documents of a side take part in one pair of a join.

    ``join`` and ``pair`` are indexes. ``path`` is the field that MongoDB stores the key in. ``read`` returns the
    canonical keys of a document; with several pairs at most one. With ``in_list``, the key is the list of the values in
    all matches, and ``read`` returns the text of one of them. With ``place``, only the match at this place of a list
    counts. ``count_tag`` precedes the digits of a number of matches in its key; without one, it matches nothing.
    """

    join: int
    pair: int
    path: str
    read: Callable[[Document], list[str]]
    in_list: bool = False
    place: int | None = None
    count_tag: str | None = None


@dataclass(frozen=True)
class SortKey:
    """One criterion of an order. ``read`` returns bytes whose ascending order is the wanted one.

    ``number`` is the index of the criterion, and ``absent`` its value in rows without a document of this side. With
    ``place``, only the match at this place of a list counts.
    """

    number: int
    read: Callable[[Document], bytes]
    absent: bytes
    descending: bool = False
    place: int | None = None


@dataclass(frozen=True)
class SideLayout:
    """The reading of one side.

    Attributes:
        side: the collection.
        match: the filter.
        expands: the lists that become rows of their own, before anything else.
        own_keys: the keys that the join of this side compares with earlier sides.
        onward_keys: the keys that later joins read from this side.
        match_sort: the order among the matches of one row.
        row_sort: the criteria of the final order that depend on this side.
        stored_paths: the fields that MongoDB returns; None for all of them.
        is_kept: whether the result shows documents of this side.
        projections: the fields that the result shows, as successive projections.
        replaced: the fields that joins replace.
    """

    side: Side
    match: filters.Filter = field(default_factory=dict)
    expands: tuple[Expand, ...] = ()
    own_keys: tuple[SideKey, ...] = ()
    onward_keys: tuple[SideKey, ...] = ()
    match_sort: tuple[SortKey, ...] = ()
    row_sort: tuple[SortKey, ...] = ()
    stored_paths: Fields = None
    is_kept: bool = True
    projections: tuple[tuple[str, ...], ...] = ()
    replaced: frozenset[str] = frozenset()

    def pipeline(self, bounds: filters.Filter | None = None) -> list[Stage]:
        """The aggregation that reads this side, limited to ``bounds`` (a filter in MongoDB's own form)."""
        limits: list[Stage] = [{"$match": bounds}] if bounds else []
        fields = None if self.stored_paths is None else list(self.stored_paths)
        return [*limits, *match_stages(self.match), *project_stages(fields)]

    def expanded(self, documents: list[Document]) -> list[Document]:
        """The documents with their lists expanded."""
        for each in self.expands:
            documents = [row for document in documents for row in expand(document, each)]
        return documents

    def shown(self, document: Document) -> Document:
        """The part of a document that the result shows."""
        if self.replaced and not self.replaced.isdisjoint(document):
            document = {name: value for name, value in document.items() if name not in self.replaced}
        for keep in self._projectors:
            document = keep(document)
        return document

    @cached_property
    def _projectors(self) -> list[Callable[[Document], Document]]:
        return [projector(list(fields)) for fields in self.projections]


@dataclass(frozen=True)
class JoinLayout:
    """One join of a level: its index in the spec, its spec, and the side that it brings in."""

    number: int
    join: Join
    other: SideLayout

    @property
    def shows_field(self) -> bool:
        """Whether the rows get the field of this join."""
        return self.join.embeds and self.other.is_kept


@dataclass(frozen=True)
class Level:
    """Rows and the joins that add to them: the rows of the result, or the elements of a list inside them.

    ``name`` is the list's field; None for the rows of the result. The result shows no elements unless ``left`` is kept.
    ``fields`` are the fields that it shows, those of joins included; None for all of them.
    """

    name: str | None
    left: SideLayout
    joins: tuple[JoinLayout, ...]
    fields: Fields = None


@dataclass(frozen=True)
class Layout:
    """The layout of a whole join: the rows, and each list into whose elements joins put their matches."""

    rows: Level
    lists: tuple[Level, ...] = ()

    @property
    def others(self) -> list[JoinLayout]:
        """All joins, in the order of the spec."""
        joins = [*self.rows.joins, *(join for level in self.lists for join in level.joins)]
        return sorted(joins, key=lambda join: join.number)


def layout_of(spec: JoinSpec) -> Layout:
    """The layout of a join.

    Raises:
        InvalidInput: matches would go into the matches of an earlier join, or the order of the rows depends on matches
            inside a list.
    """
    lists = list(dict.fromkeys(join.into for join in spec.joins if join.into is not None))
    for number, join in enumerate(spec.joins):
        if any(earlier.as_ == join.into and earlier.into is None for earlier in spec.joins[:number] if join.into):
            message = f"{join.into} holds the matches of an earlier join; only lists of {spec.from_} can take matches."
            raise InvalidInput({f"join.joins.{number}.into": message})
    targets = [join.target for join in spec.joins if join.into is not None and join.target is not None]
    for place, (path, _) in enumerate(spec.sort):
        if any(path == target or path.startswith(f"{target}.") for target in targets):
            message = f"{path} is inside the elements of a list: rows cannot be sorted by matches there."
            raise InvalidInput({f"join.sort.{place}": message})
    return Layout(_level(spec, None, lists), tuple(_level(spec, name, []) for name in lists))


def _level(spec: JoinSpec, name: str | None, lists: list[str]) -> Level:
    numbered = [(number, join) for number, join in enumerate(spec.joins) if join.into == name]
    added = {join.as_ for _, join in numbered if join.as_ is not None}
    shown: Fields = None if spec.fields_ is None else tuple(spec.fields_)
    if name is not None:
        shown = _under(shown, name)
    joins = tuple(
        JoinLayout(number, join, _other_side(spec, number, join, _under(shown, join.as_))) for number, join in numbered
    )
    own = None if shown is None else tuple(path for path in shown if _head(path) not in added)
    keys = tuple(key for number, join in numbered for key in _onward_keys(spec, number, join, None))
    sorts = () if name is not None else _row_sorts(spec, None)
    expands = tuple(spec.expand) if name is None else ()
    stored: Fields = None
    if own is not None and name is None:
        needed = [*own, *(key.path for key in keys)]
        # Fields inside a list do not tell which elements lack them, and those sort first.
        sorted_by = [_head(path) for path, _ in spec.sort if _head(path) not in added]
        into_keys = [pair.local for join in spec.joins if join.into is not None for pair in join.on]
        stored = stored_paths([*needed, *sorted_by, *into_keys, *lists, *(each.path for each in expands)])
    left = SideLayout(
        side=spec.left,
        match=spec.match if name is None else {},
        expands=expands,
        onward_keys=keys,
        row_sort=sorts,
        stored_paths=stored,
        is_kept=shown != (),
        projections=() if own is None else (own,),
        replaced=frozenset(added),
    )
    return Level(name, left, joins, shown)


def _other_side(spec: JoinSpec, number: int, join: Join, shown: Fields) -> SideLayout:
    """The side of one join. ``shown`` are the fields that the result keeps of it; None for all."""
    single = len(join.on) == 1
    own = tuple(
        SideKey(
            number,
            place,
            pair.foreign,
            key_reader(pair.foreign, side="other", single=single, cast=_cast_of_both(pair), fold=pair.fold),
        )
        for place, pair in enumerate(join.on)
    )
    onward = tuple(
        key
        for later, following in enumerate(spec.joins)
        if later > number and following.into == join.into
        for key in _onward_keys(spec, later, following, number)
    )
    match_sort = tuple(_sort_key(place, path, direction) for place, (path, direction) in enumerate(join.sort))
    row_sort = () if join.into is not None else _row_sorts(spec, number)
    holds = join.embeds_documents
    projections = tuple(fields for fields in (_tuple(join.fields_), shown) if fields is not None)
    stored: Fields = None
    if not holds:
        stored = stored_paths([key.path for key in own])
    elif projections and not (shown is None and join.fields_ is None):
        kept = projections[0]
        sorted_by = [_head(path) for path, _ in join.sort]
        sorts = [_split_place(join, path)[1] for path, _ in spec.sort if join.as_ and _head(path) == join.as_]
        rows_sorted_by = [_head(path.partition(".")[2]) for path in sorts]
        onward_paths = [key.path for key in onward]
        if "" not in {*rows_sorted_by, *onward_paths} or join.fields_ is not None:
            paths = [*kept, *(key.path for key in own), *sorted_by, *rows_sorted_by, *onward_paths]
            stored = stored_paths([path for path in paths if path])
    return SideLayout(
        side=spec.side(join),
        match=join.match,
        own_keys=own,
        onward_keys=onward,
        match_sort=match_sort,
        row_sort=row_sort,
        stored_paths=stored,
        is_kept=shown != () and not (shown is not None and join.embeds and not holds),
        projections=projections,
    )


def _onward_keys(spec: JoinSpec, number: int, join: Join, owner: int | None) -> Iterable[SideKey]:
    """The left keys of a join that a side holds: an earlier join's, or the level's own (``owner`` None)."""
    single = len(join.on) == 1
    for place, pair in enumerate(join.on):
        path = pair.local if join.into is None else pair.local.removeprefix(f"{join.into}.")
        if _owner(spec, number, join, path) != owner:
            continue
        read = key_reader(path, side="left", single=single, cast=pair.cast, fold=pair.fold)
        if owner is None:
            yield SideKey(number, place, path, read)
            continue
        earlier = spec.joins[owner]
        at, path = _split_place(earlier, path)
        in_list = not single and earlier.shape_traits.holds_list and at is None
        if in_list:
            # No cast converts a list.
            read = element_reader(path) if pair.cast is None else _no_key
        elif at is not None:
            read = key_reader(path, side="left", single=single, cast=pair.cast, fold=pair.fold)
        stored = path.partition(".")[2]
        in_list = in_list and pair.cast is None
        yield SideKey(number, place, stored, _in_field(earlier, read), in_list, at, _count_tag(pair))


def _no_key(_: Mapping[str, Any]) -> list[str]:
    return []


def _count_tag(pair: KeyPair) -> str | None:
    key = canonical(convert(1, pair.cast, pair.fold))
    return key[:-1] if key is not None and key.endswith("1") else None


def _split_place(join: Join, path: str) -> tuple[int | None, str]:
    """The place in the list of matches that a path names, and the path without it."""
    name, place, *rest = path_parts(path) if "." in path else (*path_parts(path), None)
    if not join.shape_traits.holds_list or place is None or place.place is None:
        return None, path
    return place.place, ".".join(part.name for part in (name, *rest) if part is not None)


def _in_field(join: Join, read: Callable[[Mapping[str, Any]], Value]) -> Callable[[Document], Value]:
    """Reads a document of the other side as the field that the join adds to the rows."""
    name = join.as_ or ""
    keep = None if join.fields_ is None else projector(join.fields_)

    def read_in_field(document: Document) -> Value:
        return read({name: document if keep is None else keep(document)})

    return read_in_field


def _owner(spec: JoinSpec, number: int, join: Join, path: str) -> int | None:
    """The index of the earlier join that adds the field of this path; None for a field of the level's own rows."""
    for place, earlier in enumerate(spec.joins[:number]):
        if earlier.into == join.into and earlier.as_ is not None and earlier.as_ == _head(path):
            return place
    return None


def _row_sorts(spec: JoinSpec, owner: int | None) -> tuple[SortKey, ...]:
    """The criteria of the final order that depend on one side."""
    added = {join.as_: place for place, join in enumerate(spec.joins) if join.as_ is not None and join.into is None}
    criteria = []
    for place, (path, direction) in enumerate(spec.sort):
        if added.get(_head(path)) != owner:
            continue
        if owner is None:
            criteria.append(_sort_key(place, path, direction))
            continue
        join = spec.joins[owner]
        if not join.shape_traits.holds_documents and path != join.as_:
            continue  # a count has no fields
        empty: Document = {join.as_ or "": []} if join.shape_traits.holds_list else {}
        at, inner = _split_place(join, path)
        read = _whole_field(join, inner, direction)
        criteria.append(SortKey(place, read, sort_key(empty, path, direction), direction < 0, at))
    return tuple(criteria)


def _whole_field(join: Join, path: str, direction: int) -> Callable[[Document], bytes]:
    """Sorts by fields that the join does not keep, too; by all of them as the join keeps them."""
    name, read = join.as_ or "", sort_key_reader(path, direction)
    if path == name:
        return _in_field(join, read)
    return lambda document: read({name: document})


def _sort_key(number: int, path: str, direction: int) -> SortKey:
    return SortKey(number, sort_key_reader(path, direction), sort_key({}, path, direction), direction < 0)


def _cast_of_both(pair: KeyPair) -> str | None:
    """The cast that applies to both sides of a pair; all others apply to the left one."""
    return pair.cast if pair.cast is not None and pair.cast.startswith("uuid") else None


def _under(fields: Fields, name: str | None) -> Fields:
    """The fields inside one field, without its name. None if all of it is kept."""
    if fields is None or name is None or name in fields:
        return None
    return tuple(path[len(name) + 1 :] for path in fields if path.startswith(f"{name}."))


def _tuple(fields: list[str] | None) -> Fields:
    return None if fields is None else tuple(fields)


def _head(path: str) -> str:
    return path.partition(".")[0]

"""The SQL of a scan. Pure.

Every step takes the rows of a common table expression (``c0``, ``c1``, …) through one join. The rows have the columns
of :class:`worker_tasks.joins.scan.rows.SideRows`, and ``u<number>``, which tells whether the join with this number
found no match.

The matches of a join come from a table grouped by key, where each document has one key at most. Where a document has
several keys, the step first pairs row numbers, so that two documents with several common keys match only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from worker_tasks.infra.scratch_database import literal
from worker_tasks.joins.matching.canonical_keys import ESCAPE, LIST_TAG, SEPARATOR
from worker_tasks.joins.plan.layout import JoinLayout, Layout, Level, SideKey, SortKey
from worker_tasks.joins.scan.rows import KEY_SEPARATOR, key_column, own_key_column

#: The rows of the left side, the elements of a list, and the documents of an outer join that matched nothing.
LEFT, ELEMENTS, UNMATCHED = "left_rows", "elements{}", "unmatched_other"


def other_table(join: JoinLayout) -> str:
    """The documents of the other side of a join."""
    return f"other{join.number}"


def matches_table(join: JoinLayout) -> str:
    """The matches for each key."""
    return f"matches{join.number}"


def keys_table(join: JoinLayout) -> str:
    """The keys of each document of the other side: one row per key."""
    return f"keys{join.number}"


def matches(join: JoinLayout, bucket: tuple[int, int] | None = None) -> str:
    """Selects the matches for each key. With ``bucket`` (number, count), only of the keys in one hash bucket."""
    keys = [own_key_column(key) for key in join.other.own_keys]
    conditions = [f"{key} <> ''" for key in keys]
    if bucket is not None:
        conditions.append(f"hash({', '.join(keys)}) % {bucket[1]} = {bucket[0]}")
    source = f"(SELECT * FROM {other_table(join)} WHERE {' AND '.join(conditions)})"
    return _grouped(join, source, keys)


def are_single_documents(join: JoinLayout) -> bool:
    """Whether the matches are the documents of the other side as they are, neither grouped nor counted."""
    shape = join.join.shape_traits
    ranked = shape.takes_one or join.join.limit is not None or join.other.match_sort
    return join.join.embeds and shape.holds_documents and not shape.holds_list and not ranked


def keys(join: JoinLayout) -> str:
    """Selects the keys of each document of the other side."""
    (key,) = (own_key_column(key) for key in join.other.own_keys)
    return (
        f"SELECT n, unnest(string_split({key}, {literal(KEY_SEPARATOR)})) AS k FROM {other_table(join)} "
        f"WHERE {key} <> ''"
    )


def _grouped(join: JoinLayout, source: str, groups: Sequence[str]) -> str:
    """Selects the matches of each group of documents: one row per match, or one row per group."""
    shape, columns = join.join.shape_traits, ", ".join(groups)
    if not join.join.embeds:
        return f"SELECT DISTINCT {columns} FROM {source}"
    if not shape.holds_documents:
        count = "count(*)" if join.join.limit is None else f"least(count(*), {join.join.limit})"
        return f"SELECT {columns}, {count} AS found FROM {source} GROUP BY {columns}"
    order = ", ".join([*(f"s{sort.number}" for sort in join.other.match_sort), "n"])
    rank = f"row_number() OVER (PARTITION BY {columns} ORDER BY {order})"
    limit = 1 if shape.takes_one else join.join.limit
    place = rank if limit is not None or join.other.match_sort else "n"
    kept = "" if limit is None else f" QUALIFY place <= {limit}"
    placed = f"SELECT *, {place} AS place FROM {source}{kept}"
    if not shape.holds_list:
        return placed
    several = [_keys_of_all(key) for key in join.other.onward_keys]
    sorts = [f"{_sort_of_all(sort)} AS g{sort.number}" for sort in join.other.row_sort]
    values = ", ".join([columns, "string_agg(d, ',' ORDER BY place) AS d", *several, *sorts])
    return f"SELECT {values} FROM ({placed}) GROUP BY {columns}"


def _keys_of_all(key: SideKey) -> str:
    """Selects the keys of all matches of a group, or the one key of their list."""
    name = key_column(key)
    if key.place is not None:
        return f"{_at_place(name, key.place)} AS {name}"
    separator = "''" if key.in_list else literal(KEY_SEPARATOR)
    return f"string_agg(nullif({name}, ''), {separator} ORDER BY place) AS {name}"


def _sort_of_all(sort: SortKey) -> str:
    """Selects the sort key of the list of all matches of a group."""
    name = f"g{sort.number}"
    return f"min({name})" if sort.place is None else _at_place(name, sort.place)


def _at_place(column: str, place: int) -> str:
    """Selects the value of one match of a group; null if there are fewer."""
    return f"list_extract(array_agg({column} ORDER BY place), {place + 1})"


@dataclass
class Statement:
    """Builds the statement that takes rows through all joins.

    Args:
        watched: the numbers of the joins whose unmatched rows are of interest.
        paired: the numbers of the joins in which a document has several keys.
    """

    layout: Layout
    watched: frozenset[int]
    paired: frozenset[int] = frozenset()
    _tables: list[str] = field(default_factory=list, init=False)

    def result(self, numbers: tuple[int, int] | None = None, *, ordered: bool) -> str:
        """Selects the rows of the result.

        The columns are the row's fields as JSON, each after a comma; for each watched join, whether it found no match;
        and the criteria of the order of all rows.

        Args:
            numbers: the first number of a left row, and the number after the last one; None for all rows.
            ordered: whether the rows come in the order of the left side and of their matches.
        """
        rows = self._add(f"SELECT *, 0::BIGINT AS place FROM {LEFT}{_between('n', numbers)}")
        last = self._steps(self.layout.rows, rows, [])
        lists = [self._list(place, level, _between("row", numbers)) for place, level in enumerate(self.layout.lists)]
        return self._select(last, lists, ordered=ordered)

    def unmatched_other(self) -> str:
        """Selects the rows that an outer join adds: documents of its other side that matched no row."""
        first, left = self.layout.rows.joins[0], self.layout.rows.left
        brackets = ("[", "]") if first.join.shape_traits.holds_list else ("", "")
        text = f"{literal(_label(first) + brackets[0])} || d || {literal(brackets[1])}" if first.shows_field else "''"
        columns = ["n", "0::BIGINT AS place", f"{text} AS d"]
        columns += [_onward(key, "''" if key.place else key_column(key)) for key in first.other.onward_keys]
        columns += [f"'' AS {key_column(key)}" for key in left.onward_keys if key.join != first.number]
        columns += [f"{_blob(sort.absent)} AS g{sort.number}" for sort in first.other.row_sort if sort.place]
        columns += [f"g{sort.number}" for sort in first.other.row_sort if not sort.place]
        columns += [f"{_blob(sort.absent)} AS g{sort.number}" for sort in left.row_sort]
        columns += [f"0 AS list{place}" for place in range(len(self.layout.lists))]
        columns += [f"false AS u{first.number}"] if first.number in self.watched else []
        rows = self._add(f"SELECT {', '.join(columns)} FROM {UNMATCHED}")
        return self._select(self._steps(self.layout.rows, rows, [first]), [], ordered=False)

    def _add(self, select: str, *, materialized: bool = False) -> str:
        name = f"c{len(self._tables)}"
        self._tables.append(f"{name} AS {'MATERIALIZED ' if materialized else ''}({select})")
        return name

    def _select(self, rows: str, lists: Sequence[str], *, ordered: bool) -> str:
        text, joined = "c.d", ""
        for place, (name, level) in enumerate(zip(lists, self.layout.lists, strict=False)):
            if level.left.is_kept:
                elements = f"{literal(_label_of(level.name or '') + '[')} || coalesce({name}.d, '') || ']'"
                text += f" || CASE WHEN c.list{place} = 1 THEN {elements} ELSE '' END"
                joined += f" LEFT JOIN {name} ON c.n = {name}.row"
        columns = [f"{text} AS d", *(f"c.u{number}" for number in sorted(self.watched))]
        columns += [f"c.g{number}" for number in sort_numbers(self.layout)]
        order = " ORDER BY c.n, c.place" if ordered else ""
        return f"WITH {', '.join(self._tables)} SELECT {', '.join(columns)} FROM {rows} AS c{joined}{order}"

    def _list(self, place: int, level: Level, where: str) -> str:
        """The elements of a list with their matches: for each row, the JSON inside the list's brackets."""
        rows = self._add(f"SELECT *, 0::BIGINT AS place FROM {ELEMENTS.format(place)}{where}")
        last = self._steps(level, rows, [])
        element = "CASE WHEN is_document = 1 THEN '{' || substr(d, 2) || '}' ELSE d END"
        return self._add(f"SELECT row, string_agg({element}, ',' ORDER BY n) AS d FROM {last} GROUP BY row")

    def _steps(self, level: Level, rows: str, done: Sequence[JoinLayout]) -> str:
        for place in range(len(done), len(level.joins)):
            rows = self._step(level, rows, place)
        return rows

    def _step(self, level: Level, rows: str, place: int) -> str:
        """The rows after one more join."""
        join = level.joins[place]
        left_keys = [f"k{join.number}_{pair}" for pair in range(len(join.join.on))]
        if join.number in self.paired:
            rows, found = self._matched_by_row(rows, join, left_keys[0])
            condition, match = "c.id = m.id", "m.id"
        else:
            found = matches_table(join)
            own = [own_key_column(key) for key in join.other.own_keys]
            condition = " AND ".join(f"c.{left} = m.{key}" for left, key in zip(left_keys, own, strict=True))
            match = f"m.{own[0]}"
        carried = [f"c.{name}" for name in self._carried(level, place)]
        kind = join.join.kind_traits
        if not join.join.embeds:
            how = "ANTI JOIN" if kind.excludes_matches else "SEMI JOIN"
            columns = ["c.d", "c.place", *carried]
        else:
            how = "LEFT JOIN" if kind.keeps_left else "JOIN"
            repeats = join.join.shape_traits.repeats_rows
            text = _with_field(join, match)
            if level.name is not None:
                text = f"CASE WHEN c.is_document = 1 THEN {text} ELSE c.d END"
            columns = [f"{text} AS d", "m.place" if repeats else "c.place", *carried]
            columns += _brought(join)
            columns += [f"{match} IS NULL AS u{join.number}"] if join.number in self.watched else []
        return self._add(f"SELECT {', '.join(columns)} FROM {rows} c {how} {found} m ON {condition}")

    def _carried(self, level: Level, place: int) -> list[str]:
        """The columns that a step only passes on."""
        join, done = level.joins[place], level.joins[:place]
        names = ["n", *(["row", "is_document"] if level.name is not None else [])]
        sides = [level.left, *(each.other for each in done if each.join.embeds)]
        names += [key_column(key) for side in sides for key in side.onward_keys if key.join > join.number]
        names += [f"g{sort.number}" for side in sides for sort in side.row_sort]
        if level.name is None:
            names += [f"list{number}" for number in range(len(self.layout.lists))]
        return names + [f"u{each.number}" for each in done if each.number in self.watched]

    def _matched_by_row(self, rows: str, join: JoinLayout, left_key: str) -> tuple[str, str]:
        """Pairs rows and documents that have a common key. Returns the rows with an ``id``, and the matches by it."""
        rows = self._add(f"SELECT *, row_number() OVER () AS id FROM {rows}", materialized=True)
        exploded = (
            f"SELECT id, unnest(string_split({left_key}, {literal(KEY_SEPARATOR)})) AS k FROM {rows} "
            f"WHERE {left_key} <> ''"
        )
        pairs = self._add(f"SELECT DISTINCT c.id, m.n FROM ({exploded}) c JOIN {keys_table(join)} m ON c.k = m.k")
        source = f"(SELECT p.id, o.* FROM {pairs} p JOIN {other_table(join)} o ON p.n = o.n)"
        return rows, self._add(_grouped(join, source, ["id"]))


def sort_numbers(layout: Layout) -> list[int]:
    """The numbers of the criteria of the order of all rows."""
    sides = [layout.rows.left, *(join.other for join in layout.rows.joins)]
    return sorted(sort.number for side in sides for sort in side.row_sort)


def _with_field(join: JoinLayout, match: str) -> str:
    """The fields of the row together with the field of the join."""
    if not join.shows_field:
        return "c.d"
    shape = join.join.shape_traits
    if not shape.holds_documents:
        return f"c.d || {literal(_label(join))} || coalesce(m.found, 0)"
    if shape.holds_list:
        return f"c.d || {literal(_label(join) + '[')} || coalesce(m.d, '') || ']'"
    text = f"c.d || {literal(_label(join))} || m.d"
    return f"CASE WHEN {match} IS NULL THEN c.d ELSE {text} END" if join.join.kind_traits.keeps_left else text


def _brought(join: JoinLayout) -> list[str]:
    """The keys and sort keys that the matches bring in."""
    if not join.join.shape_traits.holds_documents:
        count = "coalesce(m.found, 0)"
        columns = [f"{_key_of_count(key, count)} AS {key_column(key)}" for key in join.other.onward_keys]
        sorts = join.other.row_sort
        return columns + [f"{'-' if sort.descending else ''}{count} AS g{sort.number}" for sort in sorts]
    columns = [_onward(key, f"coalesce(m.{key_column(key)}, '')") for key in join.other.onward_keys]
    return columns + [
        f"coalesce(m.g{sort.number}, {_blob(sort.absent)}) AS g{sort.number}" for sort in join.other.row_sort
    ]


def _key_of_count(key: SideKey, count: str) -> str:
    return "''" if key.count_tag is None else f"{literal(key.count_tag)} || {count}"


def _onward(key: SideKey, value: str) -> str:
    if not key.in_list:
        return f"{value} AS {key_column(key)}"
    text, separator, escape = f"{literal(LIST_TAG)} || {value}", literal(SEPARATOR), literal(ESCAPE)
    escaped = f"replace(replace({text}, {escape}, {literal(ESCAPE + '0')}), {separator}, {literal(ESCAPE + '1')})"
    return f"CASE WHEN contains({value}, {separator}) THEN {escape} || {escaped} ELSE {text} END AS {key_column(key)}"


def _label(join: JoinLayout) -> str:
    return _label_of(join.join.as_ or "")


def _label_of(name: str) -> str:
    return f",{orjson.dumps(name).decode()}:"


def _blob(value: bytes) -> str:
    return f"from_hex({literal(value.hex())})"


def _between(column: str, numbers: tuple[int, int] | None) -> str:
    return "" if numbers is None else f" WHERE {column} >= {numbers[0]} AND {column} < {numbers[1]}"


def used_other(join: JoinLayout, *, is_paired: bool) -> str:
    """Notes the documents of the other side that match one of the left rows."""
    if is_paired:
        (left,) = (f"k{join.number}_{pair}" for pair in range(1))
        exploded = f"SELECT unnest(string_split({left}, {literal(KEY_SEPARATOR)})) AS k FROM {LEFT} WHERE {left} <> ''"
        return f"INSERT INTO used SELECT DISTINCT m.n FROM ({exploded}) c JOIN {keys_table(join)} m ON c.k = m.k"
    own = [own_key_column(key) for key in join.other.own_keys]
    equal = " AND ".join(f"c.k{join.number}_{pair} = m.{key}" for pair, key in enumerate(own))
    present = " AND ".join(f"m.{key} <> ''" for key in own)
    return f"INSERT INTO used SELECT DISTINCT m.n FROM {LEFT} c JOIN {other_table(join)} m ON {equal} AND {present}"

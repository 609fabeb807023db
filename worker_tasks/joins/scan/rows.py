"""Turns documents of one side into the rows of a table that DuckDB joins."""

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.paths import MISSING, as_document
from worker_tasks.joins.matching.projection import value_projector
from worker_tasks.joins.plan.layout import Level, SideKey, SideLayout
from worker_tasks.joins.reading.encoding import encode_documents, encode_fields, note_fields
from worker_tasks.joins.scan.columns import BYTES, NUMBER, TEXT, Batch, Column

#: Separates the keys of one document in a text. Canonical keys do not contain it.
KEY_SEPARATOR = "\x1f"
#: Up to this many different values of a column, their keys are kept.
KNOWN_KEYS = 20_000


def key_column(key: SideKey) -> str:
    """The column of a key that a later join reads."""
    return f"k{key.join}_{key.pair}"


def own_key_column(key: SideKey) -> str:
    """The column of a key by which the documents of a side are found."""
    return f"f{key.pair}"


@dataclass
class SideRows:
    """Builds the rows of one side, batch by batch.

    A row has its number ``n``, its JSON ``d``, and its keys and sort keys as columns. ``d`` holds a whole document
    on the other side of a join, and fields that each follow a comma on the left.

    Attributes:
        layout: the side.
        level: the level whose left side this is; None for the other side of a join.
        count, size: the numbers of rows, and of bytes of JSON.
        with_lists: the key columns in which some document has several keys.
        fields: the names of all top-level fields, in the order of their first appearance.
    """

    layout: SideLayout
    level: Level | None = None
    lists: Sequence[str] = ()
    count: int = 0
    size: int = 0
    with_lists: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)
    #: The keys of the texts and whole numbers that occurred in each column; None if they are too many to repeat often.
    _known_keys: dict[str, dict[Any, bytes] | None] = field(default_factory=dict)

    @property
    def is_element(self) -> bool:
        """Whether the rows are elements of a list."""
        return self.level is not None and self.level.name is not None

    @property
    def types(self) -> dict[str, str]:
        """The SQL types of the columns."""
        types = {"n": NUMBER}
        if self.is_element:
            types |= {"row": NUMBER, "is_document": NUMBER}
        types["d"] = TEXT
        types |= {f"list{place}": NUMBER for place in range(len(self.lists))}
        types |= {own_key_column(key): TEXT for key in self.layout.own_keys}
        types |= {key_column(key): TEXT for key in self.layout.onward_keys}
        types |= {f"s{sort.number}": BYTES for sort in self.layout.match_sort}
        return types | {f"g{sort.number}": BYTES for sort in self.layout.row_sort}

    def rows(self, documents: list[Any], non_finite: bool, holders: Sequence[int] = ()) -> Batch:
        """The rows of these documents, whose lists are expanded already.

        Args:
            documents: for elements of a list, some may be other values.
            non_finite: whether the documents may hold infinite numbers or NaN.
            holders: for elements of lists, the number of the row that holds each.
        """
        layout = self.layout
        length = len(documents)
        lines = self._lines(documents, non_finite)
        columns: dict[str, Column] = {"n": array.array("q", range(self.count, self.count + length))}
        if self.is_element:
            columns["row"] = array.array("q", holders)
            read = [as_document(element) for element in documents]
            columns["is_document"] = array.array("q", [document is not None for document in read])
            documents = [document or {} for document in read]
        for place, name in enumerate(self.lists):
            held = [isinstance(document.get(name), list) for document in documents]
            columns[f"list{place}"] = array.array("q", map(int, held))
        for key in layout.own_keys:
            columns[own_key_column(key)] = self._keys(own_key_column(key), key, documents)
        for key in layout.onward_keys:
            columns[key_column(key)] = self._keys(key_column(key), key, documents)
        for prefix, sorts in (("s", layout.match_sort), ("g", layout.row_sort)):
            for sort in sorts:
                columns[f"{prefix}{sort.number}"] = [sort.read(document) for document in documents]
        columns["d"] = lines
        self.count += length
        return Batch(self.types, columns)

    def _keys(self, column: str, key: SideKey, documents: list[Document]) -> list[bytes]:
        known = self._known_keys.setdefault(column, {})
        # The key depends on one value alone, unless the path leads into it.
        if known is None or not key.path or "." in key.path:
            return [self._read_keys(column, key, document) for document in documents]
        keys = []
        for document in documents:
            value = document.get(key.path)
            if type(value) is not str and type(value) is not int:
                keys.append(self._read_keys(column, key, document))
                continue
            if (found := known.get(value)) is None:
                found = known[value] = self._read_keys(column, key, document)
            keys.append(found)
        if len(known) > KNOWN_KEYS:
            self._known_keys[column] = None
        return keys

    def _read_keys(self, column: str, key: SideKey, document: Document) -> bytes:
        keys = key.read(document)
        if len(keys) > 1:
            self.with_lists.add(column)
        return KEY_SEPARATOR.join(keys).encode()

    def _lines(self, documents: list[Any], non_finite: bool) -> list[bytes]:
        layout = self.layout
        if self.level is None and not layout.is_kept:
            return [b""] * len(documents)
        show = self._shown_element if self.is_element else self._shown
        if layout.projections or self.lists or self._has_replaced(documents):
            documents = [show(document) for document in documents]
        if self.level is None:
            lines = encode_documents(documents, non_finite=non_finite)
        elif not self.is_element:
            note_fields(documents, self.fields)
            lines = [b"," + line if line else line for line in encode_fields(documents, non_finite=non_finite)]
        else:
            pairs = zip(documents, encode_documents(documents, non_finite=non_finite), strict=True)
            lines = [line if as_document(element) is None else _after_comma(line) for element, line in pairs]
        self.size += sum(map(len, lines))
        return lines

    def _has_replaced(self, documents: list[Any]) -> bool:
        """Whether some document may hold a field that a join replaces."""
        replaced = self.layout.replaced
        return bool(replaced) and (
            self.is_element or any(name in document for name in replaced for document in documents)
        )

    def keeps_element(self, element: Any) -> bool:
        """Whether the result shows this element of a list."""
        return as_document(element) is not None or self._shown_element(element) is not MISSING

    def _shown_element(self, element: Any) -> Any:
        document = as_document(element)
        return self._show_value(element) if document is None else self.layout.shown(dict(document))

    @cached_property
    def _show_value(self) -> Callable[[Any], Any]:
        fields = None if self.level is None else self.level.fields
        return value_projector(None if fields is None else list(fields))

    def _shown(self, document: Document) -> Document:
        if any(isinstance(document.get(name), list) for name in self.lists):
            document = {
                name: value for name, value in document.items() if name not in self.lists or not isinstance(value, list)
            }
        return self.layout.shown(document)


def _after_comma(line: bytes) -> bytes:
    """The fields of a JSON object, each after a comma."""
    return b"," + line[1:-1] if line != b"{}" else b""

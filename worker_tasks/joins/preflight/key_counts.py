"""Counts the matches of rows from the keys of the other side. Pure."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bson import DatetimeMS

from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.raw_values import raw_value
from worker_tasks.joins.plan.layout import SideLayout
from worker_tasks.joins.preflight.small_join import RowKeys, key_tuples

#: Documents of the other side reduced to the fields of its keys, each with the number of those that look like it.
KeyGroups = list[tuple[Document, int]]


@dataclass(frozen=True)
class KeyIndex:
    """The groups of documents that have each key, and the number of documents in each group."""

    by_key: dict[tuple[str, ...], list[int]]
    sizes: list[int]

    @classmethod
    def of(cls, other: SideLayout, groups: KeyGroups) -> "KeyIndex":
        by_key: dict[tuple[str, ...], list[int]] = {}
        for place, (document, _) in enumerate(groups):
            for key in key_tuples([each.read(document) for each in other.own_keys]):
                by_key.setdefault(key, []).append(place)
        return cls(by_key, [number for _, number in groups])

    def _groups(self, keys: RowKeys) -> set[int]:
        return {place for key in key_tuples(keys) for place in self.by_key.get(key, ())}

    def matches(self, keys: RowKeys) -> int:
        """The number of documents that match a row with these keys."""
        return sum(self.sizes[place] for place in self._groups(keys))

    def matched_rows(self, rows: list[RowKeys]) -> int:
        """The number of rows with a match."""
        return sum(1 for keys in rows if self._groups(keys))

    def matched_documents(self, rows: list[RowKeys]) -> int:
        """The number of documents that match at least one row."""
        return sum(self.sizes[place] for place in {place for keys in rows for place in self._groups(keys)})

    def most_frequent(self, rows: list[RowKeys]) -> tuple[list[Any] | None, int]:
        """The key of the rows with the most documents, as its values, and their number."""
        wanted = {key for keys in rows for key in key_tuples(keys)} & self.by_key.keys()
        counts = Counter({key: sum(self.sizes[place] for place in self.by_key[key]) for key in wanted})
        if not counts:
            return None, 0
        ((key, number),) = counts.most_common(1)
        return [_readable(part) for part in key], number


def _readable(key: str) -> Any:
    try:
        value = raw_value(key)
    except ValueError:
        return key[1:]
    if isinstance(value, DatetimeMS):
        # Some dates of MongoDB are beyond the years of Python.
        with suppress(OverflowError, ValueError):
            return value.as_datetime().isoformat()
    return value

"""Reads the other side of a join for a few rows, bounded in documents and seconds.

MongoDB is asked for the keys of the rows where it compares like a run does. It cannot fold texts or convert its own
values; then the whole side is read if it is small, otherwise a part of it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.matching.raw_values import raw_value
from worker_tasks.joins.plan.layout import JoinLayout, SideLayout
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages, stored_paths
from worker_tasks.joins.preflight.key_counts import KeyGroups
from worker_tasks.joins.preflight.small_join import RowKeys, key_tuples
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.sides import Side

#: The largest numbers of documents to read, of different keys to count, and of values to ask for.
MAX_DOCUMENTS, MAX_KEYS, MAX_ASKED = 10_000, 100_000, 50_000
#: The largest number of matches that are only counted.
MAX_REPEATED = 1_000_000
#: The largest number of rows whose matches are read one by one.
MAX_ROWS = 100
#: Time limits in seconds: of one query, and of one that reads a whole side.
QUERY_SECONDS, WHOLE_SECONDS = 1.0, 2.0


@dataclass
class OtherReader:
    """Reads other sides until a deadline. ``comment`` marks every operation."""

    comment: str
    deadline: float
    _whole: dict[str, KeyGroups | None] = field(default_factory=dict, init=False)

    def documents(self, join: JoinLayout, keys: list[RowKeys], most: int | None = None) -> tuple[list[Document], int]:
        """Documents that match the rows with these keys.

        Args:
            most: the number of matches of a row that suffices, if all of them are too many.

        Returns:
            The documents, and the number of rows, from the first on, whose matches are among them. There may be others
            for the rest, and documents that match no row.
        """
        asked = None if join.join.kind_traits.keeps_other else asked_filter(join, keys)
        # If the join adds no documents, only their number matters.
        groups = None if join.join.embeds_documents else self.groups(join.other, asked)
        if groups is not None:
            repeated = (document for document, number in groups for _ in range(number))
            is_bounded = sum(number for _, number in groups) <= MAX_REPEATED
            return list(islice(repeated, MAX_REPEATED)), len(keys) if is_bounded else 0
        found = self._read(join, asked, MAX_DOCUMENTS)
        if found is not None and len(found) < MAX_DOCUMENTS:
            return found, len(keys)
        if asked is None or most is None or not join.join.embeds_documents:
            return found or [], 0
        return self._few(join, keys, most)

    def _few(self, join: JoinLayout, keys: list[RowKeys], most: int) -> tuple[list[Document], int]:
        """The first matches of each of the first rows."""
        documents: dict[Any, Document] = {}
        seen: set[tuple[str, ...]] = set()
        for place, row in enumerate(keys[:MAX_ROWS]):
            missing = [key for key in key_tuples(row) if key not in seen]
            seen.update(missing)
            for key in missing:
                asked = asked_filter(join, [[[part] for part in key]])
                found = None if asked is None else self._read(join, asked, most)
                if found is None:
                    return list(documents.values()), place
                # A document may match by several keys.
                documents |= {repr(each.get("_id", len(documents) + n)): each for n, each in enumerate(found)}
        return list(documents.values()), min(len(keys), MAX_ROWS)

    def _read(self, join: JoinLayout, asked: filters.Filter | None, limit: int) -> list[Document] | None:
        """The first documents in the order of matches."""
        fields = None if join.other.stored_paths is None else list(join.other.stored_paths)
        stages: list[Stage] = [{"$match": asked}] if asked else []
        stages += match_stages(join.other.match)
        stages += [{"$sort": dict(join.join.sort)}] if join.join.sort else []
        return self.aggregate(join.other.side, [*stages, {"$limit": limit}, *project_stages(fields)])

    def groups(self, other: SideLayout, asked: filters.Filter | None = None) -> KeyGroups | None:
        """The documents of a side that pass its filter, reduced to their keys; None if they cannot be found in time."""
        if asked is None:
            return self._whole_groups(other)
        return self._groups(other, [{"$match": asked}], QUERY_SECONDS)

    def _whole_groups(self, other: SideLayout) -> KeyGroups | None:
        """The groups of a whole side. They are asked for once, even if that takes too long."""
        key = repr((other.side, other.match, [each.path for each in other.own_keys]))
        if key not in self._whole:
            self._whole[key] = self._groups(other, [], WHOLE_SECONDS)
        return self._whole[key]

    def _groups(self, other: SideLayout, stages: list[Stage], seconds: float) -> KeyGroups | None:
        stages += match_stages(other.match)
        stages += project_stages(list(stored_paths([key.path for key in other.own_keys])))
        stages += [{"$group": {"_id": "$$ROOT", "n": {"$sum": 1}}}, {"$limit": MAX_KEYS}]
        groups = self.aggregate(other.side, stages, seconds)
        if groups is None or len(groups) == MAX_KEYS:
            return None
        return [(group["_id"], group["n"]) for group in groups]

    def aggregate(self, side: Side, stages: list[Stage], seconds: float = QUERY_SECONDS) -> list[Document] | None:
        """The documents of an aggregation; None if they cannot be found in time."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            return None
        try:
            with within(min(seconds, remaining)):
                return list(find_collection(*side).aggregate(stages, comment=self.comment, allowDiskUse=True))
        except TookTooLong:
            return None
        except OperationFailure:
            # For example, a joined document may be too big even with few matches.
            return None


def asked_filter(join: JoinLayout, keys: list[RowKeys]) -> filters.Filter | None:
    """A filter in MongoDB's own form that all matches of these rows pass; None if MongoDB cannot be asked for them."""
    asked = {}
    for place, pair in enumerate(join.join.on):
        if pair.fold is not None or (pair.cast or "").startswith("uuid"):
            continue
        values = _values(key for row in keys if all(row) for key in row[place])
        if values is not None and not (len(join.join.on) > 1 and any(isinstance(each, list) for each in values)):
            asked[pair.foreign] = {"$in": values}
    return asked or None


def _values(keys: Iterable[str]) -> list[Any] | None:
    distinct = list(dict.fromkeys(keys))
    if len(distinct) > MAX_ASKED:
        return None
    try:
        values = [raw_value(key) for key in distinct]
    except ValueError:
        return None
    # MongoDB would read a DBRef as an operator.
    return None if any(isinstance(each, dict) and next(iter(each), "").startswith("$") for each in values) else values

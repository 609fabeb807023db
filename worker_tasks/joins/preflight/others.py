"""Reads the other side of a join for a few rows, bounded in documents and seconds.

MongoDB is asked for the keys of the rows where it compares like a run does. It cannot fold texts or convert its own
values; then the whole side is read if it is small, otherwise a part of it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from worker_tasks.infra.connections import Document, within
from worker_tasks.infra.errors import TookTooLong
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.matching.raw_values import raw_value
from worker_tasks.joins.plan.layout import JoinLayout, SideLayout, readable_paths
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages
from worker_tasks.joins.preflight.key_counts import KeyGroups
from worker_tasks.joins.preflight.small_join import RowKeys
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.sides import Side

#: The largest numbers of documents to read, of different keys to count, and of values to ask for.
MAX_DOCUMENTS, MAX_KEYS, MAX_ASKED = 10_000, 100_000, 50_000
#: Time limit in seconds of one query.
QUERY_SECONDS = 1.0


@dataclass
class OtherReader:
    """Reads other sides until a deadline. ``comment`` marks every operation."""

    comment: str
    deadline: float

    def documents(self, join: JoinLayout, keys: list[RowKeys]) -> tuple[list[Document], bool]:
        """Documents that may match the rows with these keys, and whether they are all of those."""
        asked = None if join.join.kind_traits.keeps_other else asked_filter(join, keys)
        fields = None if join.other.stored_paths is None else list(join.other.stored_paths)
        stages: list[Stage] = [{"$match": asked}] if asked else []
        stages += match_stages(join.other.match)
        # If there are too many, the first ones in the order of matches come.
        stages += [{"$sort": dict(join.join.sort)}] if join.join.sort else []
        found = self.aggregate(join.other.side, [*stages, {"$limit": MAX_DOCUMENTS}, *project_stages(fields)])
        return found or [], found is not None and len(found) < MAX_DOCUMENTS

    def groups(self, other: SideLayout, asked: filters.Filter | None = None) -> KeyGroups | None:
        """The documents of a side that pass its filter, reduced to their keys; None if they cannot be found in time."""
        stages: list[Stage] = [{"$match": asked}] if asked else []
        stages += match_stages(other.match)
        stages += project_stages(list(readable_paths([key.path for key in other.own_keys])))
        stages += [{"$group": {"_id": "$$ROOT", "n": {"$sum": 1}}}, {"$limit": MAX_KEYS}]
        groups = self.aggregate(other.side, stages)
        if groups is None or len(groups) == MAX_KEYS:
            return None
        return [(group["_id"], group["n"]) for group in groups]

    def aggregate(self, side: Side, stages: list[Stage], seconds: float | None = None) -> list[Document] | None:
        """The documents of an aggregation; None if they cannot be found in time."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            return None
        try:
            with within(min(seconds or QUERY_SECONDS, remaining)):
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

"""Takes a sample through a join by MongoDB's own lookups, where only MongoDB compares keys like the run.

The default collation of the left collection applies to the whole aggregation, and so to the keys of every join.
"""

from typing import Any

from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.paths import left_values
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import Stage
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy
from worker_tasks.joins.preflight.others import OtherReader
from worker_tasks.joins.spec.names import OWN_PREFIX
from worker_tasks.joins.spec.spec import Join, JoinSpec, KeyPair

FOUND = f"{OWN_PREFIX}_found"
#: The largest number of rows before a join.
MAX_ROWS = 5_000


def lookups(spec: JoinSpec) -> Strategy:
    """A lookup for every join, in the form that is right for all collections and, for few rows, fast."""
    return Strategy(JoinMethod.LOOKUP, None, None, tuple(Step() for _ in spec.joins))


class LookupProbe:
    """Takes a sample of the left side through the joins of a spec.

    Args:
        most: the largest number of matches of a row to go on with.
    """

    def __init__(self, spec: JoinSpec, sample: list[Document], reader: OtherReader, most: int):
        self._spec, self._sample, self._reader, self._most = spec, sample, reader, most

    def matches(self, number: int) -> tuple[list[Document], list[int]] | None:
        """The rows before a join, and the number of matches of each; None if they cannot be found in time."""
        joins = [self._limited(join) for join in self._spec.joins[:number]]
        counted: dict[str, Any] = {
            "kind": "left",
            "shape": "count",
            "as_": FOUND,
            "limit": None,
            "fields_": None,
            "sort": [],
        }
        joins.append(self._spec.joins[number].model_copy(update=counted))
        spec = self._spec.model_copy(update={"match": {}, "joins": joins})
        rows = self._reader.aggregate(spec.left, [*self._of_sample(), *_pipeline(spec), {"$limit": MAX_ROWS}])
        return None if rows is None else (rows, [row.pop(FOUND) for row in rows])

    @staticmethod
    def values(row: Document, pair: KeyPair) -> list[Any]:
        """The values of a row that one pair of a join compares, except null; the elements of a list one by one."""
        return left_values(row, pair.local)

    def preview(self, spec: JoinSpec) -> tuple[list[Document], bool]:
        """The first rows of a join, and whether they are of the sample because all would take too long."""
        spec = spec.model_copy(update={"joins": [self._limited(join) for join in spec.joins]})
        if (rows := self._reader.aggregate(spec.left, _pipeline(spec))) is not None:
            return rows, False
        unsorted = spec.model_copy(update={"match": {}, "sort": []})
        return self._reader.aggregate(spec.left, [*self._of_sample(), *_pipeline(unsorted)]) or [], True

    def _of_sample(self) -> list[Stage]:
        if all("_id" in document for document in self._sample):
            return [{"$match": {"_id": {"$in": [document["_id"] for document in self._sample]}}}]
        return [*_pipeline(self._spec.model_copy(update={"joins": []})), {"$limit": max(1, len(self._sample))}]

    def _limited(self, join: Join) -> Join:
        """The same join with few matches per row."""
        if not (join.embeds and join.shape_traits.needs_all):
            return join
        return join.model_copy(update={"limit": min(join.limit or self._most, self._most)})


def _pipeline(spec: JoinSpec) -> list[Stage]:
    return compile_pipeline(spec, lookups(spec))

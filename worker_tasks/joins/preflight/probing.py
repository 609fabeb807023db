"""Probes a join before it runs: takes a sample of the left side through it and counts the matches on the other side.

The numbers of documents and seconds are bounded. A statistic is None if a query takes too long to find it.
"""

import time
from collections import Counter
from dataclasses import replace
from functools import cached_property
from typing import Any

from worker_tasks.infra.connections import Document
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.layout import JoinLayout, layout_of
from worker_tasks.joins.plan.stages import Stage, match_stages, project_stages
from worker_tasks.joins.plan.strategy import allows_lookup
from worker_tasks.joins.preflight.join_stats import JoinStats, KeyStats
from worker_tasks.joins.preflight.key_counts import KeyGroups, KeyIndex
from worker_tasks.joins.preflight.local_values import has_only_nan, local_values, types_of
from worker_tasks.joins.preflight.lookups import LookupProbe
from worker_tasks.joins.preflight.others import OtherReader, asked_filter
from worker_tasks.joins.preflight.sampling import WHOLE_DOCUMENTS, CollectionSample, draw_documents, sample_collection
from worker_tasks.joins.preflight.small_join import Others, RowKeys, SmallJoin, join_documents
from worker_tasks.joins.preflight.trials import Trials
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: The number of left documents taken through the join, and for the first rows.
SAMPLE_ROWS, FIRST_DOCUMENTS = 200, 100
#: The number of matches of one document taken on to the next join.
SAMPLE_MATCHES = 5
#: Time limit in seconds of all queries about one join together.
ALL_SECONDS = 5.0
PREVIEW_ROWS = 5


class Probe:
    """Takes a sample of the left side through the joins of a spec.

    Attributes:
        sample: the documents of the left side.
        left_rows: the rows that they become by their expanded lists.
        is_whole: whether they are the whole left side.
        expansion: the number of rows that a document becomes by its expanded lists, on average.
        repetition: the same for the documents that become any.
    """

    def __init__(self, spec: JoinSpec, catalog: Catalog, comment: str):
        self._spec, self._catalog, self._comment = spec, catalog, comment
        self.is_whole = catalog.stats(spec.left).count <= WHOLE_DOCUMENTS
        size = WHOLE_DOCUMENTS if self.is_whole else SAMPLE_ROWS
        self.sample = draw_documents(find_collection(*spec.left), spec.match, size, comment)
        self._reader = OtherReader(comment, time.monotonic() + ALL_SECONDS)
        changes = {"joins": [one_sided(join) for join in spec.joins], "fields_": None, "sort": [], "limit": None}
        self._sampled = spec.model_copy(update=changes)
        self._layout = layout_of(self._sampled)
        self._small = SmallJoin(self._layout, self.sample, SAMPLE_MATCHES)
        self.left_rows = [row.left for row in self._small.rows]
        self.expansion = len(self._small.rows) / max(1, len(self.sample))
        lengths = [len(self._layout.rows.left.expanded([document])) for document in self.sample]
        self.repetition = sum(lengths) / max(1, sum(1 for length in lengths if length))

    @cached_property
    def _lookups(self) -> LookupProbe | None:
        """The probe by lookups, if the left collection has a collation: only MongoDB compares texts by it."""
        has_collation = self._catalog.stats(self._spec.left).collation is not None
        if not (has_collation and allows_lookup(self._spec)):
            return None
        return LookupProbe(self._sampled, self.sample, self._reader, SAMPLE_MATCHES)

    def joins(self) -> list[JoinStats]:
        """Statistics of every join.

        Raises:
            pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
        """
        return [self._join_stats(join) for join in self._layout.others]

    def _join_stats(self, join: JoinLayout) -> JoinStats:
        other = sample_collection(join.other.side)
        if self._lookups is not None:
            return self._looked_up(join, other, self._lookups)
        rows, keys = self._small.rows_before(join), self._small.keys(join)
        values = [[local_values(self._layout, join, row, pair) for row in rows] for pair in join.join.on]
        stats = JoinStats(
            number=join.number,
            join=self._spec.joins[join.number],
            rows=len(rows),
            keys=self._key_stats(join, values, other),
            other=other,
            is_whole=self.is_whole,
            per_row=1.0 if join.join.into is None else len(rows) / max(1, len(self._small.rows)),
        )
        groups = self._reader.groups(join.other, asked_filter(join, keys))
        if groups is None:
            documents, covered = self._reader.documents(join, keys)
            groups = [(document, 1) for document in documents]
            if covered < len(keys):
                self._small.step(join, Others.of(join, documents))
                in_sample = KeyIndex.of(join.other, groups).matched_rows(keys) if documents else None
                return replace(stats, matched_in_sample=in_sample)
        stats = _counted(stats, keys, KeyIndex.of(join.other, groups))
        trials = Trials(self._sampled, join, rows, self._reader)
        stats = replace(stats, **trials.diagnosis(stats, keys))
        self._step(join, keys, groups)
        return stats

    def _step(self, join: JoinLayout, keys: list[RowKeys], groups: KeyGroups) -> None:
        """Takes the sampled rows through a join; only later joins by its fields need whole documents."""
        if join.other.onward_keys:
            documents, covered = self._reader.documents(join, keys, SAMPLE_MATCHES)
            if join.join.into is None:
                del self._small.rows[covered:]
        else:
            documents = [document for document, number in groups for _ in range(min(number, SAMPLE_MATCHES))]
        self._small.step(join, Others.of(join, documents))
        del self._small.rows[WHOLE_DOCUMENTS * SAMPLE_MATCHES :]

    def _key_stats(self, join: JoinLayout, values: list[list[list[Any]]], other: CollectionSample) -> list[KeyStats]:
        """Statistics of each pair from the left values of each row."""
        spec = self._spec
        paths = {field.path for field in sample_collection(spec.left).fields}
        for earlier in spec.joins[: join.number]:
            if target := earlier.target:
                paths |= {f"{target}.{field.path}" for field in sample_collection(spec.side(earlier)).fields}
        return [
            KeyStats(
                pair=pair,
                left=Counter(name for row in rows for name in types_of(row)),
                empty=sum(1 for row in rows if not row) / max(1, len(rows)),
                left_paths=frozenset(paths),
                other=other,
                nan_rows=sum(1 for row in rows if has_only_nan(row)),
            )
            for pair, rows in zip(join.join.on, values, strict=True)
        ]

    def _looked_up(self, join: JoinLayout, other: CollectionSample, probe: LookupProbe) -> JoinStats:
        found = probe.matches(join.number)
        rows, numbers = found if found is not None else ([], [])
        values = [[probe.values(row, pair) for row in rows] for pair in join.join.on]
        stats = JoinStats(
            number=join.number,
            join=self._spec.joins[join.number],
            rows=len(rows),
            keys=self._key_stats(join, values, other),
            other=other,
            is_whole=self.is_whole,
        )
        if found is None:
            return stats
        limit = join.join.limit
        most = max(range(len(rows)), key=lambda place: numbers[place], default=None)
        return replace(
            stats,
            matched=sum(1 for number in numbers if number),
            mean_matches=sum(numbers) / max(1, len(rows)),
            mean_kept=sum(min(number, limit or number) for number in numbers) / max(1, len(rows)),
            other_matched=sum(numbers),
            max_matches=0 if most is None else numbers[most],
            max_key=None if most is None else [value for each in values for value in each[most][:1]],
        )

    def preview(self) -> tuple[list[Document], bool]:
        """A few joined rows, and whether they come from a sample because finding the first ones would take too long."""
        limit = min(self._spec.limit or PREVIEW_ROWS, PREVIEW_ROWS)
        joins = [one_sided(join) for join in self._spec.joins]
        spec = self._spec.model_copy(update={"joins": joins, "limit": limit})
        if self._lookups is not None:
            return self._lookups.preview(spec)
        documents, is_first, is_all = self._first_documents(spec)
        rows, is_complete = self._joined(spec, documents)
        if len(rows) < limit and not is_all:
            # The first documents match too little; the sample may match more.
            more, is_complete = self._joined(spec, self.sample)
            rows, is_first = (more, False) if len(more) > len(rows) else (rows, is_first)
        return rows[:limit], not (is_first and is_complete)

    def _first_documents(self, spec: JoinSpec) -> tuple[list[Document], bool, bool]:
        """Left documents, whether the first rows come from them, and whether there are no others."""
        added = {join.as_ for join in spec.joins}
        by_left = not (spec.expand or any(path.partition(".")[0] in added for path, _ in spec.sort))
        if spec.sort and (self.is_whole or not by_left):
            return self.sample, self.is_whole, self.is_whole
        layout = layout_of(spec).rows.left
        stages: list[Stage] = match_stages(spec.match) + ([{"$sort": dict(spec.sort)}] if spec.sort else [])
        stages += [{"$limit": FIRST_DOCUMENTS}]
        stages += project_stages(None if layout.stored_paths is None else list(layout.stored_paths))
        documents = self._reader.aggregate(spec.left, stages)
        if documents is None:
            return self.sample, False, False
        return documents, True, len(documents) < FIRST_DOCUMENTS

    def _joined(self, spec: JoinSpec, documents: list[Document]) -> tuple[list[Document], bool]:
        """The rows of these left documents, and whether all documents of the other sides that matter were read."""
        complete: list[bool] = []

        def fetch(join: JoinLayout, keys: list[RowKeys]) -> list[Document]:
            found, covered = self._reader.documents(join, keys, SAMPLE_MATCHES)
            complete.append(covered == len(keys))
            return found

        return join_documents(layout_of(spec), documents, fetch, SAMPLE_MATCHES), all(complete)


def one_sided(join: Join) -> Join:
    """The same join without rows for unmatched documents of the other side."""
    return join.model_copy(update={"kind": join.kind_traits.one_sided or join.kind})


def _counted(stats: JoinStats, keys: list[RowKeys], index: KeyIndex) -> JoinStats:
    """The statistics with the matches of rows that have these keys."""
    numbers = [index.matches(row) for row in keys]
    limit = stats.join.limit
    max_key, max_matches = index.most_frequent(keys)
    return replace(
        stats,
        matched=sum(1 for number in numbers if number),
        mean_matches=sum(numbers) / max(1, len(keys)),
        mean_kept=sum(min(number, limit or number) for number in numbers) / max(1, len(keys)),
        other_matched=index.matched_documents(keys),
        max_matches=max_matches,
        max_key=max_key,
    )

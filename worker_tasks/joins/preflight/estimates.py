"""Estimates the result of a join from the statistics of a sample. Pure."""

from dataclasses import dataclass

from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.strategy import Strategy
from worker_tasks.joins.preflight.join_stats import JoinStats
from worker_tasks.joins.preflight.sampling import mean_size
from worker_tasks.joins.spec.spec import Join, JoinSpec

#: Bytes of joined documents that a worker encodes and writes in a second: benchmarks/bulk.py.
WRITTEN_PER_SECOND = 70e6
#: Seconds from submission to result for the shortest join.
MIN_SECONDS = 0.2


@dataclass(frozen=True)
class Estimate:
    """The expected result of a join. ``rates`` holds the share of rows with a match, for each join.

    None stands for a number that the checks could not find in time.
    """

    rows: int | None
    bytes: int | None
    seconds: float | None
    rates: list[float | None]


def estimate(  # noqa: PLR0913, PLR0917 - everything that the checks have found out
    spec: JoinSpec,
    catalog: Catalog,
    joins: list[JoinStats],
    strategy: Strategy | None,
    sample: list[Document],
    expansion: float,
) -> Estimate:
    """Extrapolates from the sample to the whole result.

    Args:
        sample: rows of the left side, with lists expanded.
        expansion: the number of rows that a left document becomes by its expanded lists, on average.
    """
    rates = [None if stats.rate is None else round(stats.rate, 4) for stats in joins]
    left_rows = rows = catalog.left_count * expansion
    size = mean_size([_project(document, spec.fields_) for document in sample])
    for stats in joins:
        if stats.rate is None and rows:
            return Estimate(None, None, None, rates)
        factor, embedded = _growth(stats)
        if _is_shown(stats.join, spec.fields_):
            size += embedded / max(factor, 1e-9) * stats.other.size * _share_of_fields(stats)
        rows *= factor
        if stats.join.kind_traits.keeps_other:
            # Documents of the other side without a match become rows.
            matched = stats.other_matched * max(1.0, left_rows / max(1, stats.rows))
            rows += max(0.0, catalog.filtered_count(spec.side(stats.join), stats.join.match) - matched)
    if spec.limit is not None:
        rows = min(rows, spec.limit)
    total = rows * size
    seconds = None if strategy is None else strategy.seconds + total / WRITTEN_PER_SECOND + MIN_SECONDS
    return Estimate(round(rows), round(total), None if seconds is None else round(seconds, 2), rates)


def _growth(stats: JoinStats) -> tuple[float, float]:
    """The average number of rows produced from one row, and of documents embedded in them."""
    kind, shape, rate = stats.join.kind_traits, stats.join.shape_traits, stats.rate or 0.0
    if kind.excludes_matches:
        return 1 - rate, 0.0
    if not kind.embeds:
        return rate, 0.0
    if shape.repeats_rows:
        return stats.mean_kept + (1 - rate if kind.keeps_left else 0.0), stats.mean_kept
    documents = (rate if shape.takes_one else stats.mean_kept) * stats.per_row
    return 1.0 if kind.keeps_left else rate, documents if shape.holds_documents else 0.0


def repeated(joins: list[JoinStats], expansion: float) -> tuple[float, int | None]:
    """The number of rows in which a left document appears, on average of those that do, and the join that repeats it.

    The join is None if there is more than one cause, or none.
    """
    factor, causes = expansion, [] if expansion <= 1 else [-1]
    for stats in joins:
        if not (stats.join.embeds and stats.join.shape_traits.repeats_rows) or not stats.rate:
            continue
        growth, _ = _growth(stats)
        each = growth if stats.join.kind_traits.keeps_left else growth / stats.rate
        factor *= each
        causes += [stats.number] if each > 1 else []
    return factor, causes[0] if len(causes) == 1 and causes[0] >= 0 else None


def _is_shown(join: Join, fields: list[str] | None) -> bool:
    """Whether the result shows the field that a join adds."""
    if fields is None:
        return True
    target = f"{join.target}."
    return any(f"{field}.".startswith(target) or target.startswith(f"{field}.") for field in fields)


def _project(document: Document, fields: list[str] | None) -> Document:
    """The document with only the top-level fields that contain one of these fields."""
    if fields is None:
        return document
    heads = {field.partition(".")[0] for field in fields}
    return {name: value for name, value in document.items() if name in heads}


def _share_of_fields(stats: JoinStats) -> float:
    """A rough share of an embedded document that the join keeps, judged by its number of fields."""
    if stats.join.fields_ is None:
        return 1.0
    top_level = sum(1 for field in stats.other.fields if "." not in field.path)
    return min(1.0, len(stats.join.fields_) / max(1, top_level))

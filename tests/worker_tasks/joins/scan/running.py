"""Runs scans in tests and compares their rows with the reference."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from typing import Any

import duckdb
from bson import json_util
from kombu.utils.encoding import ensure_bytes

from tests.worker_tasks.joins.reference import Row, canonical
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.reading.progress import Progress
from worker_tasks.joins.scan.scan import Scan, ScanQuery
from worker_tasks.joins.spec.filters import Filter
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results.result_writer import Part, PartWriter, part_key
from worker_tasks.results.summaries import UNMATCHED_ROWS

OPTIONS: json_util.JSONOptions = json_util.JSONOptions(tz_aware=True)


def watched(spec: JoinSpec) -> tuple[str, ...]:
    """The fields of the joins whose rows without a match are of interest."""
    joins = [join for join in spec.joins if join.kind in {"left", "outer"} and join.into is None]
    return tuple(join.as_ for join in joins if join.as_ is not None)


def scanned(
    spec: JoinSpec, duck: duckdb.DuckDBPyConnection, bounds: Filter | None = None
) -> tuple[list[Document], Part]:
    """The rows of a scan, read back from Redis, and their part."""
    writer = PartWriter("property", 0, 10**6, 2**30)
    query = ScanQuery(spec, "dovetail:property", bounds or {}, watched=watched(spec))
    # Temporary tables belong to a cursor, so one database serves all scans.
    with duck.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        Scan(query, writer, Progress(writer, lambda *_: False), cursor, thread).run()
    part = writer.close()
    text = ensure_bytes(connections().results.getdel(part_key("property", 0, part.writer)))
    rows = json_util.loads(text + b"]", json_options=OPTIONS)
    assert part.rows == len(rows)
    return rows, part


def form(row: Document) -> str:
    """A text that is equal for equal rows, whatever the order of their fields and of those in their lists."""
    return repr(canonical(_ordered({name: _ordered(value) for name, value in row.items()})))


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(element) if isinstance(element, dict) else element for element in value]
    return {name: value[name] for name in sorted(value)} if isinstance(value, dict) else value


def stored_form(row: Document) -> str:
    """``form`` after the way through the result."""
    text = json_util.dumps(row, json_options=json_util.RELAXED_JSON_OPTIONS)
    return form(json_util.loads(text, json_options=OPTIONS))


def disagreement(spec: JoinSpec, expected: Sequence[Row], rows: Sequence[Document]) -> str | None:
    """The first difference from the rows of the reference, in their order where the sort determines it."""
    length = len(expected) if spec.limit is None else min(spec.limit, len(expected))
    if len(rows) != length:
        return f"{len(rows)} rows instead of {length}"
    ordered = sorted(expected, key=lambda row: row.sort_key(spec))
    start = 0
    for _, ties in groupby(ordered, key=lambda row: row.sort_key(spec)):
        wanted = Counter(stored_form(row.shown) for row in ties)
        found = Counter(map(form, rows[start : start + wanted.total()]))
        if found - wanted:
            return f"from row {start}: {found - wanted} instead of {wanted - found}"
        start += wanted.total()
    return None


def unmatched_disagreement(spec: JoinSpec, expected: Sequence[Row], rows: Sequence[Document], part: Part) -> str | None:
    """A difference in the rows without a match."""
    if spec.limit is not None and spec.limit < len(expected):
        return None
    for name in watched(spec):
        found = part.unmatched[name]
        lacking = [row for row in expected if name in row.unmatched]
        if found.count != len(lacking) or len(found.rows) != min(found.count, UNMATCHED_ROWS):
            return f"{name}: {found} instead of {len(lacking)} unmatched rows"
        wanted = Counter(stored_form(row.shown) for row in lacking)
        if extra := Counter(form(rows[number]) for number in found.rows) - wanted:
            return f"{name}: {extra} have matches"
    return None


def wrong_columns(spec: JoinSpec, rows: Sequence[Document], part: Part, left: Sequence[Document]) -> set[str]:
    """The columns that the part lacks, and those that neither the rows, the left side nor the joins have."""
    present = {name for row in rows for name in row}
    possible = present | {join.into or join.as_ for join in spec.joins} | {name for row in left for name in row}
    possible |= {each.position for each in spec.expand}
    return present - set(part.columns) | (set(part.columns) - possible)


def ranges(borders: Sequence[Any]) -> Iterator[Filter]:
    """Ranges of ``_id`` between these borders, which together hold everything."""
    yield {"_id": {"$lt": borders[0]}}
    for start, end in pairwise(borders):
        yield {"_id": {"$gte": start, "$lt": end}}
    yield {"_id": {"$gte": borders[-1]}}

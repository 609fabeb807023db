"""Runs one part of a join by the scan method.

The other sides are read first. If they are small, the left side streams through the join batch by batch; otherwise it
is read as well before DuckDB joins, and everything that exceeds the memory limit goes to temporary files.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
from bson import Timestamp

from worker_tasks.infra.errors import JoinFailed, LimitExceeded
from worker_tasks.infra.scratch_database import is_disk_full, open_database
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.layout import JoinLayout, Layout, SideLayout, layout_of
from worker_tasks.joins.reading.batches import ReadFailed, ReadQuery, read_batches, too_long
from worker_tasks.joins.reading.encoding import decode_slices
from worker_tasks.joins.reading.progress import Progress
from worker_tasks.joins.scan import statements
from worker_tasks.joins.scan.background import Background
from worker_tasks.joins.scan.columns import Batch
from worker_tasks.joins.scan.rows import SideRows, key_column, own_key_column
from worker_tasks.joins.scan.statements import Statement
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results.result_writer import NARROW_HINT, Part, PartWriter
from worker_tasks.results.summaries import Unmatched

#: Up to this many documents and bytes on the other sides together, the left side streams.
STREAMED_ROWS, STREAMED_BYTES = 200_000, 32 * 2**20
#: Left rows that are joined at once while they stream.
JOINED_ROWS = 5_000
#: Rows fetched from DuckDB at once.
FETCHED = 5_000
#: Left rows joined at once if some have several keys.
PAIRED_ROWS = 100_000
#: The share of the memory limit that the lists of matches of one hash bucket may take.
BUCKET_SHARE = 0.25
DISK_FULL = "The worker's disk is full. Try again when there is room, or filter either side."


@dataclass(frozen=True)
class ScanQuery:
    """One part of a join.

    ``bounds`` limits the left side, as a filter on ``_id`` in MongoDB's own form. ``comment`` marks every operation,
    and ``snapshots`` holds the cluster time to read at for each source that has one.
    """

    spec: JoinSpec
    comment: str
    bounds: filters.Filter = field(default_factory=dict)
    snapshots: dict[str | None, Timestamp] = field(default_factory=dict)
    watched: tuple[str, ...] = ()


def write_scan(query: ScanQuery, writer: PartWriter, progress: Progress) -> Part:
    """Runs the part and writes every row.

    Rows written before an error stay; ``writer.close()`` returns their number.

    Raises:
        Stopped: the report asked to stop, and nothing works on the part any more.
        ReadFailed: MongoDB is away, refused, or ended a read early.
        LimitExceeded: the settings' limit of rows, bytes, seconds or memory is reached.
        JoinFailed: the worker's disk is full.
        StagingLost, redis.exceptions.RedisError: Redis is away, refuses, or has lost written rows.
    """
    with (
        open_database(settings().reading_memory_mib, settings().join_seconds) as (database, _),
        ThreadPoolExecutor(1, "scan") as thread,
    ):
        scan = Scan(query, writer, progress, database, thread)
        with _named_duckdb_errors():
            try:
                scan.run()
            except ReadFailed:
                # The operation was most likely killed, because the run was told to stop.
                progress.now()
                raise
    return writer.close()


@contextmanager
def _named_duckdb_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        raise too_long() from error
    except duckdb.Error as error:
        if is_disk_full(error):
            raise JoinFailed(DISK_FULL) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            mib = settings().reading_memory_mib
            raise LimitExceeded(f"It needs more than {mib} MiB of memory, which is the limit. {NARROW_HINT}") from error
        raise


class Scan:
    """One run of a scan."""

    def __init__(
        self,
        query: ScanQuery,
        writer: PartWriter,
        progress: Progress,
        database: duckdb.DuckDBPyConnection,
        thread: ThreadPoolExecutor,
    ):
        self._query, self._spec = query, query.spec
        self._writer, self._progress = writer, progress
        self._database, self._duckdb = database, Background(database, thread, progress)
        self._has_joined_rows = False
        self._deadline = time.monotonic() + settings().join_seconds
        self._layout: Layout = layout_of(query.spec)
        rows, lists = self._layout.rows, self._layout.lists
        names = [level.name or "" for level in lists]
        self._left = SideRows(rows.left, rows, names)
        self._elements = [SideRows(level.left, level) for level in lists]
        self._others = {join.number: SideRows(join.other) for join in self._layout.others}
        self._watched = {join.number: join.join.as_ or "" for join in rows.joins if join.join.as_ in query.watched}
        writer.unmatched = {self._watched[number]: Unmatched() for number in sorted(self._watched)}
        self._prepared: set[str] = set()
        self._outer = next((join for join in rows.joins if join.join.kind_traits.keeps_other), None)

    def run(self) -> None:
        """Reads all sides, joins them and writes the rows."""
        try:
            self._run()
        except BaseException:
            self._duckdb.interrupt()
            raise

    def _run(self) -> None:
        for join in self._layout.others:
            self._read_other(join)
        self._create("left_rows", self._left)
        for place, rows in enumerate(self._elements):
            self._create(statements.ELEMENTS.format(place), rows)
        if self._outer is not None:
            self._execute("CREATE TEMP TABLE used (n BIGINT)")
        self._read_left()
        if self._outer is not None and not self._is_finished():
            other = statements.other_table(self._outer)
            self._execute(
                f"CREATE TEMP TABLE {statements.UNMATCHED} AS SELECT o.* FROM {other} o ANTI JOIN used u ON o.n = u.n"
            )
            later = frozenset(join.number for join in self._layout.rows.joins[1:]) & self._paired()
            self._prepare(self._layout.rows.joins[1:], later)
            self._emit(Statement(self._layout, frozenset(self._watched), later).unmatched_other())
        if self._spec.sort:
            self._write_sorted()
        self._duckdb.settle()
        self._note_columns()

    # Reading

    def _read_other(self, join: JoinLayout) -> None:
        rows, table = self._others[join.number], statements.other_table(join)
        self._create(table, rows)
        for documents, non_finite in self._documents(join.other, self._other_bounds(join)):
            self._insert(table, rows.rows(documents, non_finite))

    def _other_bounds(self, join: JoinLayout) -> filters.Filter | None:
        """The range of keys that can match the left documents of this part, if the join is by their ``_id``."""
        (pair, *more) = join.join.on
        plain = not more and pair.local == "_id" and pair.cast is None and pair.fold is None
        if not (self._query.bounds and plain) or join.join.into is not None:
            return None
        return {pair.foreign: self._query.bounds["_id"]}

    def _read_left(self) -> None:
        streams = self._streams()
        joined = 0
        for documents, non_finite in self._documents(self._layout.rows.left, self._query.bounds or None):
            self._insert_left(self._layout.rows.left.expanded(documents), non_finite)
            # The first rows appear early; after that, larger batches need fewer statements.
            if streams and self._left.count - joined >= min(joined, JOINED_ROWS):
                self._join_inserted(streams=True)
                if not joined:
                    self._duckdb.settle()
                joined = self._left.count
                if self._is_finished():
                    return
        self._join_inserted(streams=streams)

    def _streams(self) -> bool:
        others = self._others.values()
        return (
            sum(each.count for each in others) <= STREAMED_ROWS and sum(each.size for each in others) <= STREAMED_BYTES
        )

    def _documents(self, side: SideLayout, bounds: filters.Filter | None) -> Iterator[tuple[list[Any], bool]]:
        query = ReadQuery(
            side.side,
            side.pipeline(bounds),
            self._query.comment,
            self._deadline,
            self._query.snapshots.get(side.side.source),
        )
        with closing(read_batches(query)) as batches:
            for batch, _ in batches:
                for documents, non_finite in decode_slices(batch):
                    yield documents, non_finite
                    self._progress.tick()

    def _insert_left(self, documents: list[Any], non_finite: bool) -> None:
        if not documents:
            return
        first = self._left.count
        batch = self._left.rows(documents, non_finite)
        self._drop_joined_rows()
        self._insert(statements.LEFT, batch)
        for place, rows in enumerate(self._elements):
            name = rows.level.name if rows.level is not None else None
            found = [
                (first + number, element)
                for number, document in enumerate(documents)
                if isinstance(held := document.get(name), list)
                for element in held
                if isinstance(element, dict) or not rows.layout.projections
            ]
            if found:
                batch = rows.rows([element for _, element in found], non_finite, [number for number, _ in found])
                self._insert(statements.ELEMENTS.format(place), batch)

    def _create(self, table: str, rows: SideRows) -> None:
        columns = ", ".join(f"{name} {type_}" for name, type_ in rows.types.items())
        self._execute(f"CREATE TEMP TABLE {table} ({columns})")

    def _insert(self, table: str, batch: Batch) -> None:
        """Inserts rows while the next ones are read."""

        def insert() -> None:
            self._database.register("batch", batch)
            self._database.execute(f"INSERT INTO {table} SELECT * FROM batch")
            self._database.unregister("batch")

        self._duckdb.start(insert)

    # Joining

    def _join_inserted(self, *, streams: bool) -> None:
        """Joins the left rows inserted since the last call and writes the result."""
        self._drop_joined_rows()
        paired = self._paired()
        self._prepare(self._layout.others, paired)
        if self._outer is not None:
            self._execute(statements.used_other(self._outer, is_paired=self._outer.number in paired))
        sorted_matches = any(
            join.other.match_sort and join.join.shape_traits.repeats_rows for join in self._layout.others
        )
        ordered = not self._spec.sort and (streams or sorted_matches)
        for numbers in self._ranges(streams=streams, paired=paired):
            if self._is_finished():
                break
            self._emit(Statement(self._layout, frozenset(self._watched), paired).result(numbers, ordered=ordered))
        self._has_joined_rows = True

    def _drop_joined_rows(self) -> None:
        if not self._has_joined_rows:
            return
        self._has_joined_rows = False
        self._execute(f"TRUNCATE {statements.LEFT}")
        for place in range(len(self._elements)):
            self._execute(f"TRUNCATE {statements.ELEMENTS.format(place)}")

    def _ranges(self, *, streams: bool, paired: frozenset[int]) -> list[tuple[int, int] | None]:
        """The ranges of left rows to join at once; None stands for all."""
        if streams or not (paired or self._elements):
            return [None]
        return [(start, start + PAIRED_ROWS) for start in range(0, self._left.count, PAIRED_ROWS)]

    def _paired(self) -> frozenset[int]:
        """The joins in which a document has several keys."""
        return frozenset(join.number for join in self._layout.others if self._is_paired(join))

    def _is_paired(self, join: JoinLayout) -> bool:
        if len(join.join.on) > 1:
            return False
        own, left = own_key_column(join.other.own_keys[0]), f"k{join.number}_0"
        if own in self._others[join.number].with_lists:
            return True
        for side in (self._left, *self._elements):
            if left in side.with_lists:
                return True
        for earlier in self._layout.others:
            if left in {key_column(key) for key in earlier.other.onward_keys}:
                holds_list = earlier.join.embeds and earlier.join.shape_traits.holds_list
                return holds_list or left in self._others[earlier.number].with_lists
        return False

    def _prepare(self, joins: Sequence[JoinLayout], paired: frozenset[int]) -> None:
        """Makes the tables that the steps of these joins read, unless they exist."""
        for join in joins:
            is_paired = join.number in paired
            table = statements.keys_table(join) if is_paired else statements.matches_table(join)
            if table not in self._prepared:
                self._create_from(table, [statements.keys(join)] if is_paired else self._match_statements(join))

    def _create_from(self, table: str, selects: Sequence[str]) -> None:
        first, *more = selects
        self._execute(f"CREATE TEMP TABLE {table} AS {first}")
        for select in more:
            self._execute(f"INSERT INTO {table} {select}")
        self._prepared.add(table)

    def _match_statements(self, join: JoinLayout) -> list[str]:
        """The statements whose rows are the matches for each key. Lists of matches must fit into memory."""
        limit = settings().reading_memory_mib * 2**20 * BUCKET_SHARE
        count = 1 + int(self._others[join.number].size // limit)
        if not (join.join.embeds and join.join.shape_traits.holds_list) or count == 1:
            return [statements.matches(join)]
        return [statements.matches(join, (number, count)) for number in range(count)]

    # Writing

    def _emit(self, statement: str) -> None:
        """Writes the rows of a statement; keeps them for later if the result is sorted."""
        if self._spec.sort:
            if "result_rows" in self._prepared:
                self._execute(f"INSERT INTO result_rows {statement}")
            else:
                self._execute(f"CREATE TEMP TABLE result_rows AS {statement}")
                self._prepared.add("result_rows")
            return
        self._write(statement)

    def _write_sorted(self) -> None:
        if "result_rows" not in self._prepared:
            return
        order = ", ".join(f"g{number}" for number in statements.sort_numbers(self._layout))
        columns = ", ".join(["d", *(f"u{number}" for number in sorted(self._watched))])
        limit = "" if self._spec.limit is None else f" LIMIT {self._spec.limit}"
        self._write(f"SELECT {columns} FROM result_rows ORDER BY {order}{limit}")

    def _write(self, statement: str) -> None:
        """Writes the rows of a statement. DuckDB prepares the first ones while the next left rows are read."""

        def start() -> tuple[duckdb.DuckDBPyConnection, list[Any]]:
            result = self._database.execute(statement)
            return result, result.fetchmany(FETCHED)

        self._duckdb.start(start, self._write_rows)

    def _write_rows(self, started: tuple[duckdb.DuckDBPyConnection, list[Any]]) -> None:
        result, rows = started
        watched = [self._watched[number] for number in sorted(self._watched)]
        while rows:
            if self._spec.limit is not None:
                rows = rows[: self._spec.limit - self._writer.rows]
            first = self._writer.rows
            try:
                self._writer.append([b"{" + row[0][1:].encode() + b"}" for row in rows])
            finally:
                written = self._writer.rows - first
                for place, name in enumerate(watched, start=1):
                    found = [first + number for number, row in enumerate(rows[:written]) if row[place]]
                    self._writer.unmatched[name].add(found)
            self._progress.tick()
            if self._is_finished():
                return
            rows = self._duckdb.wait(lambda: result.fetchmany(FETCHED))

    def _is_finished(self) -> bool:
        if self._spec.limit is None or self._spec.sort:
            return False
        self._duckdb.settle()
        return self._writer.rows >= self._spec.limit

    def _note_columns(self) -> None:
        columns = self._writer.columns
        columns.update(self._left.fields)
        for level in self._layout.lists:
            if level.left.is_kept:
                columns[level.name or ""] = None
        for join in self._layout.rows.joins:
            if join.shows_field:
                columns[join.join.as_ or ""] = None

    # DuckDB

    def _execute(self, statement: str) -> None:
        self._duckdb.wait(lambda: self._database.execute(statement))

"""Results with values of all types, and helpers that build their artifacts and read them independently."""

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from celery import states

from tests.support import publish
from tests.worker_tasks.support import UNATTENDED, new_id
from worker_tasks.analysis import artifacts, engine, export_selection, reader, result_table, row_order
from worker_tasks.analysis.artifacts import Artifact, ArtifactKind, ArtifactSpec, ArtifactState
from worker_tasks.analysis.profiles import Column, Profile
from worker_tasks.analysis.result_table import ResultTable
from worker_tasks.analysis.row_query import RowQuery
from worker_tasks.analysis.tasks import derive
from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger
from worker_tasks.results import result_store
from worker_tasks.results.formats import FORMATS
from worker_tasks.results.summaries import Summary

EVERYTHING = RowQuery()
#: Texts with a special meaning in JSON, CSV, SQL, XML or spreadsheets.
TEXTS = [
    "",
    " ",
    "plain",
    "Plain",
    'say "hi"',
    "it's",
    "a,b;c\td",
    "two\nlines",
    "two\r\nlines",
    ",\n",
    '},\n{"_id":1',
    "]",
    "null",
    "true",
    "12",
    "-5",
    "zoë",
    "日本語",
    "👩‍🚀 emoji",
    "nul\x00inside",
    "\x1funit",
    "back\\slash",
    "<b>&amp;</b>",
    "_x0041_",
    "ends with a space ",
    "=1+1",
    "+49 40",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "$oid",
    "1e5",
]
#: Field names with a special meaning in JSON, JSON pointers, SQL or the code under test.
NAMES = [
    "",
    " ",
    "with space",
    'quo"te',
    "it's",
    "sl/ash",
    "til~de",
    "~1",
    "~0",
    "$price",
    "dot.ted",
    ".",
    "Name",
    "name",
    "NAME",
    "number",
    "place",
    "c0",
    "n0",
    "c1",
    "level0_0",
    "json",
    "rows",
    "rowid",
    "was",
    "key",
    "0",
    "*",
    "[0]",
    "=cmd()",
    "comma,",
    "new\nline",
    "ünï",
    "👩‍🚀",
    "select",
    "provenance",
    "nothing",
]


def result(documents: Sequence[Document], parts: int = 1, ttl_seconds: int = 300) -> Summary:
    """Publishes documents as a new result."""
    return publish(documents, f"result {new_id()}", new_id(), ttl_seconds, parts=parts)


def value(summary: Summary) -> bytes:
    """The stored bytes of a result."""
    stored: Any = connections().results.get(summary.key)
    return stored


def keys(pattern: str) -> set[str]:
    """The keys in Redis that match a pattern."""
    matching: Any = connections().results.keys(pattern)
    return {each.decode() for each in matching}


@dataclass(frozen=True)
class Built:
    """A table that is open as ``shown``."""

    table: ResultTable
    database: duckdb.DuckDBPyConnection

    @property
    def profile(self) -> Profile:
        return self.table.profile

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.profile.columns]

    def column(self, name: str) -> Column:
        return self.profile.columns[self.profile.index_of(name)]

    def values(self, name: str) -> list[Any]:
        """All values of a column, in the order of their rows."""
        return self.select(f"c{self.profile.index_of(name)}")

    def numbers(self, query: RowQuery) -> list[int]:
        """The row numbers of a query, in its order."""
        return reader.unpack_numbers(b"".join(row_order.row_numbers(self.database, self.profile, query)))

    def select(self, expression: str) -> list[Any]:
        sql = f"SELECT {expression} FROM shown ORDER BY number"  # noqa: S608 - only tests call it
        return [each for (each,) in self.database.execute(sql).fetchall()]


@contextmanager
def built(documents: Sequence[Document], parts: int = 1) -> Iterator[Built]:
    """Builds and opens the table of a result with these documents."""
    with engine.open_database() as (database, folder):
        table = result_table.build_table(result(documents, parts), database, folder)
        rows = f"read_parquet('{table.file}', file_row_number=true)"
        database.execute(f"CREATE VIEW shown AS SELECT *, file_row_number AS number FROM {rows}")  # noqa: S608 - as above
        yield Built(table, database)


def build(summary: Summary, spec: ArtifactSpec) -> None:
    """Runs the worker's task for an artifact."""
    derive(summary.key, summary.task_id, summary.run, str(spec.kind), spec.options)


def built_artifact(summary: Summary, spec: ArtifactSpec) -> Artifact:
    """Builds an artifact and returns its state."""
    build(summary, spec)
    artifact = artifacts.find_artifact(summary, spec)
    assert artifact is not None
    return artifact


def state_of(summary: Summary, spec: ArtifactSpec = artifacts.TABLE) -> ArtifactState | None:
    """The state of an artifact; None if there is none."""
    artifact = artifacts.find_artifact(summary, spec)
    return artifact.state if artifact else None


def with_table(documents: Sequence[Document], parts: int = 1, **fields: Any) -> Summary:
    """Publishes a result, records its task and builds its table."""
    summary = result(documents, parts)
    record(summary, **fields)
    assert built_artifact(summary, artifacts.TABLE).is_done
    return summary


def record(summary: Summary, **fields: Any) -> None:
    """Inserts the document of the task that produced a result into MongoDB."""
    connections().tasks.insert_one(
        ledger.new_document(summary.task_id, "tests.join", ["u1"], queue=UNATTENDED, metadata={"reason": "audit"})
        | {"status": states.SUCCESS, "result": json.dumps(summary.outcome), "started_at": summary.published_at}
        | fields
    )


def numbers(summary: Summary, query: RowQuery) -> list[int]:
    """The row numbers of a query, in its order. Also reads and checks each row."""
    order = built_artifact(summary, reader.row_order_spec(query))
    assert order.is_done, order
    count = order.data["rows"]
    rows = [row for first in range(0, count, 100) for row in reader.read_rows(summary, query, first, 100)]
    assert len(rows) == count
    documents = json.loads(value(summary))
    assert all(row.document == documents[row.number] for row in rows)
    return [row.number for row in rows]


def file(
    summary: Summary,
    format_name: str,
    query: RowQuery = EVERYTHING,
    columns: Sequence[str] = (),
    *,
    embed_provenance: bool = False,
) -> bytes:
    """Exports a result and returns the uncompressed file."""
    selection = export_selection.Selection(query, tuple(columns))
    spec = export_selection.export_spec(summary.task_id, format_name, selection, embed_provenance=embed_provenance)
    assert spec.kind is ArtifactKind.FILE
    exported = built_artifact(summary, spec)
    assert exported.is_done, exported
    stored = b"".join(artifacts.read_artifact(summary, spec, "file", exported.data["stored"]))
    data = gzip.decompress(stored) if FORMATS[format_name].is_text else stored
    assert len(data) == exported.data["size"]
    return data


def rows_of(summary: Summary) -> list[Document]:
    """The rows of a result, parsed from its JSON."""
    rows: list[Document] = json.loads(value(summary))
    assert summary.count == len(rows)
    return rows


def random_documents(seed: int, count: int) -> list[Document]:
    """Documents in random order of fields. Each column has one type, with some null or missing values."""
    chance = random.Random(seed)

    def some(make: Any) -> Any:
        return None if chance.random() < 0.1 else make()

    def double() -> float:
        special = [0.0, -0.0, 0.1, 1e300, -1e300, 5e-324, 1e-7, float("nan"), float("inf"), float("-inf"), 2.5]
        return chance.choice([*special, chance.uniform(-50, 50), float(chance.randrange(5))])

    def exact() -> Decimal128:
        digits = "".join(chance.choice("0123456789") for _ in range(33))
        special = ["1.10", "1.1", "0", "-0", "1E+3", "1E-10", "-7.5", "NaN", "Infinity", f"1.{digits}", f"-{digits}7"]
        return Decimal128(chance.choice([*special, f"{chance.uniform(-9, 9):.2f}"]))

    def date() -> Any:
        near = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(9999), milliseconds=250)
        far = [-62_135_596_800_000, 253_402_300_800_000, -1, 0, 999, -86_400_000]
        return chance.choice([near, near.replace(microsecond=0), *map(DatetimeMS, far)])

    def nested() -> Document:
        inner: Document = {"deep": {"er": chance.choice(TEXTS)}, "n": chance.randrange(9)}
        return chance.choice([{}, {"n": chance.randrange(9)}, inner, {"only": {}}])

    columns: dict[str, Any] = {
        "id": lambda: ObjectId(f"{chance.getrandbits(96):024x}"),
        "text": lambda: chance.choice(TEXTS),
        "whole": lambda: chance.choice([chance.randrange(-9, 9), Int64(2**63 - 1), Int64(-(2**63)), Int64(2**53 + 1)]),
        "double": double,
        "either": lambda: chance.choice([double(), chance.randrange(-9, 9)]),
        "exact": exact,
        "flag": lambda: chance.random() < 0.5,
        "date": date,
        "list": lambda: chance.choice([[], [1], [{"a": None}], ["x", 2, [True, None]], TEXTS[:6]]),
        "doc": nested,
        "mixed": lambda: chance.choice([1, "one", '"', True, [1], {"a": 1}, ObjectId("65a000000000000000000001"), 1.5]),
        "nothing": lambda: None,
    }
    documents = []
    for number in range(count):
        document: Document = {"_id": number}
        names = list(columns)
        chance.shuffle(names)
        for name in names:
            if chance.random() < 0.85:
                document[name] = some(columns[name])
        documents.append(document)
    return documents


def older_and_newer(older: Sequence[Document], newer: Sequence[Document]) -> tuple[Summary, Summary]:
    """Publishes two results of recorded tasks and builds their tables."""
    first, second = with_table(older), with_table(newer)
    assert result_store.find_result(first.key) == first
    return first, second

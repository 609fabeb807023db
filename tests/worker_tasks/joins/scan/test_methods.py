"""Random joins give the rows of the plain Python reference by every method."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pytest
from bson import json_util
from kombu.utils.encoding import ensure_bytes
from pymongo.database import Database

from tests.worker_tasks.joins.random_joins import random_documents, random_spec, unordered
from tests.worker_tasks.joins.reference import joined
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.scratch_database import open_database
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.strategy import JoinMethod, Step, Strategy, allows_lookup
from worker_tasks.joins.reading.progress import Progress
from worker_tasks.joins.scan.scan import Scan, ScanQuery
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results.result_writer import PartWriter, part_key

DATA_SETS, SPECS = 60, 60

OPTIONS: json_util.JSONOptions = json_util.JSONOptions(tz_aware=True)


@pytest.fixture(scope="module")
def database(servers: None) -> Database[Document]:
    return connections().joins.property


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(256, 300) as (connection, _):
        yield connection


def rows_by_lookup(spec: JoinSpec, step: Step, database: Database[Document]) -> list[Document]:
    strategy = Strategy(JoinMethod.LOOKUP, 0, None, tuple(step for _ in spec.joins))
    return list(database[spec.from_].aggregate(compile_pipeline(spec, strategy), allowDiskUse=True))


def rows_by_scan(spec: JoinSpec, duck: duckdb.DuckDBPyConnection) -> list[Document]:
    """The rows of a scan, read back from Redis."""
    writer = PartWriter("property", 0, 10**6, 2**30)
    # Temporary tables belong to a cursor, so one database serves all scans.
    with duck.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        Scan(ScanQuery(spec, "dovetail:property"), writer, Progress(writer, lambda *_: False), cursor, thread).run()
    part = writer.close()
    text = ensure_bytes(connections().results.getdel(part_key("property", 0, part.writer)))
    rows = json_util.loads(text + b"]", json_options=OPTIONS)
    assert part.rows == len(rows)
    return rows


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_every_method_gives_the_rows_of_the_reference(
    seed: int, database: Database[Document], duck: duckdb.DuckDBPyConnection
) -> None:
    rng = random.Random(seed)
    data = {name: random_documents(rng, name) for name in "lfg"}
    for name, stored in data.items():
        database.drop_collection(name)
        database[name].insert_many([dict(document) for document in stored])
    for _ in range(SPECS):
        spec = random_spec(rng)
        expected = unordered([dict(row) for row in joined(spec, data)], spec)
        assert unordered(rows_by_scan(spec, duck), spec) == expected, f"{spec.canonical()}\n{data}"
        if allows_lookup(spec):
            rows = unordered(rows_by_lookup(spec, Step(), database), spec)
            assert rows == expected, f"{spec.canonical()}\n{data}"


def test_the_random_joins_cover_every_method_kind_and_shape() -> None:
    covered: Counter[tuple[Any, ...]] = Counter()
    for seed in range(DATA_SETS):
        rng = random.Random(seed)
        for name in "lfg":
            random_documents(rng, name)
        for _ in range(SPECS):
            spec = random_spec(rng)
            covered[allows_lookup(spec), spec.joins[0].kind, spec.joins[0].shape] += 1
    for kind in ("left", "inner"):
        for shape in ("array", "rows", "first", "count"):
            assert covered[True, kind, shape] > 10
            assert covered[False, kind, shape] > 10
    assert all(covered[False, "outer", shape] > 10 for shape in ("array", "rows", "first"))
    assert covered[True, "semi", "array"] > 50
    assert covered[True, "anti", "array"] > 50

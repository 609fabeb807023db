"""A DuckDB database and a MongoDB database for scans."""

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.scan.running import scanned
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.scratch_database import open_database
from worker_tasks.joins.spec.spec import parse

Rows = Callable[..., list[Document]]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database(256, 300) as (connection, _):
        yield connection


@pytest.fixture
def scans(servers: None) -> Iterator[Database[Document]]:
    """An empty database."""
    database = connections().joins["scans"]
    yield database
    connections().joins.drop_database("scans")


@pytest.fixture
def scan_rows(scans: Database[Document], duck: duckdb.DuckDBPyConnection) -> Rows:
    """Calls a scan of the database with the fields of a description; gives its rows."""

    def rows(from_: str, *joins: Any, **fields: Any) -> list[Document]:
        spec = parse({"database": scans.name, "from": from_, "joins": list(joins), **fields})
        return scanned(spec, duck)[0]

    return rows

"""A scratch database for property tests."""

from collections.abc import Iterator

import pytest
from pymongo.database import Database

from worker_tasks.infra.connections import Document, connections


@pytest.fixture(scope="session")
def scratch(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins["matching"]
    yield database
    connections().joins.drop_database("matching")

"""Collections that several tests of joins share."""

from collections.abc import Iterator

import pytest
from pymongo.database import Database

from tests.worker_tasks.joins.preflight.check_support import COLLECTIONS, NAME
from worker_tasks.infra.connections import Document, connections


@pytest.fixture(scope="session")
def wrong_collections(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins[NAME]
    for name, documents in COLLECTIONS.items():
        database[name].insert_many(documents)
    database.create_collection("empty")
    database.indexed.create_index([("userId", 1), ("other", 1)])
    yield database
    connections().joins.drop_database(NAME)

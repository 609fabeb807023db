"""The real servers, worker and web process that all tests share, started once in each pytest worker."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import AliasChoices
from pymongo import MongoClient
from pymongo.database import Database

from development.samples.loading import load
from development.samples.shop import TABLES
from development.servers import REPLICA_SET, Server, free_port, start_mongodb, start_redis
from tests.support import ROOT, Process
from webapp.application import create_app
from worker_tasks import release
from worker_tasks.infra.connections import Document, close_connections, connections
from worker_tasks.infra.settings import Settings, settings


def environment_variables() -> list[Any]:
    """Returns every environment variable that the settings read."""
    names: list[Any] = [name for name in os.environ if name.startswith("SOURCE_")]
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names += alias.choices if isinstance(alias, AliasChoices) else [alias]
    return names


BIG_USERS = 4_000
#: The share of the run after which a folder's last file starts. Slow folders start early, so that workers end together.
ENDS = {"soak": 0.0, "faults": 0.8, "browser": 0.8, "development": 0.8}
REDIS_PORT = free_port()
MONGODB_PORT = free_port()

# This is not in a fixture, because pytest inspects imported objects during collection, and the first access to a
# Celery task makes its application read and cache the settings.
for name in environment_variables():
    os.environ.pop(name, None)
#: The MongoDB of `bin/test --mongodb-uri`; None if the tests start their own.
GIVEN_MONGODB_URI = os.environ.pop("TEST_MONGODB_URI", None)
os.environ |= {
    "REDIS_URL": f"redis://127.0.0.1:{REDIS_PORT}",
    "MONGODB_URI": GIVEN_MONGODB_URI or f"mongodb://127.0.0.1:{MONGODB_PORT}/?replicaSet={REPLICA_SET}",
    "SECRET_KEY": "only for tests",
    "COOKIES_SECURE": "false",
    # Long enough that a page polling every second sees the task running.
    "LONG_TASK_SECONDS": "3",
    "VISIBILITY_TIMEOUT_SECONDS": "6",
    # The reconciler's tests call it directly; in other tests it would repair the state that they break on purpose.
    "RECONCILE_SECONDS": "3600",
    "WORKER_SOFT_SHUTDOWN_SECONDS": "1",
    "JOIN_DATABASES": "shop,big,flights",
    "PART_DOCUMENTS": "1000",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Interleaves the files of the folders in parallel runs, because some tests mostly wait and others compute."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[str, list[Path]] = {}
    for path in dict.fromkeys(item.path for item in items):
        folder = path.relative_to(ROOT / "tests").parts[0]
        files.setdefault(folder, []).append(path)
    starts = {
        path: ENDS.get(folder, 1.0) * number / len(paths)
        for folder, paths in files.items()
        for number, path in enumerate(paths)
    }
    items.sort(key=lambda item: starts[item.path])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_redis(tmp_path_factory.mktemp("redis"), REDIS_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MongoDB that tests can stop and start."""
    if GIVEN_MONGODB_URI is not None:
        pytest.skip("needs a MongoDB that the tests may stop")
    with start_mongodb(tmp_path_factory.mktemp("mongodb"), MONGODB_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def servers(redis_server: Server, request: pytest.FixtureRequest) -> Iterator[None]:
    """Redis and MongoDB at the URLs in this process's settings, with all indexes."""
    if GIVEN_MONGODB_URI is None:
        request.getfixturevalue("mongodb_server")
    else:
        require_empty(GIVEN_MONGODB_URI)
    release.ensure_indexes()
    yield
    if GIVEN_MONGODB_URI is not None:
        for database in databases_of(GIVEN_MONGODB_URI):
            connections().joins.drop_database(database)
    close_connections()


def require_empty(uri: str) -> None:
    """Refuses a server that holds data, because the tests drop all of its databases at the end."""
    if found := databases_of(uri):
        pytest.exit(f"--mongodb-uri needs an empty server; this one has {', '.join(found)}.", returncode=2)


def databases_of(uri: str) -> list[str]:
    with MongoClient[Document](uri, timeoutMS=5000) as client:
        return [name for name in client.list_database_names() if name not in {"admin", "config", "local"}]


@pytest.fixture(scope="session")
def shop(servers: None) -> Database[Document]:
    """The sample users and orders."""
    database = connections().joins[settings().join_database]
    for table in TABLES:
        database[table.name].insert_many(table.documents())
    return database


@pytest.fixture(scope="session")
def big(servers: None) -> Database[Document]:
    """Enough users and orders to be joined in several parts."""
    database = connections().joins.big
    database.users.insert_many([{"_id": number, "name": f"user {number}"} for number in range(BIG_USERS)])
    orders = [
        {"_id": number, "userId": number * 7 % BIG_USERS, "amount": number % 99} for number in range(3 * BIG_USERS)
    ]
    database.orders.insert_many(orders)
    database.orders.create_index("userId")
    return database


@pytest.fixture(scope="session")
def flights(shop: Database[Document]) -> Database[Document]:
    """The sample flights, all five tables."""
    load(settings().mongodb_uri, ["flights"])
    return connections().joins.flights


@pytest.fixture
def no_tasks(servers: None) -> None:
    """Deletes all task documents."""
    connections().tasks.delete_many({})


@pytest.fixture(scope="session")
def worker(shop: Database[Document], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The Procfile's worker, on the default queues; a task sent to any other queue keeps waiting."""
    process = Process("worker", tmp_path_factory.mktemp("worker") / "worker.log", "--concurrency 2")
    process.wait_for_line("ready.")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def app(servers: None) -> Flask:
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Flask's test client, which calls the application without a network."""
    return app.test_client()


@pytest.fixture(scope="session")
def address(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the Procfile's web process."""
    port = free_port()
    log = tmp_path_factory.mktemp("web") / "web.log"
    process = Process("web", log, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}")
    process.wait_for_line("Booting worker")
    yield f"http://127.0.0.1:{port}"
    process.stop()

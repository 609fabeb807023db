"""The servers, the worker and the web process that the tests share: real ones, started once for all of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import AliasChoices
from pymongo.database import Database

from development.samples.shop import TABLES
from development.servers import Server, free_port, start_mongodb, start_redis
from tests.support import Process
from webapp.application import create_app
from worker_tasks import ledger
from worker_tasks.connections import Document, close_connections, connections
from worker_tasks.settings import Settings, settings


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_mongodb(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture(scope="session")
def servers(redis_server: Server, mongodb_server: Server) -> Iterator[None]:
    """Settings of this process, and of those it starts, that name servers of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in environment_variables():
            patch.delenv(name, raising=False)
        for name, value in {
            "REDIS_URL": redis_server.url,
            "MONGODB_URI": mongodb_server.url,
            "SECRET_KEY": "only for tests",
            "COOKIES_SECURE": "false",
            "LONG_TASK_SECONDS": "1",
            "VISIBILITY_TIMEOUT_SECONDS": "6",
            # The tests of the reconciler ask for it themselves; in all others it would mend what they break.
            "RECONCILE_SECONDS": "3600",
            "WORKER_SOFT_SHUTDOWN_SECONDS": "1",
        }.items():
            patch.setenv(name, value)
        settings.cache_clear()
        ledger.ensure_indexes()
        yield
        close_connections()
    settings.cache_clear()


def environment_variables() -> list[Any]:
    """Every name that the settings read, so that none leaks in from where the tests run."""
    names: list[Any] = []
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        names += alias.choices if isinstance(alias, AliasChoices) else [alias]
    return names


@pytest.fixture(scope="session")
def shop(servers: None) -> Database[Document]:
    """The sample users and orders."""
    for table in TABLES:
        connections().join_database[table.name].insert_many(table.documents())
    return connections().join_database


@pytest.fixture
def no_tasks(servers: None) -> None:
    """An empty list of tasks."""
    connections().tasks.delete_many({})


@pytest.fixture(scope="session")
def worker(shop: Database[Document], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A worker of the Procfile on the default queue; what is sent to another one waits."""
    process = Process("worker", tmp_path_factory.mktemp("worker") / "worker.log", "--concurrency 2")
    process.wait_for_line("ready.")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def app(servers: None) -> Flask:
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without JavaScript, or a program: the web application without a network between."""
    return app.test_client()


@pytest.fixture(scope="session")
def address(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The web process of the Procfile; where it is."""
    port = free_port()
    log = tmp_path_factory.mktemp("web") / "web.log"
    process = Process("web", log, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}")
    process.wait_for_line("Booting worker")
    yield f"http://127.0.0.1:{port}"
    process.stop()

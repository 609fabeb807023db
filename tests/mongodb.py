"""Further MongoDB servers: standalone, with access control, or with two members; and settings that name them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from development.programs import find_mongod, mongod_environment
from development.servers import HOST, Server, free_port
from tests.support import eventually
from worker_tasks.infra import connections
from worker_tasks.infra.settings import settings

PASSWORD = "secret"  # noqa: S105 - of users that exist only during the test
Client = pymongo.MongoClient[dict[str, Any]]


@contextmanager
def mongod(folder: Path, *options: str) -> Iterator[Server]:
    """A mongod with these options, standalone unless they say otherwise."""
    port, program = free_port(), find_mongod()
    (folder / "data").mkdir(parents=True)
    command = [program, "--bind_ip", HOST, "--port", str(port), "--dbpath", str(folder / "data"), "--nounixsocket"]
    command += ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false", *options]
    with (folder / "mongod.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=mongod_environment(program, folder))
    with Server("MongoDB", f"mongodb://{HOST}:{port}/", port, process) as server:
        with Client(HOST, port, timeoutMS=2000, directConnection=True) as client:
            eventually(lambda: _answers(client))
        yield server


def _answers(client: Client) -> bool:
    try:
        return bool(client.admin.command("ping"))
    except PyMongoError:
        return False


@contextmanager
def restricted_mongod(folder: Path, *options: str, **users: list[Any]) -> Iterator[Server]:
    """A mongod with access control: a user ``root``, and these users with their roles. All share one password."""
    with mongod(folder, "--auth", *options) as server:
        with Client(HOST, server.port, directConnection=True) as client:
            if "--replSet" in options:
                _initiate(client, options[-1], server)
            eventually(lambda: client.admin.command("hello")["isWritablePrimary"])
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with Client(uri_as("root", server)) as client:
            for name, roles in users.items():
                client.admin.command("createUser", name, pwd=PASSWORD, roles=roles)
        yield server


def _initiate(client: Client, name: str, *servers: Server) -> None:
    """Makes a replica set of these servers, of which the first one becomes the primary."""
    members = [
        {"_id": number, "host": f"{HOST}:{server.port}", "priority": int(number == 0)}
        for number, server in enumerate(servers)
    ]
    client.admin.command("replSetInitiate", {"_id": name, "members": members})


@contextmanager
def restricted_replica_set(folder: Path, **users: list[Any]) -> Iterator[Server]:
    """Like :func:`restricted_mongod`, but the only member of a replica set, so that it has snapshots."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text("onlyfortests" * 4)
    with restricted_mongod(folder, "--keyFile", str(key), "--replSet", "restricted", **users) as server:
        yield server


def uri_as(user: str, server: Server, password: str = PASSWORD) -> str:
    return f"mongodb://{user}:{password}@{HOST}:{server.port}/?authSource=admin&retryWrites=false"


@contextmanager
def two_members(folder: Path) -> Iterator[str]:
    """The URL of a replica set of a primary and a secondary."""
    with mongod(folder / "one", "--replSet", "two") as one, mongod(folder / "two", "--replSet", "two") as two:
        with Client(HOST, one.port, directConnection=True) as client:
            _initiate(client, "two", one, two)
        url = f"mongodb://{HOST}:{one.port},{HOST}:{two.port}/?replicaSet=two"
        with Client(url) as client:
            eventually(lambda: client.primary and client.secondaries, within=60)
        yield url


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Sets environment variables during the block, with settings and clients of its own; others stay as they are."""
    outer = connections._by_process.pop(os.getpid(), None)
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in values.items():
                environment.setenv(name, value)
            settings.cache_clear()
            yield
    finally:
        settings.cache_clear()
        connections.close_connections()
        if outer is not None:
            connections._by_process[os.getpid()] = outer

"""A MongoDB user with too few privileges: pages and probes name the missing one."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from development.programs import find_mongod, mongod_environment
from development.servers import HOST, free_port
from tests.faults.test_web_answers import get, post_json
from tests.support import Process, eventually

pytestmark = pytest.mark.timeout(120)

PASSWORD = "secret"  # noqa: S105 - of users that exist only during the test
PAIRS = [{"local": "_id", "foreign": "x"}]
READER = {"role": "read", "db": "shop"}
WRITER = {"role": "readWrite", "db": "tasks"}


def uri(port: int, user: str, password: str = PASSWORD) -> str:
    return f"mongodb://{user}:{password}@{HOST}:{port}/?authSource=admin&retryWrites=false"


@pytest.fixture(scope="module")
def restricted_mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a MongoDB with access control: one user may not read flights, another may not write."""
    folder, port = tmp_path_factory.mktemp("restricted-mongodb"), free_port()
    (folder / "data").mkdir()
    program = find_mongod()
    command = [program, "--auth", "--bind_ip", HOST, "--port", str(port), "--dbpath", str(folder / "data")]
    with (folder / "mongod.log").open("wb") as log:
        environment = mongod_environment(program, folder)
        server = subprocess.Popen([*command, "--nounixsocket"], stdout=log, stderr=log, env=environment)
    client: pymongo.MongoClient[dict[str, Any]]
    try:
        with pymongo.MongoClient(HOST, port, timeoutMS=2000) as client:
            eventually(lambda: _answers(client))
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with pymongo.MongoClient(uri(port, "root")) as client:
            client.shop.create_collection("users")
            client.flights.create_collection("airports")
            client.admin.command("createUser", "half", pwd=PASSWORD, roles=[READER, WRITER])
            client.admin.command("createUser", "reader", pwd=PASSWORD, roles=["readAnyDatabase"])
        yield port
    finally:
        server.kill()
        server.wait()


def _answers(client: pymongo.MongoClient[dict[str, Any]]) -> bool:
    try:
        return bool(client.admin.command("ping"))
    except PyMongoError:
        return False


@pytest.fixture
def web(request: pytest.FixtureRequest, redis_server: object, restricted_mongodb: int, tmp_path: Path) -> Iterator[str]:
    """The address of a web process with the MongoDB user that the test names."""
    port = free_port()
    process = Process(
        "web",
        tmp_path / "web.log",
        GUNICORN_CMD_ARGS=f"--bind {HOST}:{port}",
        MONGODB_URI=uri(restricted_mongodb, *request.param),
        JOIN_DATABASES="shop,flights",
    )
    process.wait_for_line("Booting worker")
    yield f"http://{HOST}:{port}"
    process.stop()


@pytest.mark.parametrize("web", [("half",)], indirect=True)
def test_a_request_for_a_database_that_may_not_be_read_names_it(web: str) -> None:
    reason = "The MongoDB user may not read flights"
    assert get(f"{web}/readyz").status == 200
    builder = get(f"{web}/?database=flights")
    assert builder.status == 200
    assert reason in builder.body
    assert reason in get(f"{web}/?database=flights&from=airports&joins-0-from=airports").body
    join = {"database": "flights", "from": "airports", "joins": [{"from": "a", "on": PAIRS, "as": "a"}]}
    answer = post_json(f"{web}/api/v1/joins", {"join": join})
    assert answer.status == 422
    (error,) = json.loads(answer.body)["errors"]
    assert (error["field"], reason in error["message"]) == ("join.database", True)
    assert get(f"{web}/?database=shop").status == 200


@pytest.mark.parametrize("web", [("reader",)], indirect=True)
def test_without_write_access_the_web_is_not_ready_and_submissions_say_why(web: str) -> None:
    ready = get(f"{web}/readyz")
    assert (ready.status, json.loads(ready.body)["away"]) == (503, ["MongoDB"])
    assert "read and write TASKS_DATABASE" in ready.body
    answer = post_json(f"{web}/create-task", {"task_input": "x"})
    assert (answer.status, json.loads(answer.body)["title"]) == (503, "MongoDB refuses")
    assert get(f"{web}/tasks").status == 200


@pytest.mark.parametrize("web", [("half", "wrong")], indirect=True)
def test_wrong_credentials_are_reported_by_every_request(web: str) -> None:
    for _ in range(2):
        assert "does not accept the user name and password" in get(f"{web}/readyz").body
        assert "does not accept the user name and password" in get(f"{web}/tasks").body

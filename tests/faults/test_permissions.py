"""A MongoDB user with too few privileges: pages and probes name the missing one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from development.servers import HOST, Server, free_port
from tests.faults.test_web_answers import get, post_json
from tests.mongodb import Client, restricted_mongod, uri_as
from tests.support import Process

pytestmark = pytest.mark.timeout(120)

PAIRS = [{"local": "_id", "foreign": "x"}]
READER = {"role": "read", "db": "shop"}
WRITER = {"role": "readWrite", "db": "tasks"}


@pytest.fixture(scope="module")
def restricted_mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MongoDB with access control: one user may not read flights, another may not write."""
    folder = tmp_path_factory.mktemp("restricted-mongodb")
    with restricted_mongod(folder, half=[READER, WRITER], reader=["readAnyDatabase"]) as server:
        with Client(uri_as("root", server)) as client:
            client.shop.create_collection("users")
            client.flights.create_collection("airports")
        yield server


@pytest.fixture
def web(
    request: pytest.FixtureRequest, redis_server: object, restricted_mongodb: Server, tmp_path: Path
) -> Iterator[str]:
    """The address of a web process with the MongoDB user that the test names."""
    port = free_port()
    user, *password = request.param
    process = Process(
        "web",
        tmp_path / "web.log",
        GUNICORN_CMD_ARGS=f"--bind {HOST}:{port}",
        MONGODB_URI=uri_as(user, restricted_mongodb, *password),
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

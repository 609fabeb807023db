"""The release phase creates the indexes, or stops the deployment with an error in one line."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from development.servers import Server
from tests.mongodb import PASSWORD, mongod, restricted_mongod, uri_as
from tests.support import ROOT, paused
from worker_tasks.infra.connections import connections
from worker_tasks.records import ledger


def release(**variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the Procfile's command as a platform does, with these environment variables."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        return subprocess.run(
            [sys.executable, "-m", "worker_tasks.release"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def test_the_release_phase_makes_the_indexes(servers: None) -> None:
    before = connections().tasks.index_information()
    connections().tasks.drop_indexes()
    run = release()
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert connections().tasks.index_information() == before
    assert len(before) == 10


def test_documents_of_the_original_application_get_their_missing_fields(servers: None) -> None:
    tasks = connections().tasks
    ended = datetime(2025, 1, 2, tzinfo=UTC)
    stock: dict[str, Any] = {
        "status": "SUCCESS",
        "result": '"x"',
        "traceback": None,
        "children": [],
        "date_done": ended,
    }
    tasks.insert_one({"_id": "old-done", "metadata": {"team": "blue"}, **stock})
    tasks.insert_one({"_id": "old-waiting", "metadata": {}, "status": "QUEUED", "args": "(1,)"})
    tasks.insert_one({"_id": None, **stock})
    assert release().returncode == 0
    done, waiting = (tasks.find_one({"_id": task_id}) or {} for task_id in ("old-done", "old-waiting"))
    assert done.keys() == waiting.keys() - {"unreadable"} == ledger.new_document("id").keys()
    assert (done["queued_at"], done["labels"], done["result"]) == (ended, ["team\0blue"], '"x"')
    assert (waiting["status"], waiting["timeline"][0]["status"]) == ("PENDING", "PENDING")
    assert (waiting["args"], waiting["unreadable"]) == ([], {"status": "QUEUED", "args": "(1,)"})
    assert done["expires_at"] > datetime.now(UTC)
    assert tasks.count_documents({"_id": None}) == 0
    assert release().returncode == 0
    assert tasks.find_one({"_id": "old-done"}) == done
    tasks.delete_many({"_id": {"$in": ["old-done", "old-waiting"]}})


def test_the_reading_queue_is_unbound_from_the_default_exchange(servers: None) -> None:
    redis: Any = connections().queue
    for key in ("_kombu.binding.celery", "_kombu.binding_permanent.celery"):
        redis.sadd(key, "celery\x06\x16\x06\x16celery", "celery\x06\x16\x06\x16reading")
    assert release().returncode == 0
    for key in ("_kombu.binding.celery", "_kombu.binding_permanent.celery"):
        assert redis.smismember(key, ["celery\x06\x16\x06\x16celery", "celery\x06\x16\x06\x16reading"]) == [1, 0]


@pytest.mark.parametrize("server", ["redis_server", "mongodb_server"])
def test_an_unreachable_server_stops_the_release_with_one_sentence(
    servers: None, server: str, request: pytest.FixtureRequest
) -> None:
    away: Server = request.getfixturevalue(server)
    with paused(away):
        run = release()
    assert run.returncode == 1
    assert run.stderr.startswith(f"release: {away.name}")
    assert "cannot be used" in run.stderr
    assert "Traceback" not in run.stderr


def test_missing_settings_stop_the_release_with_one_sentence() -> None:
    run = release(REDIS_URL="", CELERY_BROKER_URL="", MONGODB_URI="", MONGODB_HOST="")
    assert run.returncode == 1
    assert run.stderr.startswith("release: REDIS_URL is not set")
    assert "MONGODB_URI is not set" in run.stderr


def error_line(run: subprocess.CompletedProcess[str]) -> str:
    """The error of a failed release, which must be one line."""
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    return line


def test_a_wrong_mongodb_password_is_reported_in_one_line(mongodb_server: Server) -> None:
    line = error_line(release(MONGODB_URI=mongodb_server.url.replace("://", "://guest:wrong@")))
    assert line.startswith("release: MongoDB cannot be used (MongoDB does not accept the user name and password")
    assert "wrong" not in line


def test_a_refusal_of_mongodb_is_reported_in_one_line(servers: None) -> None:
    collection = connections().mongodb.clashing.task_results
    collection.create_index("expires_at", expireAfterSeconds=1)
    line = error_line(release(TASKS_DATABASE="clashing"))
    assert line.startswith("release: MongoDB refuses it: ")
    assert line.endswith("(IndexOptionsConflict)")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mongodb://me:p@ss@store", "MONGODB_URI: "),
        ("mongodb+srv://me:p@ss@store.invalid", "MONGODB_URI: "),
        ("mongodb+srv://me:p%40ss@store.invalid", "MongoDB cannot be used (ConfigurationError)"),
    ],
)
def test_an_unusable_mongodb_uri_is_reported_in_one_line(uri: str, expected: str) -> None:
    line = error_line(release(MONGODB_URI=uri))
    assert line.startswith(f"release: {expected}")
    assert "ss@" not in line


def test_an_invalid_database_name_is_reported_in_one_line() -> None:
    assert error_line(release(TASKS_DATABASE="my tasks")).startswith("release: TASKS_DATABASE: ")


@pytest.mark.parametrize(
    ("password", "expected"), [("pw", "The Redis user may not do what is needed"), ("wrong", "Redis does not accept")]
)
def test_a_redis_user_without_access_is_reported_in_one_line(
    servers: None, redis_server: Server, password: str, expected: str
) -> None:
    redis: Any = connections().queue
    redis.execute_command("ACL", "SETUSER", "stranger", "on", ">pw", "-@all")
    try:
        run = release(REDIS_URL=redis_server.url.replace("://", f"://stranger:{password}@"))
    finally:
        redis.execute_command("ACL", "DELUSER", "stranger")
    assert error_line(run).startswith(f"release: Redis (queue) cannot be used ({expected}")


@pytest.fixture
def eviction(servers: None, request: pytest.FixtureRequest) -> Iterator[str]:
    """Sets Redis's eviction policy for one test."""
    redis: Any = connections().queue
    before = redis.config_get("maxmemory-policy")["maxmemory-policy"]
    redis.config_set("maxmemory-policy", request.param)
    yield request.param
    redis.config_set("maxmemory-policy", before)


@pytest.mark.parametrize("eviction", ["allkeys-lru", "allkeys-random"], indirect=True)
def test_an_eviction_policy_that_deletes_queued_tasks_gives_a_warning(eviction: str) -> None:
    run = release()
    assert run.returncode == 0
    assert f"Redis is set to {eviction}: when it is full it deletes queued tasks." in run.stderr


@pytest.mark.parametrize("eviction", ["volatile-ttl"], indirect=True)
def test_an_eviction_policy_that_deletes_only_expiring_keys_gives_no_warning(eviction: str) -> None:
    run = release()
    assert (run.returncode, run.stderr) == (0, "")


@pytest.fixture
def redis_without_config(servers: None, redis_server: Server) -> Iterator[str]:
    """The URL of a Redis whose user may not read the configuration, as on hosted servers."""
    redis: Any = connections().queue
    redis.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-config")
    yield redis_server.url.replace("://", "://guest:pw@")
    redis.execute_command("ACL", "DELUSER", "guest")


def test_a_redis_that_hides_its_configuration_does_not_stop_the_release(redis_without_config: str) -> None:
    run = release(REDIS_URL=redis_without_config)
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with access control, whose users have different roles on the databases crm and sales."""
    users: dict[str, list[Any]] = {
        "reader": [{"role": "read", "db": "crm"}, {"role": "read", "db": "sales"}],
        "half": [{"role": "read", "db": "crm"}, {"role": "readWrite", "db": "tasks"}],
        "writer": [{"role": "readWrite", "db": "crm"}, {"role": "read", "db": "sales"}],
        "everywhere": ["readAnyDatabase"],
    }
    with restricted_mongod(tmp_path_factory.mktemp("restricted"), **users) as server:
        yield server


CRM_DATABASES = {"SOURCE_CRM_DATABASES": "sales,crm"}


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("reader", ""),
        ("everywhere", ""),
        ("half", "The user of crm may not read sales: grant the role read on each of them.\n"),
        ("writer", "The user of crm could write to crm: the role read on each of them is enough.\n"),
        ("root", "The user of crm could write to crm, sales: the role read on each of them is enough.\n"),
    ],
)
def test_the_release_says_whether_a_source_could_be_written_to(
    servers: None, restricted: Server, user: str, says: str
) -> None:
    run = release(SOURCE_CRM_URI=uri_as(user, restricted), **CRM_DATABASES)
    assert (run.returncode, run.stderr) == (0, says)
    assert run.stdout == ("" if says else "The user of crm can only read crm, sales.\n")


def test_a_user_of_the_default_server_who_could_write_to_collections_is_reported(
    servers: None, restricted: Server
) -> None:
    run = release(MONGODB_URI=uri_as("root", restricted), JOIN_DATABASES="crm")
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr == "The user of the default server could write to crm: the role read on each of them is enough.\n"
    run = release(MONGODB_URI=uri_as("half", restricted), JOIN_DATABASES="crm,tasks")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_source_without_a_login_is_reported(servers: None, restricted: Server, tmp_path: Path) -> None:
    run = release(SOURCE_CRM_URI=restricted.url, **CRM_DATABASES)
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr == "crm requires a login: name a user with the role read in SOURCE_CRM_URI.\n"
    with mongod(tmp_path / "open") as server:
        run = release(SOURCE_CRM_URI=server.url, **CRM_DATABASES)
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr.startswith("crm has no access control, so everybody could write to it")


def test_sources_that_are_away_or_refuse_do_not_stop_the_release(servers: None, restricted: Server) -> None:
    sources = {
        "SOURCE_AWAY_URI": f"mongodb://me:{PASSWORD}@127.0.0.1:1",
        "SOURCE_AWAY_DATABASES": "x",
        "SOURCE_SRV_URI": f"mongodb+srv://me:{PASSWORD}@nowhere.invalid",
        "SOURCE_SRV_DATABASES": "x",
        "SOURCE_LOGIN_URI": uri_as("reader", restricted, "wrong"),
        "SOURCE_LOGIN_DATABASES": "x",
    }
    run = release(**sources)
    assert (run.returncode, run.stdout) == (0, "")
    away, login, srv = run.stderr.splitlines()
    assert away.startswith("The source away does not answer (ServerSelectionTimeoutError)")
    assert login == (
        "The source login refuses (OperationFailure), so its collections cannot be joined: see SOURCE_LOGIN_URI."
    )
    assert srv.startswith("The source srv does not answer (ConfigurationError)")
    assert PASSWORD not in run.stderr


def test_an_invalid_source_stops_the_release_with_one_sentence() -> None:
    line = error_line(release(SOURCE_CRM_URI="mongodb://other", SOURCE_CRM_DATABASES="admin"))
    assert line.startswith("release: SOURCE_CRM_DATABASES: Value error, cannot hold admin")

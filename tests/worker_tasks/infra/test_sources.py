"""Sources on real servers: found by name, killed one beside the other, on each member of a replica set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import ReadPreference
from pymongo.errors import OperationFailure, PyMongoError

from development.servers import Server
from tests.mongodb import Client, restricted_mongod, two_members, uri_as, variables
from tests.support import paused
from worker_tasks.infra import sources
from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import InvalidInput


@pytest.fixture(scope="module")
def crm(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second deployment, on which ``reader`` may read only the database ``crm``, under the name crm."""
    reader = [{"role": "read", "db": "crm"}]
    with restricted_mongod(tmp_path_factory.mktemp("crm"), reader=reader) as server:
        with Client(uri_as("root", server)) as client:
            client.crm.accounts.insert_many([{"_id": number} for number in range(1000)])
            client.other.accounts.insert_one({})
        with variables(SOURCE_CRM_URI=uri_as("reader", server), SOURCE_CRM_DATABASES="crm"):
            yield server


def new_comment() -> tuple[str, str]:
    task_id = str(uuid4())
    return task_id, f"{sources.operation_prefix(task_id)}0.1.ab"


@contextmanager
def reading(collection: Any, comment: str) -> Iterator[list[PyMongoError]]:
    """A cursor of the task that has read its first batch; the list gets the error of the next one."""
    errors: list[PyMongoError] = []
    with collection.find({}, batch_size=2, comment=comment) as cursor:
        next(cursor)
        yield errors
        with pytest.raises(OperationFailure):
            list(cursor)


def test_sources_are_found_by_name(crm: Server) -> None:
    assert [source.name for source in sources.all_sources()] == [None, "crm"]
    found = sources.find_source("crm")
    assert (found.label, sorted(found.databases)) == ("crm", ["crm"])
    assert found.database("crm").accounts.count_documents({}) == 1000
    assert sources.find_source(None) == sources.default_source()
    assert sources.default_source().label == "the default server"
    assert "shop" in sources.default_source().databases


def test_an_unknown_source_is_refused(crm: Server) -> None:
    with pytest.raises(InvalidInput) as caught:
        sources.find_source("hr", "join.source")
    assert caught.value.errors == {"join.source": "hr is not a source."}


def test_each_source_has_one_client_with_the_options_of_the_joins(crm: Server) -> None:
    client = connections().source("crm")
    assert client is sources.find_source("crm").client
    assert connections().source(None) is connections().joins
    assert client.options.timeout == connections().joins.options.timeout
    assert not client.options.retry_reads


def test_the_read_preference_comes_from_the_uri(servers: None) -> None:
    uri = "mongodb://nowhere.invalid/?readPreference=secondary&readPreferenceTags=dc:ny"
    with variables(SOURCE_AWAY_URI=uri, SOURCE_AWAY_DATABASES="x"):
        preference = sources.find_source("away").client.read_preference
    assert (preference.mode, preference.tag_sets) == (ReadPreference.SECONDARY.mode, [{"dc": "ny"}])


def test_operations_are_found_and_killed_in_every_source(crm: Server) -> None:
    task_id, comment = new_comment()
    connections().joins.shop.killed.insert_many([{} for _ in range(10)])
    here, there = connections().joins.shop.killed, sources.find_source("crm").database("crm").accounts
    with reading(here, comment), reading(there, comment):
        assert task_id in sources.tasks_with_operations()
        assert sources.kill_operations(task_id) == 0
        assert task_id not in sources.tasks_with_operations()
    connections().joins.shop.killed.drop()


def test_only_the_named_sources_are_killed(crm: Server) -> None:
    task_id, comment = new_comment()
    with sources.find_source("crm").database("crm").accounts.find({}, batch_size=2, comment=comment) as cursor:
        next(cursor)
        assert sources.kill_operations(task_id, [None, "removed from the settings"]) == 0
        assert task_id in sources.tasks_with_operations()
        assert len(list(cursor)) == 999


def test_a_source_that_is_away_does_not_keep_the_others_from_being_killed(
    crm: Server, caplog: pytest.LogCaptureFixture
) -> None:
    task_id, comment = new_comment()
    connections().joins.shop.killed.insert_many([{} for _ in range(10)])
    with reading(connections().joins.shop.killed, comment), paused(crm):
        assert task_id in sources.tasks_with_operations()
        assert sources.kill_operations(task_id) == 0
        assert task_id not in sources.tasks_with_operations()
    assert "crm does not tell which operations it runs" in caplog.text
    assert "secret" not in caplog.text
    connections().joins.shop.killed.drop()


def test_killing_in_a_source_that_is_needed_and_away_fails_after_the_others(crm: Server) -> None:
    task_id, comment = new_comment()
    connections().joins.shop.killed.insert_many([{} for _ in range(10)])
    with reading(connections().joins.shop.killed, comment), paused(crm), pytest.raises(PyMongoError):
        sources.kill_operations(task_id, [None, "crm"])
    connections().joins.shop.killed.drop()


def test_operations_on_a_secondary_are_killed(servers: None, tmp_path: Path) -> None:
    task_id, comment = new_comment()
    with two_members(tmp_path) as url:
        with Client(url, w=2) as client:
            client.crm.accounts.insert_many([{"_id": number} for number in range(100)])
        uri = f"{url}&readPreference=secondary"
        with variables(SOURCE_CRM_URI=uri, SOURCE_CRM_DATABASES="crm"):
            accounts = sources.find_source("crm").database("crm").accounts
            with reading(accounts, comment):
                assert task_id in sources.tasks_with_operations()
                assert sources.kill_operations(task_id, ["crm"]) == 0
                assert task_id not in sources.tasks_with_operations()

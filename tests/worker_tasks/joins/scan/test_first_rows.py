"""A scan that reads a large side first shows rows of the first left documents in the meantime."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.database import Database

from tests.support import eventually
from worker_tasks.infra.connections import Document, connections
from worker_tasks.joins.scan import first_rows
from worker_tasks.joins.spec.spec import JoinSpec, parse
from worker_tasks.results import result_writer

NAME = "first_rows"
ON = [{"local": "k", "foreign": "k"}]


@pytest.fixture(scope="module")
def database(servers: None) -> Iterator[Database[Document]]:
    database = connections().joins[NAME]
    database.l.insert_many([{"_id": number, "k": number % 5} for number in range(100)])
    database.f.insert_many([{"_id": number, "k": number} for number in range(4)])
    yield database
    connections().joins.drop_database(NAME)


def spec_of(**changes: Any) -> JoinSpec:
    join = {"from": "f", "as": "m", "kind": "inner", "shape": "first", "on": ON}
    return parse({"database": NAME, "from": "l", "joins": [join], **changes})


def test_they_are_the_rows_of_the_first_documents(database: Database[Document]) -> None:
    rows = first_rows.find_rows(spec_of(), "dovetail:test")
    assert rows == [
        {"_id": number, "k": number % 5, "m": {"_id": number % 5, "k": number % 5}}
        for number in range(first_rows.DOCUMENTS)
        if number % 5 < 4
    ]
    assert len(first_rows.find_rows(spec_of(limit=3), "dovetail:test")) == 3


def test_they_are_shown_until_the_part_ends(database: Database[Document]) -> None:
    with first_rows.shown(spec_of(), "staging:first:0:x", "dovetail:test"):
        eventually(lambda: result_writer.glimpse("staging:first:0:x", 2))
    assert result_writer.glimpse("staging:first:0:x", 2) == []


def test_a_sorted_join_has_none(database: Database[Document]) -> None:
    with first_rows.shown(spec_of(sort=[["_id", -1]]), "staging:sorted:0:x", "dovetail:test"):
        assert "first rows" not in {thread.name for thread in threading.enumerate()}

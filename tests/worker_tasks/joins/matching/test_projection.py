"""Projections agree with ``$project``."""

import bson
from bson import DBRef
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from tests.worker_tasks.joins.matching.bson_strategies import leaves, paths, server_property, shapes, stored
from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.projection import project
from worker_tasks.joins.plan.stages import projection

DBREF = DBRef("u", 1, "d")


@server_property
@given(
    st.lists(shapes(["a", "b", "0", "1"], leaves | st.none() | st.just(DBREF)), min_size=1, max_size=40),
    st.lists(paths | st.just("_id") | st.sampled_from(["a.$id", "b.$ref"]), min_size=1, max_size=4),
)
def test_projections_agree_with_the_server(
    scratch: Database[Document], drawn: list[Document], fields: list[str]
) -> None:
    documents = stored(scratch.projection, drawn)
    rows = scratch.projection.aggregate([{"$sort": {"_id": 1}}, {"$project": projection(fields)}])
    for document, row in zip(documents, rows, strict=True):
        assert bson.encode(project(document, fields)) == bson.encode(row), (document, fields)


def test_a_field_inside_the_id() -> None:
    assert project({"_id": {"a": 1, "b": 2}, "k": 3}, ["k", "_id.a"]) == {"_id": {"a": 1}, "k": 3}


def test_the_order_of_the_document_stays() -> None:
    document = {"_id": 1, "b": {"y": 1, "x": 2}, "a": 0}
    assert str(project(document, ["a", "b.x", "b.y"])) == "{'b': {'y': 1, 'x': 2}, 'a': 0}"
    assert project(document, ["b", "b.x"]) == {"b": {"y": 1, "x": 2}}

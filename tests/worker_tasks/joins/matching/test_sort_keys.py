"""The order of the sort keys is the order of ``$sort``."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from tests.worker_tasks.joins.matching.bson_strategies import leaves, numbers, server_property, shapes, stored, values
from worker_tasks.infra.connections import Document
from worker_tasks.joins.matching.sort_keys import sort_key, sort_key_reader


def assert_same_order(scratch: Database[Document], drawn: list[Document], path: str, direction: int) -> None:
    documents = stored(scratch.sorting, drawn)
    ours = sorted(documents, key=lambda document: (sort_key(document, path, direction), document["_id"]))
    server = scratch.sorting.aggregate([{"$sort": {path: direction, "_id": 1}}, {"$project": {"_id": 1}}])
    by_number = {document["_id"]: document for document in documents}
    assert ours == [by_number[row["_id"]] for row in server]


@pytest.mark.parametrize("direction", [1, -1])
@server_property
@given(st.lists(values, min_size=2, max_size=60) | st.lists(numbers, min_size=2, max_size=60))
def test_values_of_all_types_are_ordered_like_the_server_orders_them(
    scratch: Database[Document], direction: int, drawn: list[Any]
) -> None:
    assert_same_order(scratch, [{"k": value} for value in drawn] + [{}], "k", direction)


@pytest.mark.parametrize("direction", [1, -1])
@server_property
@given(
    st.lists(shapes(["a", "b"], leaves | st.none()), min_size=2, max_size=40),
    st.lists(st.sampled_from(["a", "b", "0", "1"]), max_size=3).map(lambda parts: ".".join(["a", *parts])),
)
def test_paths_are_ordered_like_the_server_orders_them(
    scratch: Database[Document], direction: int, drawn: list[Document], path: str
) -> None:
    assert_same_order(scratch, drawn, path, direction)


def test_a_list_counts_as_its_least_or_greatest_element() -> None:
    ascending, descending = sort_key_reader("p", 1), sort_key_reader("p", -1)
    assert ascending({"p": [5, 1]}) < ascending({"p": 3})
    assert descending({"p": [5, 1]}) < descending({"p": 3})
    assert ascending({"p": []}) < ascending({"p": None}) == ascending({})


@server_property
@given(st.lists(values, min_size=2, max_size=30), st.sampled_from([1, -1]))
def test_no_key_is_the_beginning_of_another(drawn: list[Any], direction: int) -> None:
    keys = sorted({sort_key({"k": value}, "k", direction) for value in drawn})
    assert not any(second.startswith(first) for first, second in pairwise(keys))

"""Joins as text."""

import pytest

from webapp.presenters.join_text import KIND_PHRASES, SHAPE_LABELS, describe_join, describe_join_lines, describe_kind
from worker_tasks.joins.spec.kinds import KINDS, SHAPES


def test_every_kind_and_every_shape_has_a_phrase() -> None:
    assert list(KIND_PHRASES) == list(KINDS)
    assert list(SHAPE_LABELS) == list(SHAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_phrase_of_a_kind_names_both_collections(kind: str) -> None:
    assert {"users", "orders"} <= set(describe_kind(kind, "users", "orders").lower().replace(",", "").split())
    orders = {"from": "orders", "kind": kind, "on": [{"local": "_id", "foreign": "userId"}]}
    join = {"database": "shop", "from": "users", "joins": [orders]}
    assert "orders" in describe_join(join)
    assert describe_join_lines(join)[1][1].endswith("where _id = userId")

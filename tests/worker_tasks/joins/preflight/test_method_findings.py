"""The finding about the method of a join, tested with made-up estimates."""

from typing import Any

import pytest

from tests.worker_tasks.joins.preflight.check_support import join_with, spec_of
from worker_tasks.joins.plan.strategy import JoinMethod, Strategy
from worker_tasks.joins.preflight.findings import Level
from worker_tasks.joins.preflight.method_findings import method_finding, server_finding
from worker_tasks.joins.spec.spec import JoinSpec, parse

LOOKUP, SCAN = JoinMethod.LOOKUP, JoinMethod.SCAN
SPEC = spec_of("users", join_with("orders", "_id", "userId"))
INDEX = "orders(userId)"


@pytest.mark.parametrize(
    ("strategy", "index", "text"),
    [
        (
            Strategy(LOOKUP, 0.2, 3.0),
            INDEX,
            (
                "The index orders(userId) finds the matches of each row: about 0.2 s. "
                "Reading users and orders whole would take about 3.0 s."
            ),
        ),
        (
            Strategy(LOOKUP, 0.01, 1234.0),
            None,
            (
                "No index serves orders.userId, but there are few documents to compare: under 0.1 s. "
                "Reading users and orders whole would take about 1,234 s."
            ),
        ),
        (
            Strategy(LOOKUP, 0.2, None),
            INDEX,
            (
                "The index orders(userId) finds the matches of each row: about 0.2 s. "
                "Only MongoDB compares texts by the collation of users."
            ),
        ),
        (
            Strategy(SCAN, 9.0, 0.5),
            INDEX,
            (
                "A worker reads users and orders once and joins them: about 0.5 s. "
                "To find the matches of each row by index would take about 9.0 s."
            ),
        ),
        (
            Strategy(SCAN, 9000.0, 0.5),
            None,
            (
                "A worker reads users and orders once and joins them: about 0.5 s. "
                "No index serves orders.userId; to find the matches of each row without one would take about 9,000 s."
            ),
        ),
        (
            Strategy(SCAN, None, 0.5),
            INDEX,
            "A worker reads users and orders once and joins them: about 0.5 s. MongoDB alone cannot run this join.",
        ),
    ],
    ids=["index", "few", "collation", "scan despite an index", "scan", "scan only"],
)
def test_the_method_is_explained_with_both_estimates(strategy: Strategy, index: str | None, text: str) -> None:
    found = method_finding(SPEC, strategy, [index])
    assert (found.level, found.text, found.command) == (Level.GOOD, text, None)


def test_several_indexes_are_listed() -> None:
    spec = spec_of("users", join_with("orders", "_id", "userId"), join_with("strays", "_id", "userId", **{"as": "s"}))
    found = method_finding(spec, Strategy(LOOKUP, 0.2, 3.0), [INDEX, "strays(userId)"])
    assert found.text.startswith("The indexes orders(userId) and strays(userId) find the matches of each row: ")
    assert "Reading users, orders and strays whole" in found.text


def test_a_slow_join_comes_with_the_command_for_an_index() -> None:
    slow, lookup_only = Strategy(SCAN, 9000.0, 5.0), Strategy(SCAN, None, 5.0)
    found = method_finding(SPEC, slow, [None], SPEC.joins)
    assert (found.level, found.command) == (Level.NOTE, "db.orders.createIndex({'userId': 1})")
    assert method_finding(SPEC, lookup_only, [None], SPEC.joins).command is None


def with_source(source: str | None) -> JoinSpec:
    other: Any = "orders" if source is None else {"source": source, "database": "crm", "collection": "accounts"}
    joins = [{"from": "planes", "as": "p", "on": [{"local": "a", "foreign": "a"}]}]
    joins.append({"from": other, "as": "o", "on": [{"local": "a", "foreign": "a"}]})
    return parse({"database": "shop", "from": "flights", "joins": joins})


def test_sides_on_different_servers_share_no_instant() -> None:
    found = server_finding(with_source("crm"))
    assert found is not None
    assert found.level is Level.NOTE
    assert found.text == "flights and accounts are on different servers: they are not read at the same instant."
    assert server_finding(with_source(None)) is None

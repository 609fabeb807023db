"""The first rows of a run that has to read large sides before it writes any."""

import pytest
from pymongo.database import Database

from worker_tasks.infra.connections import Document
from worker_tasks.joins.plan import planning
from worker_tasks.joins.run import first_rows, run_state
from worker_tasks.joins.spec.spec import JoinSpec, parse_spec

USERS_WITH_ORDERS: Document = {
    "database": "big",
    "from": "users",
    "joins": [{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId", "fold": "case"}]}],
}


def join(**changes: object) -> JoinSpec:
    return parse_spec(USERS_WITH_ORDERS | changes, {"big"})


@pytest.fixture
def run(big: Database[Document]) -> str:
    """A run that has written nothing yet."""
    run_state.open_run("first-rows", "first-rows.1", 1, None)
    return "first-rows.1"


def rows_of(run: str) -> list[Document]:
    state = run_state.find_run(run.partition(".")[0])
    assert state is not None
    return first_rows.find_first_rows(state, 5)


def test_a_few_joined_rows_are_there_before_the_run_has_written_any(run: str, big: Database[Document]) -> None:
    spec = join(joins=[{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}])
    first_rows.join_first_rows(run, spec, "test")
    rows = rows_of(run)
    assert [row["_id"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        expected = {order["_id"] for order in big.orders.find({"userId": row["_id"]})}
        assert {order["_id"] for order in row["orders"]} == expected
    first_rows.forget_first_rows(run)
    assert rows_of(run) == []


def test_rows_are_not_shown_if_only_some_of_their_matches_can_be_found_in_time(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_rows, "SECONDS", 1e-6)
    first_rows.join_first_rows(run, join(), "test")
    assert rows_of(run) == []


def test_a_scan_starts_late_if_another_side_is_large(big: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not planning.make_plan(join(), "key", "test").starts_late
    monkeypatch.setattr(planning, "STREAMED_ROWS", 10)
    assert planning.make_plan(join(), "key", "test").starts_late
    assert not planning.make_plan(join(sort=[["name", 1]]), "key", "test").starts_late

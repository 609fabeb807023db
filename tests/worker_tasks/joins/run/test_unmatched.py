"""Rows without a match are counted during the join, and are all found again in the result's table."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo.database import Database

from tests.worker_tasks.analysis.support import built_artifact, numbers, record
from tests.worker_tasks.support import new_id
from worker_tasks.analysis import artifacts, engine, reader, result_table
from worker_tasks.analysis.profiles import Profile
from worker_tasks.analysis.row_query import Condition, Operator, RowQuery
from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.planning import make_plan
from worker_tasks.joins.run import lifecycle
from worker_tasks.joins.spec.spec import JoinSpec
from worker_tasks.results import result_store, summaries
from worker_tasks.results.summaries import Summary, Unmatched

pytestmark = pytest.mark.usefixtures("servers")

LEFT = 70
ORDERS = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "user"}]}
TAGS = {"from": "tags", "as": "a/b~c", "on": [{"local": "_id", "foreign": "user"}]}


@pytest.fixture(scope="module")
def odd(servers: None) -> Iterator[Database[Document]]:
    """Even users have one or two orders, every third user has a tag, and some orders have no user."""
    database = connections().joins["unmatched"]
    database.users.insert_many([{"_id": number, "orders": "of their own"} for number in range(LEFT)])
    # Some orders have no field to keep. In others the fields are 0 or empty.
    orders: list[Document] = [{"user": number, "amount": 0, "note": ""} for number in range(0, LEFT, 4)]
    orders += [{"user": number} for number in range(0, LEFT, 2)]
    database.orders.insert_many([*orders, {"user": -1, "amount": 5}, {"user": None}, {}])
    database.tags.insert_many([{"user": number, "tag": []} for number in range(0, LEFT, 3)])
    yield database
    database.client.drop_database(database)


def run_join(*joins: Document, **more: Any) -> Summary:
    """Runs a join and builds the table of its result."""
    spec = JoinSpec.model_validate(
        {"database": "unmatched", "from": "users", "joins": list(joins), **more}, strict=False
    )
    task_id = new_id()
    plan = make_plan(spec, summaries.join_key(new_id()), task_id, divided=False)
    outcome = lifecycle.start_run(task_id, 1, plan, lambda *_: None)
    assert outcome is not None
    assert outcome.summary is not None
    record(outcome.summary)
    assert built_artifact(outcome.summary, artifacts.TABLE).is_done
    return outcome.summary


def require_exactly(summary: Summary, name: str, is_unmatched: Callable[[Document], bool]) -> None:
    """Checks that the counted and the listed rows without a match are those that meet the predicate."""
    rows = result_store.read_rows(summary, 0, summary.count)
    assert rows is not None
    expected = [number for number, row in enumerate(rows) if is_unmatched(row)]
    assert expected
    noted = summary.unmatched[name]
    assert (noted.count, noted.rows) == (len(expected), expected[: summaries.UNMATCHED_ROWS])
    assert reader.profile_of(summary).unmatched.count(name) == 1
    assert numbers(summary, RowQuery(conditions=(Condition(name, Operator.UNMATCHED),))) == expected


def has_no_order(row: Document) -> bool:
    return row.get("_id", 0) % 2 == 1


def has_no_tag(row: Document) -> bool:
    return row.get("_id", 1) % 3 != 0


WITH_ORDERS, WITH_AMOUNTS = {"fields": ["_id", "orders"]}, {"fields": ["_id", "orders.amount"]}
SORTED = {"sort": [["orders", -1], ["_id", -1]]}


@pytest.mark.parametrize("kind", ["left", "outer"])
@pytest.mark.parametrize("shape", ["array", "rows", "first"])
@pytest.mark.parametrize(
    ("of_match", "of_row"),
    [
        ([], SORTED),
        (["amount"], WITH_ORDERS),
        (["note", "amount"], WITH_AMOUNTS),
        (["gone"], SORTED),
        (["gone"], WITH_AMOUNTS),
    ],
    ids=str,
)
def test_exactly_the_rows_without_a_match_are_listed(
    odd: Database[Document], kind: str, shape: str, of_match: list[str], of_row: Document
) -> None:
    kept = {"fields": of_match} if of_match else {}
    summary = run_join(ORDERS | {"kind": kind, "shape": shape} | kept, **of_row)
    require_exactly(summary, "orders", has_no_order)


@pytest.mark.parametrize("of_row", [WITH_ORDERS, SORTED], ids=str)
def test_exactly_the_rows_with_a_count_of_zero_are_listed(odd: Database[Document], of_row: Document) -> None:
    summary = run_join(ORDERS | {"shape": "count"}, **of_row)
    require_exactly(summary, "orders", has_no_order)


def test_no_rows_are_counted_if_the_count_of_matches_is_dropped(odd: Database[Document]) -> None:
    assert run_join(ORDERS | {"shape": "count"}, **WITH_AMOUNTS).unmatched == {}


@pytest.mark.parametrize(
    ("first", "second"), [("array", "rows"), ("rows", "first"), ("first", "count"), ("count", "array")]
)
def test_each_of_several_joins_lists_its_own_rows(odd: Database[Document], first: str, second: str) -> None:
    kind = "left" if first == "count" else "outer"
    summary = run_join(ORDERS | {"kind": kind, "shape": first}, TAGS | {"shape": second}, sort=[["_id", -1]])
    require_exactly(summary, "orders", has_no_order)
    require_exactly(summary, "a/b~c", has_no_tag)
    both = (Condition("orders", Operator.UNMATCHED), Condition("a/b~c", Operator.UNMATCHED))
    rows = result_store.read_rows(summary, 0, summary.count)
    assert rows is not None
    expected = [number for number, row in enumerate(rows) if has_no_order(row) and has_no_tag(row)]
    assert numbers(summary, RowQuery(conditions=both)) == expected


def test_rows_without_any_field_are_listed_too(odd: Database[Document]) -> None:
    summary = run_join(ORDERS | {"shape": "first"}, match={"_id": 1}, fields=["orders"])
    assert summary.columns == []
    require_exactly(summary, "orders", lambda row: row == {})


@pytest.mark.parametrize("kind", ["inner", "semi", "anti"])
def test_a_join_that_leaves_no_row_without_a_match_offers_none(odd: Database[Document], kind: str) -> None:
    join = {name: value for name, value in ORDERS.items() if name != "as" or kind == "inner"}
    summary = run_join(join | {"kind": kind}, TAGS, fields=["_id", "orders"])
    assert summary.unmatched == {}
    profile = reader.profile_of(summary)
    assert profile.unmatched == []
    for name in ("orders", "a/b~c"):
        with pytest.raises(InvalidInput) as refused:
            RowQuery(conditions=(Condition(name, Operator.UNMATCHED),)).check(profile)
        assert f"“{name}”" in refused.value.errors["where"]


def test_rows_beyond_the_row_limit_are_not_counted(odd: Database[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    limited = settings().model_copy(update={"result_max_rows": 9})
    monkeypatch.setattr(lifecycle, "settings", lambda: limited)
    summary = run_join(ORDERS | {"shape": "first"})
    assert (summary.count, summary.complete) == (9, False)
    require_exactly(summary, "orders", has_no_order)


def test_rows_that_do_not_agree_with_the_counts_are_not_listed(odd: Database[Document]) -> None:
    summary = run_join(ORDERS, TAGS)
    noted = summary.unmatched["orders"]
    for wrong in (Unmatched(noted.count + 1, noted.rows), Unmatched(noted.count, [0, *noted.rows[1:]])):
        other = dataclasses.replace(summary, unmatched=summary.unmatched | {"orders": wrong})
        with engine.open_database() as (database, folder):
            assert result_table.build_table(other, database, folder).profile.unmatched == ["a/b~c"]


def test_a_table_from_an_older_version_lists_no_unmatched_rows() -> None:
    older = {"columns": [], "rows": 0, "sha256": ""}
    assert Profile.from_document(older).unmatched == []

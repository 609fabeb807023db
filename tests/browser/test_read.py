"""A person sorts, filters and exports a result, and compares it with another run."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pymongo.database import Database

from tests.browser.conftest import violations
from tests.support import Process, submit_join, wait_for_state
from tests.webapp.api.test_v1 import finished_with
from worker_tasks.infra.connections import Document

WITH_ORDERS = {
    "database": "shop",
    "from": "users",
    "joins": [{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}],
}


@pytest.fixture
def people(servers: None) -> str:
    """The id of a task with 120 people as its result. The city of one is null, the city of another is missing."""
    rows: list[Document] = [
        {"_id": n, "name": f"Person {n:03}", "city": ["Oslo", "Lima", "Accra"][n % 3], "amount": (n * 37) % 120}
        for n in range(120)
    ]
    rows[3]["city"] = None
    del rows[4]["city"]
    return finished_with(rows)


@pytest.fixture
def changeable_shop(shop: Database[Document]) -> Iterator[Database[Document]]:
    """The shop, whose users are restored after the test."""
    before = list(shop.users.find())
    yield shop
    shop.users.delete_many({})
    shop.users.insert_many(before)


def first_names(page: Page) -> list[str]:
    """Returns the names in the first three rows of the table."""
    return page.get_by_role("region", name="Joined documents").locator("td[data-label=name]").all_inner_texts()[:3]


def test_rows_are_sorted_by_a_click_on_a_column_and_found_by_their_values(page: Page, people: str) -> None:
    page.goto(f"/tasks/{people}/result")
    page.get_by_role("link", name="amount").click()
    expect(page.get_by_role("columnheader", name="amount")).to_have_attribute("aria-sort", "ascending")
    assert first_names(page) == ["Person 000", "Person 013", "Person 026"]
    page.get_by_role("link", name="amount", exact=True).click()
    expect(page.get_by_role("columnheader", name="amount")).to_have_attribute("aria-sort", "descending")
    assert first_names(page) == ["Person 107", "Person 094", "Person 081"]
    page.get_by_text("Only rows where").click()
    page.get_by_label("Column 1").fill("city")
    page.get_by_label("Value 1").fill("Lima")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("status")).to_contain_text("39 of 120 rows, sorted by amount downwards.")
    page.get_by_role("searchbox", name="Text").fill("person 11")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("status")).to_contain_text("3 of 120 rows")
    assert sorted(first_names(page)) == ["Person 112", "Person 115", "Person 118"]
    assert violations(page) == []
    page.get_by_role("link", name="All rows as they were joined").click()
    expect(page.get_by_role("status")).to_contain_text("All 120 rows")


def test_null_and_missing_look_different(page: Page, people: str) -> None:
    page.goto(f"/tasks/{people}/result")
    expect(page.locator("#row-4 td[data-label=city]")).to_have_text("null")
    expect(page.locator("#row-5 td[data-label=city]")).to_have_text("missing")
    page.get_by_text("Only rows where").click()
    page.get_by_label("Column 1").fill("city")
    page.get_by_label("Condition 1").select_option("is missing")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("status")).to_contain_text("1 of 120 rows")
    assert first_names(page) == ["Person 004"]


def test_columns_are_chosen_and_reordered_and_the_download_has_no_others(page: Page, people: str) -> None:
    page.goto(f"/tasks/{people}/result")
    page.get_by_text("Columns: all").click()
    for column in ("_id", "city"):
        page.get_by_role("checkbox", name=column, exact=True).uncheck()
    page.get_by_role("button", name="Show these").click()
    page.get_by_text("Columns: 2 of 4").click()
    page.get_by_role("button", name="Show amount further to the left").click()
    expect(page.get_by_role("button", name="Show amount further to the right")).to_be_visible()
    headers = page.get_by_role("region", name="Joined documents").locator("thead th a").all_inner_texts()
    assert headers == ["amount", "name"]
    page.get_by_role("link", name="Download", exact=True).click()
    expect(page.get_by_text("Every row, with amount, name alone.")).to_be_visible()
    page.get_by_role("button", name="Prepare CSV").click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile(r"Download CSV, [\d.]+ KiB")).click()
    lines = Path(downloading.value.path()).read_text().splitlines()
    assert (lines[0], len(lines)) == ("amount,name", 121)


def test_an_excel_file_is_prepared_and_downloaded(page: Page, people: str) -> None:
    page.goto(f"/tasks/{people}/result")
    page.get_by_role("link", name="Download", exact=True).click()
    page.get_by_role("button", name="Prepare Excel").click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile("Download Excel")).click()
    assert downloading.value.suggested_filename.endswith(".xlsx")
    assert Path(downloading.value.path()).read_bytes()[:2] == b"PK"


def test_the_first_rows_are_readable_while_columns_are_measured(page: Page, worker: Process) -> None:
    task_id = finished_with([{"_id": n, "half": n / 2, "text": f"t{n % 7}"} for n in range(60_000)])
    worker.signal_group(signal.SIGSTOP)
    try:
        page.goto(f"/tasks/{task_id}/result")
        page.evaluate("window.notReloaded = true")
        expect(page.get_by_text("A worker is measuring all 60,000 rows")).to_be_visible()
        expect(page.locator("#row-50")).to_be_visible()
        assert violations(page) == []
    finally:
        worker.signal_group(signal.SIGCONT)
    expect(page.get_by_role("img", name=re.compile("From 0 to 59,999"))).to_be_visible()
    assert page.evaluate("window.notReloaded")
    assert page.locator("#reading").get_attribute("hx-get") is None
    page.get_by_role("link", name="Columns", exact=True).click()
    expect(page.get_by_text("whole numbers, all different")).to_be_visible()
    page.get_by_role("link", name="t3", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("8,571 of 60,000 rows")


def test_sorting_searching_and_exporting_work_without_javascript(page_without_javascript: Page, people: str) -> None:
    page = page_without_javascript
    page.goto(f"/tasks/{people}/result")
    page.get_by_label("Order").select_option("amount, highest first")
    page.get_by_role("searchbox", name="Text").fill("oslo")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("status")).to_contain_text("39 of 120 rows")
    # The amount is 37 n modulo 120, and every third person lives in Oslo.
    assert first_names(page) == ["Person 081", "Person 042", "Person 084"]
    page.get_by_role("link", name="Download", exact=True).click()
    page.get_by_role("button", name="Prepare Parquet").click()
    expect(page.get_by_role("link", name=re.compile("Download Parquet"))).to_be_visible()


def test_a_nested_list_opens_in_place(page: Page) -> None:
    # Other tests add users and orders to the shop.
    task_id = submit_join({**WITH_ORDERS, "match": {"_id": "u1"}})
    wait_for_state(task_id, "SUCCESS")
    page.goto(f"/tasks/{task_id}/result")
    orders = page.locator("#row-1 td[data-label=orders]")
    expect(orders.get_by_text("o101")).to_be_hidden()
    orders.get_by_text(re.compile(r"^\d+ documents?$")).click()
    expect(orders.get_by_text("o101")).to_be_visible()


def test_a_comparison_shows_added_removed_and_changed_rows(
    page: Page, changeable_shop: Database[Document], no_tasks: None
) -> None:
    users = changeable_shop.users
    # No other test uses this join, so no other test shares its result.
    join = WITH_ORDERS | {"match": {"email": {"$ne": "nobody"}}}
    older = submit_join(join, fresh=True)
    wait_for_state(older, "SUCCESS")
    users.insert_many([{"_id": "new-1", "name": "New One"}, {"_id": "new-2", "name": "New Two"}])
    users.delete_one({"_id": "u7"})
    users.update_one({"_id": "u1"}, {"$set": {"name": "Alicia"}})
    newer = submit_join(join, fresh=True)
    wait_for_state(newer, "SUCCESS")
    page.goto("/tasks")
    for task in page.get_by_role("checkbox", name=re.compile("Select Users with their orders")).all():
        task.check()
    page.get_by_role("button", name="Compare two").click()
    expect(page.get_by_role("status")).to_have_text(re.compile("1 changed, 2 added, 1 gone, [0-9,]+ the same."))
    changed = page.get_by_role("region", name="Rows: changed")
    expect(changed.locator("del")).to_contain_text("Alice")
    expect(changed.locator("ins")).to_contain_text("Alicia")
    assert violations(page) == []
    page.get_by_role("link", name="2 added").click()
    expect(page.get_by_role("region", name="Rows: added")).to_contain_text("New Two")
    page.get_by_role("link", name="1 gone").click()
    expect(page.get_by_role("region", name="Rows: gone").locator("td[data-label=_id]")).to_have_text("u7")
    page.get_by_text("Compare by other columns").click()
    page.get_by_role("checkbox", name="_id", exact=True).uncheck()
    page.get_by_role("checkbox", name="email", exact=True).check()
    page.get_by_role("button", name="Compare by these").click()
    expect(page.get_by_text("Rows with the same email are compared")).to_be_visible()

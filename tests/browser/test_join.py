"""A person requests a user's orders, follows the task and reads the result."""

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import FaultLog
from tests.support import submit_join
from worker_tasks.infra.connections import connections


def fill_form(page: Page, user_id: str, note: str) -> None:
    page.goto("/user-orders")
    page.get_by_label("User id").fill(user_id)
    page.get_by_label("Note").fill(note)
    page.get_by_label("Value 1").fill("important info")


def open_the_result_and_find_the_task(page: Page, note: str) -> None:
    page.get_by_role("link", name="Read the result").click()
    for text in ("Alice", "alice@example.com", "o101", "1200", "PAID"):
        expect(page.get_by_role("region", name="Joined documents")).to_contain_text(text)
    page.get_by_role("link", name="Tasks", exact=True).click()
    row = page.get_by_role("row").filter(has_text=note)
    expect(row).to_contain_text("Done")
    expect(row).to_contain_text("metadata_1 important info")
    row.get_by_role("link", name="Orders of user u1").click()
    expect(page.get_by_role("heading", name="Orders of user u1")).to_be_visible()


def test_a_join_is_submitted_followed_read_and_found_again_without_reloading(page: Page) -> None:
    fill_form(page, "u1", "with JavaScript")
    page.get_by_role("button", name="Add a row").click()
    expect(page.get_by_label("User id")).to_have_value("u1")
    expect(page.get_by_label("Value 1")).to_have_value("important info")
    page.get_by_label("Key 4").fill("ticket")
    page.get_by_label("Value 4").fill("OPS-1")
    page.get_by_role("button", name="Join", exact=True).click()
    page.evaluate("window.notReloaded = true")
    expect(page.get_by_role("status")).to_contain_text("1 row joined.")
    assert page.evaluate("window.notReloaded")
    expect(page.get_by_text("OPS-1")).to_be_visible()
    open_the_result_and_find_the_task(page, "with JavaScript")


def test_the_same_works_without_javascript(page_without_javascript: Page) -> None:
    page = page_without_javascript
    fill_form(page, "u1", "without JavaScript")
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_text("1 row joined.")).to_be_visible()
    open_the_result_and_find_the_task(page, "without JavaScript")


def test_enter_in_a_field_submits_the_join(page: Page) -> None:
    fill_form(page, "u1", "by Enter")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/tasks/[0-9a-f-]{36}$"))


def test_an_error_appears_at_its_field_and_the_input_stays(watched: tuple[Page, FaultLog], no_tasks: None) -> None:
    page, faults = watched
    faults.expected_statuses.add(422)
    fill_form(page, "", "not lost")
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Not submitted. Nothing was recorded.")
    expect(page.get_by_label("User id")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("User id")).to_have_accessible_description(re.compile("must not be empty"))
    expect(page.get_by_label("Note")).to_have_value("not lost")
    assert connections().tasks.count_documents({}) == 0


def test_the_form_works_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/user-orders")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("main").get_by_role("link", name="Saved joins")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("User id")).to_be_focused()
    page.keyboard.type("u1")
    page.keyboard.press("Tab")
    page.keyboard.type("typed")
    for _ in range(8):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Join", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 row joined.")


def test_a_join_whose_result_redis_lost_is_run_again(watched: tuple[Page, FaultLog]) -> None:
    page, faults = watched
    faults.expected_statuses.add(410)
    fill_form(page, "u5", "too late")
    page.get_by_role("button", name="Join", exact=True).click()
    link = page.get_by_role("link", name="Read the result")
    expect(link).to_be_visible()
    for key in connections().results.scan_iter("*user_order_result:u5"):
        connections().results.delete(key)
    link.click()
    expect(page.get_by_text("Redis lost this result before it expired.")).to_be_visible()
    page.get_by_role("button", name="Run again").click()
    page.get_by_role("link", name="Read the result").click()
    expect(page.get_by_role("region", name="Joined documents")).to_contain_text("u5")


def test_a_result_is_kept_longer_and_its_rows_have_addresses(page: Page) -> None:
    join = {"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}
    page.goto(f"/tasks/{submit_join({'database': 'shop', 'from': 'users', 'joins': [join]})}")
    page.get_by_role("link", name="Read the result").click()
    page.get_by_role("button", name="Keep it until").click()
    expect(page.get_by_text("The result is kept longer.")).to_be_visible()
    expect(page.locator("[data-until]")).to_contain_text(re.compile(r"in (1:0\d|59|[56]\d):"))
    page.get_by_label("Row", exact=True).fill("399")
    page.get_by_role("button", name="Go to it").click()
    expect(page.locator("#row-399")).to_be_in_viewport()
    expect(page.get_by_text("Page 8 of 8")).to_be_visible()
    # The link leads to the row's own address.
    page.get_by_role("link", name="399", exact=True).click()
    expect(page.locator("#row-399")).to_be_in_viewport()

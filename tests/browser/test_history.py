"""The filters, live updates and bulk actions of the task list."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import violations
from worker_tasks.records import ledger
from worker_tasks.tasks import long_running_task


def waiting(text: str, **metadata: str) -> str:
    return long_running_task.apply_async([text], queue="unattended", metadata=metadata).id


@pytest.fixture(autouse=True)
def three_tasks(no_tasks: None) -> list[str]:
    return [waiting("first", team="blue"), waiting("second", team="red"), waiting("third", team="blue")]


def test_tasks_are_found_by_their_metadata(page: Page) -> None:
    page.goto("/tasks")
    expect(page.get_by_role("row")).to_have_count(4)
    page.get_by_label("Metadata key").fill("team")
    page.get_by_label("and its value").fill("red")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("link", name="Practice task: second")).to_be_visible()
    page.reload()
    expect(page.get_by_label("and its value")).to_have_value("red")
    assert violations(page) == []
    page.get_by_role("link", name="All tasks").click()
    page.get_by_role("link", name="team blue").first.click()
    expect(page.get_by_role("row")).to_have_count(3)


def test_several_tasks_are_selected_and_cancelled(page: Page, three_tasks: list[str]) -> None:
    page.goto("/tasks")
    for text in ("first", "third"):
        page.get_by_role("checkbox", name=re.compile(f"Practice task: {text}")).check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("2 tasks were cancelled.")
    expect(page.get_by_role("row").filter(has_text="Cancelled")).to_have_count(2)
    assert ledger.find_task(three_tasks[1])["status"] == "PENDING"


def test_the_list_updates_live_and_keeps_the_selection(page: Page, three_tasks: list[str]) -> None:
    page.goto("/tasks")
    checkbox = page.get_by_role("checkbox", name=re.compile("Practice task: second"))
    checkbox.check()
    waiting("fourth")
    ledger.transition(three_tasks[0], "SUCCESS", fields={"result": '"done"'})
    expect(page.get_by_role("link", name="Practice task: fourth")).to_be_visible(timeout=8_000)
    expect(page.get_by_role("row").filter(has_text="first")).to_contain_text("Done")
    expect(checkbox).to_be_checked()


def test_the_list_works_without_javascript(page_without_javascript: Page) -> None:
    page = page_without_javascript
    page.goto("/tasks?key=team&value=blue")
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text("1 task was submitted again.")).to_be_visible()
    expect(page.get_by_label("and its value")).to_have_value("blue")
    expect(page.get_by_role("row")).to_have_count(4)

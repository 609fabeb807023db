"""The task page, with and without changes to the task."""

import re
from collections.abc import Callable

import pytest
from celery import states
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import FaultLog, violations
from worker_tasks.records import ledger, live
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

#: Long enough for two polls, because the page of a recent task polls every second.
TWO_POLLS_MS = 2_500


@pytest.fixture
def waiting_task(servers: None) -> str:
    return long_running_task.apply_async(["some input"], queue="unattended", metadata={"note": "it waits"}).id


def polls_of(page: Page) -> list[int]:
    """Returns a list to which the status of each poll is appended."""
    statuses: list[int] = []
    page.on(
        "response",
        lambda response: statuses.append(response.status) if response.url.endswith("/status") else None,
    )
    return statuses


def test_a_practice_task_shows_its_progress_and_stops_polling_when_done(page: Page) -> None:
    polls = polls_of(page)
    page.goto("/practice")
    page.get_by_label("Task input").fill("some input")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("Done")
    expect(page.get_by_text("Processed: some input")).to_be_visible()
    polls_when_done = len(polls)
    assert polls_when_done > 0
    page.wait_for_timeout(TWO_POLLS_MS)
    assert len(polls) == polls_when_done


def test_the_page_stays_untouched_while_the_task_does_not_change(page: Page, waiting_task: str) -> None:
    polls = polls_of(page)
    page.goto(f"/tasks/{waiting_task}")
    page.evaluate("document.getElementById('status').dataset.mark = 'the same'")
    page.wait_for_timeout(TWO_POLLS_MS)
    assert len(polls) >= 2
    assert set(polls) == {304}
    expect(page.locator("#status")).to_have_attribute("data-mark", "the same")


def test_a_change_of_the_task_does_not_move_the_heading_or_the_metadata(page: Page, waiting_task: str) -> None:
    page.goto(f"/tasks/{waiting_task}")
    heading, metadata = page.get_by_role("heading", level=1), page.get_by_role("heading", name="Metadata")
    before = heading.bounding_box(), metadata.bounding_box()
    ledger.transition(waiting_task, states.STARTED, note="a worker")
    live.report(waiting_task, live.Progress(1, 4, "steps"))
    expect(page.get_by_text("1 of 4 steps, 25 %")).to_be_visible()
    assert (heading.bounding_box(), metadata.bounding_box()) == before


def test_a_lost_connection_is_shown_and_recovers_by_itself(watched: tuple[Page, FaultLog], waiting_task: str) -> None:
    page, faults = watched
    faults.expected_statuses.add(503)
    page.goto(f"/tasks/{waiting_task}")

    def refuse(route: Route) -> None:
        route.fulfill(status=503, body="away")

    page.route("**/status", refuse)
    expect(page.get_by_role("alert")).to_contain_text("The connection is lost; trying again.")
    expect(page.get_by_role("status")).to_contain_text("Queued")
    page.unroute("**/status", refuse)
    expect(page.get_by_role("alert")).to_be_hidden()
    ledger.transition(waiting_task, states.SUCCESS, fields={"result": '"done"'})
    expect(page.get_by_role("status")).to_contain_text("Done")


def test_a_hidden_tab_stops_polling_and_catches_up_when_it_is_visible_again(page: Page, waiting_task: str) -> None:
    polls = polls_of(page)
    page.goto(f"/tasks/{waiting_task}")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.wait_for_timeout(200)
    polls_when_hidden = len(polls)
    page.wait_for_timeout(TWO_POLLS_MS)
    assert len(polls) == polls_when_hidden
    ledger.transition(waiting_task, states.SUCCESS, fields={"result": '"done"'})
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("status")).to_contain_text("Done", timeout=900)


def test_a_waiting_task_is_cancelled_and_run_again(page: Page, waiting_task: str) -> None:
    page.goto(f"/tasks/{waiting_task}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Run again").click()
    expect(page).not_to_have_url(re.compile(waiting_task))
    expect(page.get_by_role("status")).to_contain_text("Queued")
    expect(page.get_by_text("it waits")).to_be_visible()


def test_a_failed_task_shows_the_reason(page: Page) -> None:
    task_id = submit(join_users_orders, "")
    page.goto(f"/tasks/{task_id}")
    expect(page.get_by_role("status")).to_contain_text("Failed")
    expect(page.get_by_role("status")).to_contain_text("must not be empty")
    page.get_by_text("Traceback, for the one who mends it").click()
    expect(page.locator("pre")).to_contain_text("InvalidInput")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_key_changed_by_two_people_is_shown_with_both_values(
    watched_contexts: Callable[..., tuple[BrowserContext, FaultLog]], waiting_task: str, *, javascript: bool
) -> None:
    context, faults = watched_contexts(java_script_enabled=javascript, viewport={"width": 390, "height": 800})
    faults.expected_statuses.add(409)
    anna, ben = context.new_page(), context.new_page()
    for page in (anna, ben):
        page.goto(f"/tasks/{waiting_task}")
        if javascript:
            page.get_by_text("Change the metadata").click()
        else:
            page.get_by_role("link", name="Keep this page from loading itself anew").click()
    ben.get_by_label("Value 1").fill("x" * 300)
    ben.get_by_label("Key 2").fill("ben")
    ben.get_by_label("Value 2").fill("approved")
    ben.get_by_role("button", name="Keep the changes").click()
    expect(ben.locator(".facts").get_by_text("approved")).to_be_visible()
    anna.get_by_label("Value 1").fill("it waits for Anna")
    anna.get_by_role("button", name="Keep the changes").click()
    expect(anna.get_by_role("alert")).to_contain_text("Somebody else changed “note”")
    expect(anna.get_by_label("Value 1")).to_have_value("it waits for Anna")
    expect(anna.get_by_label("Value 1")).to_have_accessible_description(re.compile("Yours.*Now stored.*x{300}"))
    if javascript:
        assert violations(anna) == []
        assert anna.evaluate("document.documentElement.scrollWidth") <= 390
    # Without JavaScript, the page of an unfinished task reloads every two seconds.
    anna.wait_for_timeout(TWO_POLLS_MS)
    expect(anna.get_by_label("Value 1")).to_have_value("it waits for Anna")
    anna.get_by_role("button", name="Replace what is stored").click()
    expect(anna).to_have_url(re.compile(f"/tasks/{waiting_task}$"))
    assert ledger.find_task(waiting_task)["metadata"] == {"note": "it waits for Anna", "ben": "approved"}

"""Every page is accessible in every state, and fits the width of the window."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from playwright.sync_api import BrowserContext, Page, expect

from development.servers import Server
from tests.browser.conftest import FaultLog, violations
from tests.support import Process, paused, submit_join, wait_for_state
from worker_tasks import submission
from worker_tasks.infra.connections import connections
from worker_tasks.joins.plan.user_orders import result_key
from worker_tasks.joins.preflight import checks
from worker_tasks.records import ledger, live
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

Visit = Callable[..., Page]

METADATA = {"note": "for the audit on Friday", "k" * 100: "v" * 1000}


def joined(user_id: str) -> str:
    task_id = submit(join_users_orders, user_id, metadata=METADATA)
    wait_for_state(task_id, states.SUCCESS, states.FAILURE)
    return task_id


def waiting() -> str:
    return long_running_task.apply_async(["some input"], queue="unattended", metadata=METADATA).id


def requested_by(requester: str) -> str:
    for _ in range(2):
        long_running_task.apply_async(["some input"], queue="unattended", requested_by=requester)
    return requester


def running() -> str:
    task_id = waiting()
    ledger.transition(task_id, states.STARTED, note="celery@a-rather-long-name-of-a-host.example.com")
    live.report(task_id, live.Progress(7, 20, "steps"))
    return task_id


def cancelled() -> str:
    task_id = waiting()
    ledger.request_cancellation(task_id)
    return task_id


def expired() -> str:
    task_id = joined("u3")
    for key in connections().results.scan_iter(f"*{result_key('u3')}"):
        connections().results.delete(key)
    return task_id


def replaced() -> str:
    task_id = joined("u4")
    joined("u4")
    joined("u4")
    return task_id


def finished_join(join: dict[str, Any]) -> str:
    checks.check_join(submission.read_join(join))
    task_id = submit_join(join, metadata=METADATA)
    wait_for_state(task_id, states.SUCCESS)
    return task_id


USERS_AND_ORDERS = "database=shop&source=users&joins-0-source=orders&joins-0-on-0-local=_id&joins-0-on-0-foreign=userId"
MATCHED = {
    "database": "shop",
    "from": "orders",
    "match": {"status": "PAID"},
    "joins": [{"from": "users", "as": "user", "shape": "first", "on": [{"local": "userId", "foreign": "_id"}]}],
    "sort": [["amount", -1]],
}
UNMATCHED = {
    "database": "shop",
    "from": "users",
    "joins": [{"from": "orders", "as": "orders", "on": [{"local": "_id", "foreign": "userId"}]}],
}
NEVER_MATCHING = {
    "database": "shop",
    "from": "reviews",
    "joins": [{"from": "products", "as": "product", "kind": "inner", "on": [{"local": "productId", "foreign": "_id"}]}],
}


QUERY = "sort=-name&q=a&where=orders&is=there&value=&columns=name&columns=orders"
INVALID_QUERY = "where=joinedAt&is=gte&value=soon"


def compared() -> str:
    older, newer = (submit_join(UNMATCHED, metadata=METADATA, fresh=True) for _ in range(2))
    for task_id in (older, newer):
        wait_for_state(task_id, states.SUCCESS)
    return f"/comparison?older={older}&newer={newer}"


#: The address of each page, and the status of the response.
PAGES: dict[str, tuple[Callable[[], str], int]] = {
    "builder": (lambda: "/", 200),
    "builder with a join": (lambda: f"/?{USERS_AND_ORDERS}&check=yes", 200),
    "builder with mistakes": (lambda: f"/?{USERS_AND_ORDERS}&filters-0-field=joinedAt&filters-0-value=soon", 200),
    "saved joins": (lambda: "/saved", 200),
    "saved join": (lambda: "/saved/orders-by-status", 200),
    "form": (lambda: "/user-orders", 200),
    "practice": (lambda: "/practice", 200),
    "waiting": (lambda: f"/tasks/{waiting()}", 200),
    "running": (lambda: f"/tasks/{running()}", 200),
    "done": (lambda: f"/tasks/{joined('u1')}", 200),
    "failed": (lambda: f"/tasks/{joined('')}", 200),
    "join done": (lambda: f"/tasks/{finished_join(MATCHED)}", 200),
    "empty join": (lambda: f"/tasks/{finished_join(NEVER_MATCHING)}", 200),
    "cancelled": (lambda: f"/tasks/{cancelled()}", 200),
    "long words": (lambda: f"/tasks/{joined('u' * 200)}", 200),
    "result": (lambda: f"/tasks/{joined('u17')}/result", 200),
    "empty result": (lambda: f"/tasks/{joined('nobody')}/result", 200),
    "expired result": (lambda: f"/tasks/{expired()}/result", 410),
    "replaced result": (lambda: f"/tasks/{replaced()}/result", 410),
    "tasks": (lambda: "/tasks", 200),
    "tasks of a requester": (lambda: f"/tasks?by={requested_by('ann@example.com')}", 200),
    "tasks, filtered": (lambda: "/tasks?key=note&value=nobody&q=x&status=FAILURE", 200),
    "rows without a match": (lambda: f"/tasks/{finished_join(UNMATCHED)}/result/unmatched/orders", 200),
    "result of many pages": (lambda: f"/tasks/{finished_join(UNMATCHED)}/result?page=2&columns=_id&columns=name", 200),
    "result, sorted and filtered": (lambda: f"/tasks/{finished_join(UNMATCHED)}/result?{QUERY}", 200),
    "result with an invalid query": (lambda: f"/tasks/{finished_join(UNMATCHED)}/result?{INVALID_QUERY}", 422),
    "columns": (lambda: f"/tasks/{finished_join(MATCHED)}/result/columns", 200),
    "files": (lambda: f"/tasks/{finished_join(MATCHED)}/result/files?make=csv&columns=amount", 200),
    "comparison": (compared, 200),
    "comparison without results": (lambda: f"/comparison?older={joined('')}&newer={joined('u1')}", 200),
    "unknown task": (lambda: "/tasks/no-such-task", 404),
    "unknown page": (lambda: "/nothing", 404),
    "invalid page": (lambda: "/tasks?limit=0", 422),
}


@pytest.fixture
def visit(watched_contexts: Callable[..., tuple[BrowserContext, FaultLog]], worker: Process) -> Visit:
    context, faults = watched_contexts(color_scheme="light", viewport={"width": 1280, "height": 800})
    page = context.new_page()

    def go(path: str, status: int, also_expected: int = 200) -> Page:
        faults.expected_statuses |= {status, also_expected}
        response = page.goto(path)
        assert response
        assert response.status == status
        return page

    return go


def assert_good(page: Page) -> None:
    """Asserts that the page is accessible and never scrolls sideways, in wide and narrow windows, light and dark."""
    # 640 is 1280 at a zoom of 200 %.
    for width in (1280, 640, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The dark theme changes only colours, so one width is enough.
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits_its_window(visit: Visit, name: str) -> None:
    address, status = PAGES[name]
    assert_good(visit(address(), status))


def test_an_empty_list_is_accessible_and_fits_its_window(visit: Visit, no_tasks: None) -> None:
    assert_good(visit("/tasks", 200))


def test_a_form_with_errors_is_accessible_and_fits_its_window(visit: Visit) -> None:
    page = visit("/user-orders", 200, also_expected=422)
    page.get_by_label("Key 3").fill("a.b")
    page.get_by_label("Value 3").fill("x" * 500)
    page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert_good(page)


def test_the_page_about_an_unreachable_server_is_accessible_and_fits_its_window(
    visit: Visit, mongodb_server: Server
) -> None:
    with paused(mongodb_server):
        page = visit("/tasks", 503)
    expect(page.get_by_role("heading", level=1)).to_have_text("MongoDB is away")
    assert_good(page)

"""A browser on the Procfile's web process, with a worker behind it. Every page is watched for faults."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from tests.support import Process

AXE = Path(__file__).parent / "vendor" / "axe-core@4.14.1" / "axe.min.js"
#: The rules for WCAG 2.2 AA, and axe-core's best practices.
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = os.environ.get("CHROMIUM")
    return {
        **browser_type_launch_args,
        **({"executable_path": chromium} if chromium else {}),
        "args": ["--no-sandbox", "--disable-background-networking"],
    }


class FaultLog:
    """Collects the console warnings, script errors and requests to other hosts of a context's pages."""

    def __init__(self, context: BrowserContext, address: str):
        self._address = address
        self._faults: list[str] = []
        #: Response statuses that a test expects, which the browser logs to its console as errors.
        self.expected_statuses: set[int] = set()
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("console", self._check_console)
        page.on("pageerror", lambda error: self._faults.append(f"error: {error}"))
        page.on("request", self._check_host)

    def _check_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(
            f"status of {status}" in message.text for status in self.expected_statuses
        ):
            self._faults.append(f"{message.type}: {message.text}")

    def _check_host(self, request: Request) -> None:
        if not request.url.startswith(f"{self._address}/"):
            self._faults.append(f"another host: {request.url}")

    def assert_empty(self) -> None:
        assert self._faults == []


Open = Callable[..., Page]


@pytest.fixture
def watched_contexts(
    browser: Browser, address: str, worker: Process
) -> Iterator[Callable[..., tuple[BrowserContext, FaultLog]]]:
    opened: list[tuple[BrowserContext, FaultLog]] = []

    def make(**options: Any) -> tuple[BrowserContext, FaultLog]:
        context = browser.new_context(base_url=address, **options)
        context.set_default_timeout(15_000)
        opened.append((context, FaultLog(context, address)))
        return opened[-1]

    yield make
    for context, _ in opened:
        context.close()
    for _, faults in opened:
        faults.assert_empty()


@pytest.fixture
def watched(watched_contexts: Callable[..., tuple[BrowserContext, FaultLog]]) -> tuple[Page, FaultLog]:
    """A page and its fault log, for tests of pages that fail on purpose."""
    context, faults = watched_contexts()
    return context.new_page(), faults


@pytest.fixture
def page(watched: tuple[Page, FaultLog]) -> Page:
    return watched[0]


@pytest.fixture
def page_without_javascript(watched_contexts: Callable[..., tuple[BrowserContext, FaultLog]]) -> Page:
    context, _ = watched_contexts(java_script_enabled=False)
    return context.new_page()


def violations(page: Page) -> list[str]:
    """Returns the rules of axe-core that the page violates, one line each."""
    page.evaluate(AXE.read_text())
    report = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", AXE_RULES)
    return [
        f"{rule['id']}: {rule['help']}: {[node['html'][:120] for node in rule['nodes']]}"
        for rule in report["violations"]
    ]

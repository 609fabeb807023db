"""A browser on the web process of the Procfile, with a worker behind it; every page is watched."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from tests.support import Process

AXE = Path(__file__).parent / "vendor" / "axe-core@4.14.1" / "axe.min.js"
#: What WCAG 2.2 AA asks, and what axe-core calls good practice.
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    found = os.environ.get("CHROMIUM")
    return {
        **browser_type_launch_args,
        **({"executable_path": found} if found else {}),
        "args": ["--no-sandbox", "--disable-background-networking"],
    }


class Watched:
    """What a page must never do: complain, fail, break its Content-Security-Policy, or ask another host."""

    def __init__(self, context: BrowserContext, address: str):
        self._address = address
        self._faults: list[str] = []
        #: Answers that a test is about, and that the browser writes to its console as errors.
        self.expected_statuses: set[int] = set()
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._faults.append(f"error: {error}"))
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(
            f"status of {status}" in message.text for status in self.expected_statuses
        ):
            self._faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self._address}/"):
            self._faults.append(f"another host: {request.url}")

    def assert_faultless(self) -> None:
        assert self._faults == []


Open = Callable[..., Page]


@pytest.fixture
def watched_contexts(
    browser: Browser, address: str, worker: Process
) -> Iterator[Callable[..., tuple[BrowserContext, Watched]]]:
    opened: list[tuple[BrowserContext, Watched]] = []

    def make(**options: Any) -> tuple[BrowserContext, Watched]:
        context = browser.new_context(base_url=address, **options)
        context.set_default_timeout(15_000)
        opened.append((context, Watched(context, address)))
        return opened[-1]

    yield make
    for context, _ in opened:
        context.close()
    for _, watched in opened:
        watched.assert_faultless()


@pytest.fixture
def watched(watched_contexts: Callable[..., tuple[BrowserContext, Watched]]) -> tuple[Page, Watched]:
    """A page and what is heard of it, for tests of pages that fail on purpose."""
    context, watched = watched_contexts()
    return context.new_page(), watched


@pytest.fixture
def page(watched: tuple[Page, Watched]) -> Page:
    return watched[0]


@pytest.fixture
def page_without_javascript(watched_contexts: Callable[..., tuple[BrowserContext, Watched]]) -> Page:
    context, _ = watched_contexts(java_script_enabled=False)
    return context.new_page()


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page, a line for each rule."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", AXE_RULES)
    return [
        f"{rule['id']}: {rule['help']}: {[node['html'][:120] for node in rule['nodes']]}"
        for rule in found["violations"]
    ]

"""Finds a Chromium for the browser tests, or fetches one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Error, sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
# The programs themselves where packages put them: what they put on PATH are shell scripts, which need tools on PATH.
PLACES = [
    "/usr/lib/chromium/chromium",
    "/usr/lib64/chromium-browser/chromium-browser",
    "/usr/lib/chromium-browser/chromium-browser",
    "/opt/google/chrome/chrome",
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
FETCH_WITHIN = 600.0  # seconds


class BrowserError(Exception):
    """There is no browser. The message is a sentence that says what to do."""


def find_browser() -> str | None:
    """The path of a Chromium that runs, or None where it is Playwright's own."""
    named = os.environ.get("CHROMIUM")
    if named and not runs(named):
        raise BrowserError(f"CHROMIUM names {named}, which does not run. Name another, or unset it.")
    browser = named or next(filter(runs, candidates()), None)
    if browser is None:
        fetch()
    return browser


def candidates() -> Iterator[str]:
    for name in NAMES:
        if found := shutil.which(name):
            yield found
    yield from filter(os.path.exists, PLACES)


def runs(program: str) -> bool:
    """Names on PATH may be stubs, which only say what to install."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def fetch() -> None:
    """Have Playwright download its own Chromium, unless it has, and see that it starts."""
    print("No Chromium is installed: Playwright fetches its own (about 150 MB, once) ...", file=sys.stderr, flush=True)
    advice = "Install Chromium (apt install chromium), or name one in CHROMIUM."
    try:
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_WITHIN)
        with sync_playwright() as playwright:
            playwright.chromium.launch().close()
    except subprocess.TimeoutExpired as error:
        raise BrowserError(f"The download of a browser took more than {FETCH_WITHIN:.0f} s. {advice}") from error
    except subprocess.CalledProcessError as error:
        raise BrowserError(
            f"There is no browser, and none could be downloaded: {_first_line(error.stderr)}. {advice}"
        ) from error
    except Error as error:
        raise BrowserError(
            f"The downloaded browser does not start here: {_first_line(error.message)}. {advice}"
        ) from error


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "no reason was given"

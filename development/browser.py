"""Finds a Chromium for the browser tests, or downloads one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Error, sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
# Where packages install the browser binary. On PATH they only install shell scripts, which need other tools on PATH.
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
    """No browser is available. The message says what to do."""


def find_browser() -> str | None:
    """Returns the path of an installed Chromium, or None to use Playwright's own, downloaded if necessary.

    Raises:
        BrowserError: no browser starts.
    """
    named = os.environ.get("CHROMIUM")
    if named and not runs(named):
        raise BrowserError(f"CHROMIUM names {named}, which does not run. Name another, or unset it.")
    browser = named or next(filter(runs, candidates()), None)
    if browser is None:
        fetch()
    return browser


def candidates() -> Iterator[str]:
    for name in NAMES:
        if path := shutil.which(name):
            yield path
    yield from filter(os.path.exists, PLACES)


def runs(program: str) -> bool:
    """Whether this program is a real browser. Names on PATH may be stubs that only ask to install a package."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def fetch() -> None:
    """Has Playwright download its own Chromium, unless it already has one, and checks that it starts."""
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

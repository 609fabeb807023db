"""find_browser() finds an installed browser and ignores programs that do not run."""

import sys
from pathlib import Path

import pytest

from development import browser


@pytest.fixture(autouse=True)
def no_chromium_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)


def stub(file: Path, code: str) -> Path:
    file.write_text(f"#!{sys.executable}\n{code}\n")
    file.chmod(0o755)
    return file


def test_a_browser_on_path_is_found(bare_path: Path) -> None:
    stub(bare_path / "chromium", "import sys; sys.exit('install the snap first')")
    chrome = stub(bare_path / "google-chrome", "print('Google Chrome 156')")
    assert browser.find_browser() == str(chrome)


def test_a_browser_in_a_known_place_off_path_is_found(
    bare_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium = stub(tmp_path / "real", "print('Chromium 156')")
    monkeypatch.setattr(browser, "PLACES", ["/nowhere/chromium", str(chromium)])
    assert browser.find_browser() == str(chromium)


def test_the_browser_that_chromium_names_comes_first(
    bare_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(bare_path / "chromium", "print('Chromium 156')")
    monkeypatch.setenv("CHROMIUM", str(stub(tmp_path / "mine", "print('Chromium 157')")))
    assert browser.find_browser() == str(tmp_path / "mine")


def test_a_named_browser_that_does_not_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(browser.BrowserError, match="which does not run"):
        browser.find_browser()

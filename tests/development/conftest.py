import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from development.servers import Server, start_mongodb

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MongoDB for one test module."""
    with start_mongodb(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, with python3 alone in it; a test adds the programs that it needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool], timeout: float = 10.0) -> None:
        give_up = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < give_up, f"still false after {timeout} s"
            time.sleep(0.05)

    return wait


@pytest.fixture
def python() -> Callable[..., subprocess.Popen[str]]:
    """Starts Python code in a process of its own, at the root of the repository."""

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start

"""Temporary folders are deleted after use, and later if their process was killed; never while one is in use."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import eventually
from worker_tasks.infra.scratch_folders import open_folder, remove_abandoned

USER = """
import sys
from pathlib import Path
from worker_tasks.infra.scratch_folders import open_folder

with open_folder() as folder:
    (folder / "spilled").write_text("data")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_is_deleted_after_use(temporary: Path) -> None:
    with open_folder() as folder:
        (folder / "spilled").mkdir()
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_a_folder_in_use_stays(temporary: Path) -> None:
    with open_folder() as first, open_folder() as second:
        assert remove_abandoned() == 0
        assert set(temporary.iterdir()) == {first, second}


def test_the_folder_of_a_killed_process_is_deleted_by_the_next_one(temporary: Path) -> None:
    command = [sys.executable, "-c", USER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        abandoned = Path(process.stdout.readline().strip())
        with open_folder():
            assert abandoned.is_dir()
        process.send_signal(signal.SIGKILL)
    with open_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_folders_and_links_of_others_stay(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (temporary / "dovetail-scratch-link").symlink_to(elsewhere)
    (temporary / "dovetail-notes").mkdir()
    (temporary / "dovetail-scratch-file").touch()
    assert remove_abandoned() == 0
    assert elsewhere.is_dir()
    assert len(list(temporary.iterdir())) == 3


def test_processes_that_start_at_once_keep_their_own_folders(temporary: Path) -> None:
    command = [sys.executable, "-c", USER]
    users = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        eventually(lambda: len(list(temporary.glob("*/spilled"))) == len(users))
    finally:
        for user in users:
            user.communicate(timeout=20)
    assert list(temporary.iterdir()) == []

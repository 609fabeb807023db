"""A fresh clone gets its .venv, or prints a message that says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from development import environment

ROOT = Path(__file__).resolve().parents[2]
HELLO = "print('hello')"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with the real bin/dev, no requirements, a stack that only prints hello, and no package index."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "bin", clone / "bin")
    (clone / "development").mkdir()
    for name in ("__init__.py", "environment.py", "locks.py"):
        shutil.copy(ROOT / "development" / name, clone / "development")
    (clone / "development" / "stack.py").write_text(HELLO)
    for name in (*environment.REQUIREMENTS, "requirements.txt"):
        (clone / name).write_text("# none\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return clone


def start(clone: Path, program: str = sys.executable) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [program, str(clone / "bin" / "dev")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def stub(file: Path, code: str) -> None:
    file.write_text(f"#!{sys.executable}\n{code}\n")
    file.chmod(0o755)


def test_two_first_starts_create_one_environment_and_later_starts_create_none(clone: Path) -> None:
    starts = [start(clone), start(clone)]
    outcomes = [finish(process) for process in starts]
    assert [(code, out) for code, out, _ in outcomes] == [(0, "hello\n")] * 2
    errors = "".join(err for *_, err in outcomes)
    assert errors.count("Making .venv") == 1
    assert errors.count("waiting for it") == 1
    assert finish(start(clone)) == (0, "hello\n", "")


def test_a_pip_failure_is_shown_with_advice_and_the_next_start_retries(clone: Path) -> None:
    pinned = f"dovetail-has-no-such-package==1.0 --hash=sha256:{'0' * 64}\n"
    (clone / "requirements-dev.txt").write_text(pinned)
    code, out, err = finish(start(clone))
    assert (code, out) == (1, "")
    error, advice = err.splitlines()[-2:]
    assert error.startswith("ERROR: No matching distribution found for dovetail-has-no-such-package")
    assert advice.startswith("The package index that pip uses has no such file for this Python and machine")
    (clone / "requirements-dev.txt").write_text("# none\n")
    code, out, err = finish(start(clone))
    assert (code, out) == (0, "hello\n")
    assert "Making .venv" in err


def test_advice_tells_a_network_failure_from_a_missing_package() -> None:
    output = "WARNING: Retrying (Retry(total=0)) after connection broken by ...\nERROR: No matching distribution found"
    assert environment.advice_on(output, "").startswith("The package index cannot be reached: check the network")


@pytest.mark.parametrize("version", ["3.8.18", "3.13.0", "3.14.1"])
def test_an_unsupported_python_is_refused_in_one_sentence(clone: Path, bare_path: Path, version: str) -> None:
    # This Python, pretending to be another version.
    stub(
        bare_path / "other",
        f"""
import runpy, sys
sys.version_info = ({version.replace(".", ", ")})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
""",
    )
    code, out, err = finish(start(clone, str(bare_path / "other")))
    assert (code, out) == (1, "")
    assert err == (
        f"Dovetail needs Python 3.11 or 3.12, and this is {version}. Install one of them so that python3.12 or "
        "python3.11 is on PATH, then run this again.\n"
    )
    assert not (clone / ".venv").exists()


def test_a_python_on_path_is_used_only_if_it_runs(bare_path: Path) -> None:
    stub(bare_path / "python3.12", "import sys; sys.exit('pyenv: python3.12: command not found')")
    with pytest.raises(environment.SetupError, match=r"needs Python 3\.11 or 3\.12"):
        environment.find_python()
    (bare_path / "python3.11").symlink_to(sys.executable)
    assert environment.find_python() == str(bare_path / "python3.11")


def test_a_moved_clone_gets_an_environment_of_its_own(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / ".venv" / "dovetail-stamp").write_text(
        "\n".join(["", "/elsewhere/.venv", os.path.realpath(sys.executable)])
    )
    is_ready = "from development import environment; print(environment.is_ready())"
    assert subprocess.check_output([sys.executable, "-c", is_ready], cwd=clone, text=True) == "False\n"

"""Makes .venv from the pinned requirements, once, and runs a module in it.

This runs on whatever python3 is there: with the standard library only, and without syntax that an old Python
cannot read, so that it comes as far as its sentence.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time

from development.locks import take_lock

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "dovetail-stamp")
REQUIREMENTS = ("requirements-dev.txt", "requirements-samples.txt")
VERSIONS = ((3, 11), (3, 12))  # those for which wheels of both embedded servers exist
INSTALL_WITHIN = 900  # seconds, on a slow line


class SetupError(Exception):
    """The environment cannot be made. The message says why, and what to do."""


def run(module: str, arguments: "list[str]") -> None:
    """Replace this process by `python -m module` in .venv, which is made first if need be."""
    try:
        if not is_ready():
            if sys.version_info[:2] not in VERSIONS:
                python = find_python()
                os.execv(python, [python, *sys.argv])
            make()
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nStopped before .venv was complete: the next start makes it anew.")
    os.chdir(ROOT)
    os.execv(PYTHON, [PYTHON, "-m", module, *arguments])


def find_python() -> str:
    """A Python of a version we can use. It must really run: pyenv leaves names on PATH that do not."""
    check = f"import sys; sys.exit(sys.version_info[:2] not in {VERSIONS})"
    for major, minor in reversed(VERSIONS):
        python = shutil.which(f"python{major}.{minor}")
        try:
            if python and subprocess.call([python, "-c", check], stderr=subprocess.DEVNULL, timeout=10) == 0:
                return python
        except (OSError, subprocess.TimeoutExpired):
            continue
    raise SetupError(
        f"Dovetail needs Python 3.11 or 3.12, and this is {_version()}. Install one of them so that python3.12 or "
        "python3.11 is on PATH, then run this again."
    )


def is_ready() -> bool:
    try:
        with open(STAMP, encoding="utf-8") as stamp:
            return stamp.read() == expected_stamp() and os.access(PYTHON, os.X_OK)
    except FileNotFoundError:
        return False


def expected_stamp() -> str:
    """What .venv was made from; also its place and its Python, since a moved clone or an upgraded system breaks it."""
    digest = hashlib.sha256()
    for name in (*REQUIREMENTS, "requirements.txt"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return "\n".join([digest.hexdigest(), VENV, os.path.realpath(PYTHON)])


def make() -> None:
    try:
        lock = os.open(ROOT, os.O_RDONLY)
    except OSError as error:
        raise SetupError(f"{ROOT} cannot be read ({error.strerror}). Make it yours, then run this again.") from error
    try:
        _wait_for(lock)
        if not is_ready():  # another start may just have made it
            _make_anew()
    finally:
        os.close(lock)


def _wait_for(lock: int) -> None:
    """Two first starts at once: the second waits for the first."""
    give_up = time.monotonic() + INSTALL_WITHIN
    said = False
    while not take_lock(lock):
        if time.monotonic() > give_up:
            raise SetupError("Another start has been making .venv for too long. Stop it, then run this again.")
        if not said:
            _say("Another start is making .venv: waiting for it.")
            said = True
        time.sleep(0.2)


def _make_anew() -> None:
    started = time.monotonic()
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError(
            f"This Python {_version()} cannot make virtual environments. Install the package python3-venv (on Debian "
            "and Ubuntu: apt install python3-venv), then run this again."
        )
    _say(f"Making .venv with Python {_version()} ...")
    _call([sys.executable, "-m", "venv", "--clear", VENV], "Look at that line, then run this again.")
    _say("Installing the pinned requirements (about 20 seconds) ...")
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    # The list is complete, so nothing is resolved; the samples' own requirement, pandas, is left out on purpose.
    command += ["--require-hashes", "--no-deps"]
    for name in REQUIREMENTS:
        command += ["-r", os.path.join(ROOT, name)]
    _call(command, "Look at that line, then run this again.")
    with open(STAMP, "w", encoding="utf-8") as stamp:
        stamp.write(expected_stamp())
    _say(f"Made in {time.monotonic() - started:.0f} s; the next start skips this.")


def _call(command: "list[str]", advice: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_WITHIN, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"This took longer than {INSTALL_WITHIN} s: {' '.join(command)}") from error
    if done.returncode == 0:
        return
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    last = ([line for line in lines if line.startswith("ERROR")] or lines or ["it wrote nothing"])[-1]
    raise SetupError(last + "\n" + advice_on(done.stderr, advice))


def advice_on(output: str, otherwise: str) -> str:
    """What to do after a failure of pip with this output."""
    if "connection broken" in output or "Failed to establish" in output or "timed out" in output:
        return "The package index cannot be reached: check the network (or pip's settings), then run this again."
    if "No matching distribution" in output:
        return (
            "The package index that pip uses has no such file for this Python and machine: use Python 3.11 or 3.12 on "
            "64-bit Linux, or another index (pip config), then run this again."
        )
    if "DO NOT MATCH THE HASHES" in output:
        return "What was downloaded is not what was pinned: do not use it; try another index, or run bin/lock."
    return otherwise


def _version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def _say(line: str) -> None:
    # Not on the standard output, which `bin/dev env` keeps for the shell.
    print(line, file=sys.stderr, flush=True)

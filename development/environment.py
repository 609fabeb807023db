"""Creates .venv from the pinned requirements, once, and runs a module in it.

Any python3 may run this file. It uses only the standard library and old syntax, so that an unsupported Python reaches
the error message.
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
VERSIONS = ((3, 11), (3, 12))  # the only versions for which both embedded servers have wheels
INSTALL_WITHIN = 900  # seconds, on a slow line


class SetupError(Exception):
    """The environment cannot be created. The message says why, and what to do."""


def run(module: str, arguments: "list[str]") -> None:
    """Replaces this process with `python -m module` in .venv, after creating .venv if necessary."""
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
    """Returns the path of a supported Python that runs. Some names on PATH do not, for example those that pyenv leaves.

    Raises:
        SetupError: there is none.
    """
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
    """Identifies the requirements, path and Python of .venv, which breaks if the clone moves or Python is upgraded."""
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
        if not is_ready():  # another start may have created it in the meantime
            _create()
    finally:
        os.close(lock)


def _wait_for(lock: int) -> None:
    """Waits until another first start in this clone has finished."""
    give_up = time.monotonic() + INSTALL_WITHIN
    announced = False
    while not take_lock(lock):
        if time.monotonic() > give_up:
            raise SetupError("Another start has been making .venv for too long. Stop it, then run this again.")
        if not announced:
            _say("Another start is making .venv: waiting for it.")
            announced = True
        time.sleep(0.2)


def _create() -> None:
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
    # The requirements are complete, so pip need not resolve dependencies. They leave out pandas on purpose: the package
    # with the samples requires it, but we only read the package's files.
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
    """Returns advice for a failure of pip with this output, or `otherwise` if the failure is unknown."""
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
    # Standard output is for the shell that evaluates `bin/dev env`.
    print(line, file=sys.stderr, flush=True)

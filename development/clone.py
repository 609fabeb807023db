"""The state that bin/dev keeps in var/: a lock, the running servers, and the ports and secret key of earlier runs."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from development.locks import take_lock
from development.servers import free_port, is_free


class CloneError(Exception):
    """This clone cannot be used. The message says what to do."""


class Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.var = folder / "var"
        self._running = self.var / "running.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Locks the clone against a second bin/dev for the duration of the block."""
        try:
            self.var.mkdir(exist_ok=True)
            lock = os.open(self.var / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CloneError(f"{self.var} cannot be used ({error.strerror}). Make it yours, or remove it.") from error
        try:
            if not take_lock(lock):
                running = self._read_running()
                where = f"process {running['pid']}, {running['address']}" if running else "it is just starting"
                raise CloneError(f"bin/dev already runs in this clone ({where}). Stop it first, or use that one.")
            self._running.unlink(missing_ok=True)  # a killed run left it behind
            yield
        finally:
            os.close(lock)

    @contextmanager
    def running(self, address: str, servers: Mapping[str, str]) -> Iterator[None]:
        """Publishes the running servers to other terminals for the duration of the block."""
        _write_private(self._running, json.dumps({"pid": os.getpid(), "address": address, "servers": dict(servers)}))
        try:
            yield
        finally:
            self._running.unlink(missing_ok=True)

    def servers(self) -> dict[str, str]:
        """Returns the URLs of the running servers by environment variable."""
        running = self._read_running()
        if running is None or not self._is_claimed():
            raise CloneError("bin/dev is not running in this clone. Start it first, in another terminal.")
        return dict(running["servers"])

    def secret_key(self) -> str:
        """Returns the clone's secret key, created once so that forms open in a browser survive a restart."""
        file = self.var / "secret_key"
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(32))
        return file.read_text()

    def port(self, server: str, usual: int) -> int:
        """Returns the usual port if it is free. Otherwise returns another port, the same on each start if possible."""
        if is_free(usual):
            return usual
        file = self.var / f"{server.lower()}.port"
        if not (file.exists() and is_free(int(file.read_text()))):
            file.write_text(str(free_port()))
        print(f"Port {usual} is taken: {server} listens on {file.read_text()} instead.", flush=True)
        return int(file.read_text())

    def _is_claimed(self) -> bool:
        lock = os.open(self.var / "lock", os.O_RDWR)
        try:
            return not take_lock(lock)
        finally:
            os.close(lock)

    def _read_running(self) -> dict[str, Any] | None:
        try:
            running: dict[str, Any] = json.loads(self._running.read_text())
        except FileNotFoundError:
            return None
        return running


def _write_private(file: Path, text: str) -> None:
    """Writes the file atomically and readable by its owner only, because URLs may hold passwords."""
    new = file.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(text)
    new.replace(file)

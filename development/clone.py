"""What bin/dev keeps in var/: that it runs once in a clone, what is running, and what it remembers between runs."""

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
    """This clone cannot be used as asked. The message is a sentence that says what to do."""


class Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.var = folder / "var"
        self._running = self.var / "running.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep a second bin/dev out of this clone for as long as this lasts."""
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
            self._running.unlink(missing_ok=True)  # of a run that was killed
            yield
        finally:
            os.close(lock)

    @contextmanager
    def running(self, address: str, servers: Mapping[str, str]) -> Iterator[None]:
        """Tell other terminals what is running, for as long as this lasts."""
        _write_private(self._running, json.dumps({"pid": os.getpid(), "address": address, "servers": dict(servers)}))
        try:
            yield
        finally:
            self._running.unlink(missing_ok=True)

    def servers(self) -> dict[str, str]:
        """The addresses of the running servers, by the names of their environment variables."""
        running = self._read_running()
        if running is None or not self._is_claimed():
            raise CloneError("bin/dev is not running in this clone. Start it first, in another terminal.")
        return dict(running["servers"])

    def secret_key(self) -> str:
        """Made once, so that forms open in a browser survive a restart."""
        file = self.var / "secret_key"
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(32))
        return file.read_text()

    def port(self, server: str, usual: int) -> int:
        """The usual port where it is free; else another one, the same each time where that is possible."""
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
    """Whole or not at all, and for nobody else's eyes: addresses may hold passwords."""
    new = file.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(text)
    new.replace(file)

"""Runs the Procfile's processes together and prints each line of their output with the name of its process.

honcho parses the file and prints the lines. Its Manager is unsuitable for three reasons: it watches each process from a
forked copy of itself, it prints from signal handlers (which fails in the middle of another print), and it offers no way
to wait for readiness.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from development.lifetime import end_with_parent


def read_procfile(path: Path) -> dict[str, str]:
    """Returns the commands of a Procfile by process type."""
    return dict(parse_procfile(path.read_text(encoding="utf-8")).processes)


class Processes:
    """The running processes of a Procfile."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []
        self._printer = Printer(sys.stdout)
        self._one_line_at_a_time = threading.Lock()
        self._colours = get_colours()

    def start(self, name: str, command: str) -> None:
        self._printer.width = max(self._printer.width, len(name))
        process = subprocess.Popen(  # noqa: S602 - the commands are the repository's own
            command,
            shell=True,  # as every runner of Procfiles does
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must reach only us; we stop everything in order
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - takes no lock; the servers end too
        )
        self._running[name] = process
        reader = threading.Thread(target=self._show, args=(name, process.stdout, next(self._colours)), daemon=True)
        reader.start()
        self._readers.append(reader)

    def ended(self) -> dict[str, int]:
        """Returns the exit codes of the processes that have ended."""
        return {name: code for name, process in self._running.items() if (code := process.poll()) is not None}

    def stop(self, timeout: float) -> None:
        """Terminates all processes; after `timeout` seconds kills the remaining ones and their descendants."""
        for process in self._running.values():
            _signal_group(process, signal.SIGTERM)
        give_up = time.monotonic() + timeout
        while len(self.ended()) < len(self._running) and time.monotonic() < give_up:
            time.sleep(0.05)
        for process in self._running.values():
            _signal_group(process, signal.SIGKILL)
            process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout=1)

    def say(self, text: str) -> None:
        """Prints a message of our own between the lines of the processes."""
        with self._one_line_at_a_time:
            print(text, flush=True)

    def _show(self, name: str, lines: IO[bytes], colour: str) -> None:
        for line in lines:
            with self._one_line_at_a_time:
                self._printer.write(Message("line", line, datetime.now().astimezone(), name, colour))


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the whole group has ended
        os.killpg(process.pid, number)

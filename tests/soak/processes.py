"""One process of the Procfile, which can be killed, frozen, started again and measured."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from development.lifetime import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that a process may take to end after SIGTERM.
STOPPED_WITHIN = 25.0


class Process:
    """One process of the Procfile in a group of its own; all its lives write into one log."""

    def __init__(self, name: str, command: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        #: Whether the soak wants it to be away just now.
        self.is_wanted = True
        self._command = command
        self._environment = environment
        self._said_before = 0
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._said_before = output.tell()
            self._process = subprocess.Popen(  # noqa: S602 - the commands are the repository's own
                self._command,
                shell=True,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - takes no lock
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """To the whole group; to nobody where it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(STOPPED_WITHIN)

    def has_said(self, text: str) -> bool:
        """Whether this stands in what it wrote since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._said_before)
            return text.encode() in log.read()

    def children(self) -> list[int]:
        return children_of(self.pid)

    def memory_mib(self) -> int:
        """What it and its children have resident."""
        return sum(map(_resident_kib, [self.pid, *self.children()])) // 1024

    def last_words(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it ended just now
        return []


def _resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

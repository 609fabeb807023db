"""A process of the Procfile that can be killed, frozen, restarted and measured."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from development.lifetime import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
#: The time limit for a process to end after SIGTERM, in seconds.
STOPPED_WITHIN = 25.0


class Process:
    """A process of the Procfile in its own process group; all its runs append to one log."""

    def __init__(self, name: str, command: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        #: False while a fault keeps the process down.
        self.is_wanted = True
        self._command = command
        self._environment = environment
        self._log_start = 0
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._log_start = output.tell()
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
        """The exit code, None while the process runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Signals the whole group, if it still exists."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait(STOPPED_WITHIN)

    def has_logged(self, text: str) -> bool:
        """Whether the log since the last start contains this text."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return text.encode() in log.read()

    def children(self) -> list[int]:
        return children_of(self.pid)

    def memory_mib(self) -> int:
        """Returns the resident memory of the process and its children, in MiB."""
        return sum(map(_resident_kib, [self.pid, *self.children()])) // 1024

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has just ended
        return []


def _resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

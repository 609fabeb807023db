"""The web process's log: lines like the worker's, each with the request, and the task, that it is about."""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

#: As Celery's worker writes its lines, and what a line is about in the place where it names its task.
LINE = "[%(asctime)s: %(levelname)s/%(processName)s] %(about)s%(message)s"
#: The header that names a request, on the way in and out.
REQUEST_ID = "X-Request-ID"
#: An id that somebody else gave a request, and that can stand in a line and in a header.
SANE_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")
#: Characters that would end a line, or do worse to a terminal.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class About:
    """What the lines of a thread are about."""

    request_id: str | None = None
    task_id: str | None = None

    def __str__(self) -> str:
        named = [("request", self.request_id), ("task", self.task_id)]
        said = " ".join(f"{name}[{value}]" for name, value in named if value is not None)
        return f"{said}: " if said else ""


NOTHING = About()
_about: ContextVar[About] = ContextVar("about", default=NOTHING)


def about_request(request_id: str) -> None:
    """The lines that follow are about this request."""
    _about.set(About(request_id))


def about_task(task_id: str) -> None:
    """The lines that follow, of the same request, are about this task."""
    _about.set(About(_about.get().request_id, task_id))


def about_nothing() -> None:
    """The request is over."""
    _about.set(NOTHING)


class Bound(logging.Filter):
    """Binds what it is about to every line, whoever writes it."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = _about.get()
        record.request_id, record.task_id, record.about = about.request_id, about.task_id, str(about)
        return True


class OneLine(logging.Formatter):
    """Keeps a record on one line, whatever somebody put into an address; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def set_up() -> None:
    """Writes every line to standard error, from INFO on, as the worker does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Bound())
    handler.setFormatter(OneLine(LINE))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class RequestIds:
    """Names each request, by the id that it brings if that is sane, in the log and in the answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]]):
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        brought = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = brought if SANE_ID.fullmatch(brought) else uuid4().hex
        about_request(request_id)

        def started(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID, request_id)], *exc_info)

        return self._app(environ, started)

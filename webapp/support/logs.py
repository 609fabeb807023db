"""Logging of the web process in the worker's format, with the request id and task id on every line."""

import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

#: Celery's worker_log_format with the request id and task id before the message.
LINE_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(about)s%(message)s"
#: The header with the request id, in requests and responses.
REQUEST_ID = "X-Request-ID"
#: A client's request id that is safe to log and to send back.
SAFE_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")
#: Line breaks and other control characters.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class LogContext:
    """The request and the task that the current thread works on."""

    request_id: str | None = None
    task_id: str | None = None

    def __str__(self) -> str:
        ids = [("request", self.request_id), ("task", self.task_id)]
        text = " ".join(f"{name}[{value}]" for name, value in ids if value is not None)
        return f"{text}: " if text else ""


NO_CONTEXT = LogContext()
_about: ContextVar[LogContext] = ContextVar("about", default=NO_CONTEXT)


def bind_request(request_id: str) -> None:
    """Adds a request id to the following log lines."""
    _about.set(LogContext(request_id))


def bind_task(task_id: str) -> None:
    """Adds the id of the current request's task to the following log lines."""
    _about.set(LogContext(_about.get().request_id, task_id))


def unbind() -> None:
    """Removes the request id and task id from the following log lines."""
    _about.set(NO_CONTEXT)


class ContextFilter(logging.Filter):
    """Adds the request id and task id to the records of every logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = _about.get()
        record.request_id, record.task_id, record.about = about.request_id, about.task_id, str(about)
        return True


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in messages, so that a URL cannot forge log lines. Tracebacks keep line breaks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), line)


def configure_logging() -> None:
    """Logs to standard error at level INFO, like the worker."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(ContextFilter())
    handler.setFormatter(OneLineFormatter(LINE_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class RequestIds:
    """WSGI middleware that takes the client's X-Request-ID or creates one, and adds it to the log and the response."""

    def __init__(self, app: Callable[..., Iterable[bytes]]):
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        received = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = received if SAFE_ID.fullmatch(received) else uuid4().hex
        bind_request(request_id)

        def start_with_id(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, (REQUEST_ID, request_id)], *exc_info)

        return self._app(environ, start_with_id)

"""Turns every error into a page or an ``application/problem+json`` response (RFC 9457)."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, json, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug import exceptions
from werkzeug.exceptions import Conflict, Gone, HTTPException

from webapp.support.bodies import UnreadableBody
from webapp.support.metadata_edits import EditConflict
from worker_tasks.infra.errors import (
    InvalidInput,
    SavedJoinNotFound,
    SearchTooSlow,
    ServiceUnavailable,
    TaskNotFound,
    is_unavailable,
    to_service_unavailable,
)
from worker_tasks.results.result_store import ResultGone

RETRY_AFTER_SECONDS = "5"
WENT_AWAY = "The result went away while it was read: it expired, was replaced or discarded, or Redis lost it."

logger = logging.getLogger(__name__)


class Busy(exceptions.ServiceUnavailable):
    """All download slots are taken, or a worker is still making the file."""


def register(app: Flask) -> None:
    """Registers a handler for every kind of error."""
    app.register_error_handler(InvalidInput, _invalid_input)
    app.register_error_handler(UnreadableBody, _unreadable_body)
    app.register_error_handler(Conflict, _conflict)
    app.register_error_handler(EditConflict, _edit_conflict)
    app.register_error_handler(Gone, _gone)
    app.register_error_handler(SearchTooSlow, lambda error: _invalid_input(InvalidInput({"q": str(error)})))
    app.register_error_handler(TaskNotFound, _not_found)
    app.register_error_handler(SavedJoinNotFound, _not_found)
    app.register_error_handler(ServiceUnavailable, service_unavailable)
    app.register_error_handler(ResultGone, lambda error: _gone(Gone(WENT_AWAY)))
    app.register_error_handler(Busy, _busy)
    app.register_error_handler(CSRFError, _csrf_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def prefers_json() -> bool:
    """Whether to answer in JSON: always on the API's routes, elsewhere unless the client prefers HTML."""
    if request.blueprint == "api" or request.path.startswith("/api/"):
        return True
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html"


def error_response(status: int, title: str, detail: str, errors: dict[str, str] | None = None, **more: Any) -> Response:
    """The error as a page, or as a problem document with ``more`` members."""
    if not prefers_json():
        return Response(render_template("error.html", status=status, title=title, detail=detail), status)
    problem: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    if errors:
        problem["errors"] = [{"field": field, "message": message} for field, message in errors.items()]
    return Response(json.dumps(problem), status, content_type="application/problem+json")


def _invalid_input(error: InvalidInput) -> Response:
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "This cannot be done as asked", str(error), error.errors)


def _unreadable_body(error: UnreadableBody) -> Response:
    return error_response(
        HTTPStatus.BAD_REQUEST, "The request could not be read", error.description or "", error.errors
    )


def _conflict(error: Conflict) -> Response:
    return error_response(HTTPStatus.CONFLICT, "Not as the task is now", error.description or "")


def _edit_conflict(error: EditConflict) -> Response:
    conflicts = {key: values._asdict() for key, values in error.conflicts.items()}
    return error_response(HTTPStatus.CONFLICT, "Changed meanwhile", error.description or "", conflicts=conflicts)


def _gone(error: Gone) -> Response:
    return error_response(HTTPStatus.GONE, "No longer there", error.description or "")


def _not_found(error: TaskNotFound | SavedJoinNotFound) -> Response:
    title = "No such task" if isinstance(error, TaskNotFound) else "No such join"
    return error_response(HTTPStatus.NOT_FOUND, title, str(error))


def _busy(error: Busy) -> Response:
    response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, "Not yet", error.description or "")
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def service_unavailable(error: ServiceUnavailable, page: str | None = None) -> Response:
    """The 503 response for an unavailable server. ``page`` replaces the standard error page."""
    logger.warning("%s %s: %s", request.method, request.path, error)
    if page is None:
        response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, error.title, str(error))
    else:
        response = Response(page, HTTPStatus.SERVICE_UNAVAILABLE, content_type="text/html; charset=utf-8")
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def _csrf_error(error: CSRFError) -> Response:
    return error_response(
        HTTPStatus.BAD_REQUEST,
        "The form could not be taken",
        "Its protection against forged requests does not fit this browser any more. "
        "Go back, reload the page and send it again. Cookies must be allowed.",
    )


def _http_error(error: HTTPException) -> Response:
    if error.code is None or error.response is not None:
        return Response(error.get_body(), error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    if error.code == HTTPStatus.NOT_FOUND:
        return error_response(error.code, "Nothing here", "There is no page at this address.")
    response = error_response(error.code, error.name, error.description or error.name)
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
    return response


def _unexpected(error: Exception) -> Response:
    """503 for drivers' errors that mean an unavailable server, 500 for anything else."""
    return service_unavailable(to_service_unavailable(error)) if is_unavailable(error) else _internal_error(error)


def _internal_error(error: Exception) -> Response:
    if current_app.config["PROPAGATE_EXCEPTIONS"]:
        raise error
    logger.error("%s %s", request.method, request.path, exc_info=error)
    return error_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Something broke on our side",
        "The request was not finished. The reason is in the server's log.",
    )

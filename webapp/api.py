"""The same things as JSON, beginning with the calls of the origin."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from webapp import presentation
from webapp.errors import answer
from webapp.forms import MAX_INPUT_LENGTH
from worker_tasks import ledger
from worker_tasks.errors import InvalidInput
from worker_tasks.joins import user_orders
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

blueprint = Blueprint("api", __name__)


class UnreadableBody(BadRequest):
    """The body is not the JSON that it should be."""

    def __init__(self, field: str, message: str):
        self.errors = {field: message}
        super().__init__(f"{field}: {message}")


@blueprint.errorhandler(UnreadableBody)
def unreadable_body(error: UnreadableBody) -> ResponseReturnValue:
    return answer(HTTPStatus.BAD_REQUEST, "The request could not be read", error.description or "", error.errors)


@blueprint.post("/create-task")
def create_task() -> ResponseReturnValue:
    """Submits the practice task; every key beside ``task_input`` is metadata."""
    body = _json_object()
    task_input = body.pop("task_input", None)
    if not isinstance(task_input, str) or not task_input.strip():
        raise InvalidInput({"task_input": "must be text that is not empty."})
    if len(task_input) > MAX_INPUT_LENGTH:
        raise InvalidInput({"task_input": f"has at most {MAX_INPUT_LENGTH:,} characters."})
    return jsonify(submit(long_running_task, task_input, metadata=body))


@blueprint.get("/task/<task_id>")
def task(task_id: str) -> ResponseReturnValue:
    found = ledger.find(task_id)
    return jsonify({"status": presentation.state_words(found["status"]).name, "result": presentation.returned(found)})


@blueprint.post("/api/v1/joins/user-orders")
def join_user_orders() -> ResponseReturnValue:
    """Submits the original join: ``{"user_id": …, "metadata": {…}}``."""
    body = _json_object()
    if complaint := user_orders.user_id_complaint(body.get("user_id")):
        raise InvalidInput({"user_id": complaint})
    task_id = submit(join_users_orders, body["user_id"], metadata=body.get("metadata", {}))
    response = jsonify({"task_id": task_id})
    response.headers["Location"] = url_for(".task", task_id=task_id)
    return response, HTTPStatus.ACCEPTED


def _json_object() -> dict[str, Any]:
    """The request's body.

    Raises:
        UnreadableBody: it is not declared as JSON, is not JSON, or is not an object.
    """
    if not request.is_json:
        raise UnreadableBody("Content-Type", "must be application/json.")
    body = request.get_json(silent=True)
    if body is None and request.get_data(as_text=True).strip() != "null":
        raise UnreadableBody("body", "is not valid JSON.")
    if not isinstance(body, dict):
        raise UnreadableBody("body", "must be a JSON object.")
    return body

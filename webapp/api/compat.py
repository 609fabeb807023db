"""The JSON endpoints of the original tutorials, and the endpoint of the original join."""

from http import HTTPStatus

from flask import Blueprint, jsonify, url_for
from flask.typing import ResponseReturnValue

from webapp.presenters import task_text
from webapp.support import access
from webapp.support.bodies import json_object
from webapp.support.forms import MAX_INPUT_LENGTH
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.plan import user_orders
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

blueprint = Blueprint("api", __name__)


@blueprint.post("/create-task")
def create_task() -> ResponseReturnValue:
    """Submits the practice task. Every key except ``task_input`` becomes metadata."""
    body = json_object()
    task_input = body.pop("task_input", None)
    if not isinstance(task_input, str) or not task_input.strip():
        raise InvalidInput({"task_input": "must be text that is not empty."})
    if len(task_input) > MAX_INPUT_LENGTH:
        raise InvalidInput({"task_input": f"has at most {MAX_INPUT_LENGTH:,} characters."})
    return jsonify(submit(long_running_task, task_input, metadata=body))


@blueprint.get("/task/<task_id>")
def task(task_id: str) -> ResponseReturnValue:
    document = access.task_for(access.viewer(), task_id)
    state = task_text.describe_state(document["status"])
    return jsonify({"status": state.name, "result": task_text.decode_result(document)})


@blueprint.post("/api/v1/joins/user-orders")
def join_user_orders() -> ResponseReturnValue:
    """Submits the original join: ``{"user_id": …, "metadata": {…}}``."""
    body = json_object()
    if error := user_orders.user_id_error(body.get("user_id")):
        raise InvalidInput({"user_id": error})
    task_id = submit(join_users_orders, body["user_id"], metadata=body.get("metadata", {}))
    response = jsonify({"task_id": task_id})
    response.headers["Location"] = url_for(".task", task_id=task_id)
    return response, HTTPStatus.ACCEPTED

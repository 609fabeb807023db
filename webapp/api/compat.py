"""The same things as JSON, beginning with the calls of the origin."""

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
    """Submits the practice task; every key beside ``task_input`` is metadata."""
    body = json_object()
    task_input = body.pop("task_input", None)
    if not isinstance(task_input, str) or not task_input.strip():
        raise InvalidInput({"task_input": "must be text that is not empty."})
    if len(task_input) > MAX_INPUT_LENGTH:
        raise InvalidInput({"task_input": f"has at most {MAX_INPUT_LENGTH:,} characters."})
    return jsonify(submit(long_running_task, task_input, metadata=body))


@blueprint.get("/task/<task_id>")
def task(task_id: str) -> ResponseReturnValue:
    found = access.task_for(access.viewer(), task_id)
    return jsonify({"status": task_text.describe_state(found["status"]).name, "result": task_text.decode_result(found)})


@blueprint.post("/api/v1/joins/user-orders")
def join_user_orders() -> ResponseReturnValue:
    """Submits the original join: ``{"user_id": …, "metadata": {…}}``."""
    body = json_object()
    if complaint := user_orders.user_id_error(body.get("user_id")):
        raise InvalidInput({"user_id": complaint})
    task_id = submit(join_users_orders, body["user_id"], metadata=body.get("metadata", {}))
    response = jsonify({"task_id": task_id})
    response.headers["Location"] = url_for(".task", task_id=task_id)
    return response, HTTPStatus.ACCEPTED

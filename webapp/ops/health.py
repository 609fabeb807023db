"""/healthz: this process is alive. /readyz: it can serve, or what is away."""

from http import HTTPStatus

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from worker_tasks.infra import redis_memory
from worker_tasks.infra.connections import connections

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    return jsonify({"status": "alive"})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    answers = connections().ping()
    away = [name for name, answer in answers.items() if answer != "ok"]
    if away:
        body = {"status": "away", "away": away, "servers": answers}
        return jsonify(body), HTTPStatus.SERVICE_UNAVAILABLE
    # Ready all the same: what is there can be read, and to be sent to another web process helps nobody.
    return jsonify({"status": "ready", "away": [], "servers": answers, "full": redis_memory.describe_shortage()})

"""Health checks. /healthz tells whether the process is alive, /readyz whether its servers answer."""

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
    # A full Redis does not make the process unready. Redis still serves reads, and other web processes share it anyway.
    return jsonify({"status": "ready", "away": [], "servers": answers, "full": redis_memory.describe_shortage()})

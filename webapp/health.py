"""/healthz: this process is alive. /readyz: it can serve, or what is away."""

from http import HTTPStatus

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from worker_tasks.connections import connections

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    return jsonify({"status": "alive"})


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    answers = connections().ping()
    away = [name for name, answer in answers.items() if answer != "ok"]
    status = HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.OK
    return jsonify({"status": "away" if away else "ready", "away": away, "servers": answers}), status

"""Reads JSON from requests and names the part that is wrong."""

import json
from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

TOO_DEEP = "is nested too deep."


class UnreadableBody(BadRequest):
    """The request does not hold the expected JSON. ``errors`` has a message by field."""

    code = HTTPStatus.BAD_REQUEST

    def __init__(self, field: str, message: str):
        self.errors = {field: message}
        super().__init__(f"{field}: {message}")


def json_object() -> dict[str, Any]:
    """The JSON object in the body of the request.

    Raises:
        UnreadableBody: the content type is not JSON, or the body is not a JSON object.
    """
    if not request.is_json:
        raise UnreadableBody("Content-Type", "must be application/json.")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        raise UnreadableBody("body", TOO_DEEP) from None
    if body is None and request.get_data(as_text=True).strip() != "null":
        raise UnreadableBody("body", "is not valid JSON.")
    if not isinstance(body, dict):
        raise UnreadableBody("body", "must be a JSON object.")
    return body


def json_argument(name: str) -> Any:
    """The JSON value of a query parameter, which must be present.

    Raises:
        UnreadableBody: the parameter is not valid JSON.
    """
    try:
        return json.loads(request.args[name])
    except ValueError:
        raise UnreadableBody(name, "is not valid JSON.") from None
    except RecursionError:
        raise UnreadableBody(name, TOO_DEEP) from None

"""The JSON body of a request, read once and refused in words."""

import json
from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

TOO_DEEP = "is nested too deep."


class UnreadableBody(BadRequest):
    """The body is not the JSON that it should be. ``errors`` maps what is wrong to why."""

    code = HTTPStatus.BAD_REQUEST

    def __init__(self, field: str, message: str):
        self.errors = {field: message}
        super().__init__(f"{field}: {message}")


def json_object() -> dict[str, Any]:
    """The request's body.

    Raises:
        UnreadableBody: it is not declared as JSON, is not JSON, or is not an object.
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
    """JSON that stands in the query of the address.

    Raises:
        UnreadableBody: it is none.
    """
    try:
        return json.loads(request.args[name])
    except ValueError:
        raise UnreadableBody(name, "is not valid JSON.") from None
    except RecursionError:
        raise UnreadableBody(name, TOO_DEEP) from None

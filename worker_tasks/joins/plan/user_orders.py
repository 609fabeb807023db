"""The original join: one user with all of their orders."""

from typing import Any

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.settings import settings
from worker_tasks.joins.plan.planning import Plan
from worker_tasks.joins.spec.sides import Side

MAX_USER_ID_LENGTH = 200


def user_id_error(user_id: Any) -> str | None:
    """The error in a user id, or None if it is valid."""
    if not isinstance(user_id, str):
        return "must be text."
    if not user_id.strip():
        return "must not be empty: give the _id of a user, such as u1."
    if len(user_id) > MAX_USER_ID_LENGTH:
        return f"has {len(user_id):,} characters; at most {MAX_USER_ID_LENGTH} are allowed."
    if "\0" in user_id or not _is_unicode(user_id):
        return "must be valid Unicode without NUL."
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def pipeline(user_id: str) -> list[dict[str, Any]]:
    """The aggregation on ``users``. ``$eq`` keeps MongoDB from reading the id as an operator."""
    return [
        {"$match": {"_id": {"$eq": user_id}}},
        {"$lookup": {"from": "orders", "localField": "_id", "foreignField": "userId", "as": "orders"}},
    ]


def result_key(user_id: str) -> str:
    """The Redis key of this user's joined documents."""
    return f"user_order_result:{user_id}"


def plan(user_id: str) -> Plan:
    """The plan that joins this user with their orders.

    Raises:
        InvalidInput: the user id is invalid.
    """
    if error := user_id_error(user_id):
        raise InvalidInput({"user_id": error})
    return Plan(result_key(user_id), Side(None, settings().join_database, "users"), pipeline(user_id))

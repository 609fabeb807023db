"""The release phase: checks the settings and the servers, makes the indexes. ``python -m worker_tasks.release``"""

import sys

import pymongo
from celery import states
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError, ResponseError

from worker_tasks.connections import close_connections, connections
from worker_tasks.ledger import NEWEST_FIRST
from worker_tasks.metadata import labels_of
from worker_tasks.settings import SettingsError

#: Characters of a server's refusal that are shown.
MESSAGE_LENGTH = 300


def release() -> str | None:
    """Makes ready what web and worker rely on; returns what is wrong, if anything."""
    try:
        answers = connections().ping()
    except SettingsError as error:
        return str(error)
    if away := {name: answer for name, answer in answers.items() if answer != "ok"}:
        return "; ".join(f"{name} does not answer ({reason})" for name, reason in away.items())
    ensure_indexes()
    label_old_tasks()
    if warning := eviction_warning():
        print(warning, file=sys.stderr)
    return None


def problem() -> str | None:
    """What is wrong, in one line, whatever it is; None where everything is ready."""
    try:
        return release()
    except OperationFailure as error:
        said = error.details or {}
        return (
            f"MongoDB refuses it: {_shortened(said.get('errmsg') or str(error))} ({said.get('codeName', error.code)})"
        )
    except PyMongoError as error:
        return f"MONGODB_URI cannot be used: {_shortened(str(error))} ({type(error).__name__})"
    except RedisError as error:
        return f"Redis refuses it: {_shortened(str(error))} ({type(error).__name__})"


def _shortened(message: str) -> str:
    """One line of it. What comes after a brace is the command that was refused, with all that goes with it."""
    return " ".join(message.partition("{")[0].split())[:MESSAGE_LENGTH].rstrip()


def ensure_indexes() -> None:
    """Makes the indexes that the queries here use, and the one that ends a document's retention.

    Raises:
        pymongo.errors.PyMongoError: not all of them are there.
    """
    connections().tasks.create_indexes(
        [
            pymongo.IndexModel(NEWEST_FIRST),
            # Each begins with what is asked for and goes on in the order of the list, so that no page is sorted.
            pymongo.IndexModel([("labels", 1), *NEWEST_FIRST]),
            # The rare states alone: the others are found without it, and each index is written at every change.
            pymongo.IndexModel(
                [("status", 1), *NEWEST_FIRST],
                partialFilterExpression={"status": {"$in": [states.FAILURE, states.REVOKED]}},
            ),
            *(
                pymongo.IndexModel([(field, 1), *NEWEST_FIRST], partialFilterExpression={field: {"$type": "string"}})
                for field in ("fingerprint", "requested_by")
            ),
            pymongo.IndexModel([("status", 1), ("changed_at", 1)]),
            pymongo.IndexModel("leads", unique=True, partialFilterExpression={"leads": {"$type": "string"}}),
            pymongo.IndexModel("shares", partialFilterExpression={"shares": {"$type": "string"}}),
            # Not on date_done: Celery's own backend makes a plain index there, and the two would collide.
            pymongo.IndexModel("expires_at", expireAfterSeconds=0),
        ]
    )


def label_old_tasks() -> None:
    """Gives tasks that were recorded by an older version what they are found by.

    Raises:
        pymongo.errors.PyMongoError: not known to be done.
    """
    for task in connections().tasks.find({"labels": {"$exists": False}}, {"metadata": True}):
        labels = labels_of(task.get("metadata") or {})
        connections().tasks.update_one({"_id": task["_id"]}, {"$set": {"labels": labels}})


def eviction_warning() -> str | None:
    """Redis may be set to delete queued tasks when it is full, in silence."""
    try:
        policy = str(connections().queue.config_get("maxmemory-policy").get("maxmemory-policy"))
    except ResponseError as error:
        # Hosted servers often keep their configuration to themselves.
        return f"Redis does not tell its maxmemory-policy ({error}): make sure that it is noeviction or volatile-ttl."
    if policy.startswith("allkeys-"):
        return (
            f"Redis is set to {policy}: when it is full it deletes queued tasks. "
            "Set maxmemory-policy to noeviction or volatile-ttl."
        )
    return None


if __name__ == "__main__":
    complaint = problem()
    close_connections()
    sys.exit(f"release: {complaint}" if complaint else 0)

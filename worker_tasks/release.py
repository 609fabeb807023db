"""The release phase: checks the settings and the servers, makes the indexes. ``python -m worker_tasks.release``"""

import sys

import pymongo
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError, ResponseError

from worker_tasks.infra.connections import close_connections, connections
from worker_tasks.infra.settings import SettingsError
from worker_tasks.joins.saved import saved_joins
from worker_tasks.records.indexes import BUILD_SECONDS, ensure_indexes
from worker_tasks.records.ledger import new_document
from worker_tasks.records.old_documents import ORIGINAL_WAITING, all_fields, complete_document

__all__ = ["ensure_indexes", "release"]

#: Where kombu keeps what is bound to the exchange of the default queue, and the second queue as it was bound there.
OLD_BINDING = "celery\x06\x16\x06\x16reading"
BINDINGS = ("_kombu.binding.celery", "_kombu.binding_permanent.celery")
#: Characters of a server's refusal that are shown.
MESSAGE_LENGTH = 300


def release() -> str | None:
    """Makes ready what web and worker rely on; returns what is wrong, if anything."""
    try:
        answers = connections().ping()
    except SettingsError as error:
        return str(error)
    if away := {name: answer for name, answer in answers.items() if answer != "ok"}:
        return "; ".join(f"{name} cannot be used ({reason})" for name, reason in away.items())
    ensure_indexes()
    complete_old_documents()
    saved_joins.convert_old()
    unbind_reading_queue()
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


def complete_old_documents() -> None:
    """Gives task documents what they lack that the original application, a stock backend or an older version wrote.

    Raises:
        pymongo.errors.PyMongoError: not known to be done.
    """
    tasks = connections().tasks
    lacking = [{field: {"$exists": False}} for field in sorted(all_fields(new_document))]
    with pymongo.timeout(BUILD_SECONDS):
        # A message without an id left one; nothing can name it.
        tasks.delete_many({"_id": None})
        # All at once, because every document of an older version lacks these.
        for field in ("crashes", "retries"):
            tasks.update_many({field: {"$exists": False}}, {"$set": {field: 0}})
        for task in tasks.find({"$or": [{"status": ORIGINAL_WAITING}, *lacking]}):
            whole = complete_document(task, new_document)
            changed = {field: value for field, value in whole.items() if field not in task or task[field] != value}
            if unreadable := {field: task[field] for field in changed if task.get(field) is not None}:
                changed["unreadable"] = unreadable
            # If a worker has taken it meanwhile, that one's state stays.
            tasks.update_one({"_id": task["_id"], "status": task.get("status")}, {"$set": changed})


def unbind_reading_queue() -> None:
    """An older version had bound the second queue to the exchange of the first: what was sent there was run twice.

    Raises:
        redis.exceptions.RedisError: not known to be done.
    """
    for key in BINDINGS:
        connections().queue.srem(key, OLD_BINDING)


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

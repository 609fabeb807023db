"""The release phase: checks settings and servers, makes indexes, migrates data. ``python -m worker_tasks.release``"""

import sys

import pymongo
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError, ResponseError

from worker_tasks.infra.connections import close_connections, connections
from worker_tasks.infra.errors import is_refusal
from worker_tasks.infra.privileges import Privileges, find_privileges
from worker_tasks.infra.settings import SettingsError, source_variable
from worker_tasks.infra.sources import Source, all_sources
from worker_tasks.joins.saved import saved_joins
from worker_tasks.records.indexes import BUILD_SECONDS, ensure_indexes
from worker_tasks.records.ledger import new_document
from worker_tasks.records.old_documents import ORIGINAL_WAITING, all_fields, complete_document

__all__ = ["ensure_indexes", "release"]

#: The keys in which kombu keeps the bindings of the default queue's exchange, and the obsolete binding to remove.
BINDINGS = ("_kombu.binding.celery", "_kombu.binding_permanent.celery")
OLD_BINDING = "celery\x06\x16\x06\x16reading"
#: Characters shown of a server's error message.
MESSAGE_LENGTH = 300


def release() -> str | None:
    """Prepares settings, servers and data for the web and worker processes. Returns an error message, or None.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server fails; see :func:`release_error`.
    """
    try:
        answers = connections().ping()
    except SettingsError as error:
        return str(error)
    if unusable := {name: answer for name, answer in answers.items() if answer != "ok"}:
        return "; ".join(f"{name} cannot be used ({reason})" for name, reason in unusable.items())
    ensure_indexes()
    complete_old_documents()
    saved_joins.convert_drafts()
    unbind_reading_queue()
    if warning := eviction_warning():
        print(warning, file=sys.stderr)
    for source in all_sources():
        report_source(source)
    return None


def release_error() -> str | None:
    """Runs the release phase. Returns its error in one line, or None if everything is ready."""
    try:
        return release()
    except OperationFailure as error:
        details = error.details or {}
        reason = _one_line(details.get("errmsg") or str(error))
        return f"MongoDB refuses it: {reason} ({details.get('codeName', error.code)})"
    except PyMongoError as error:
        return f"MONGODB_URI cannot be used: {_one_line(str(error))} ({type(error).__name__})"
    except RedisError as error:
        return f"Redis refuses it: {_one_line(str(error))} ({type(error).__name__})"


def _one_line(message: str) -> str:
    """The message in one line, up to the first brace: after it, MongoDB repeats the refused command."""
    return " ".join(message.partition("{")[0].split())[:MESSAGE_LENGTH].rstrip()


def complete_old_documents() -> None:
    """Adds missing fields to task documents of the original application, a stock backend or an older version.

    Raises:
        pymongo.errors.PyMongoError: some documents may still lack fields.
    """
    tasks = connections().tasks
    lacking = [{field: {"$exists": False}} for field in sorted(all_fields(new_document))]
    with pymongo.timeout(BUILD_SECONDS):
        # A message without an id left this document behind, and no request can name it.
        tasks.delete_many({"_id": None})
        # In bulk, because every document of an older version lacks these fields.
        for field in ("crashes", "retries"):
            tasks.update_many({field: {"$exists": False}}, {"$set": {field: 0}})
        for task in tasks.find({"$or": [{"status": ORIGINAL_WAITING}, *lacking]}):
            full_document = complete_document(task, new_document)
            changes = {
                field: value for field, value in full_document.items() if field not in task or task[field] != value
            }
            if unreadable := {field: task[field] for field in changes if task.get(field) is not None}:
                changes["unreadable"] = unreadable
            # The status in the filter protects a state that a worker has stored in the meantime.
            tasks.update_one({"_id": task["_id"], "status": task.get("status")}, {"$set": changes})


def unbind_reading_queue() -> None:
    """Removes an old version's binding of the reading queue to the default exchange, which made tasks run twice.

    Raises:
        redis.exceptions.RedisError: the binding may still exist.
    """
    for key in BINDINGS:
        connections().queue.srem(key, OLD_BINDING)


def eviction_warning() -> str | None:
    """A warning if a full Redis would silently delete queued tasks, or None."""
    try:
        policy = str(connections().queue.config_get("maxmemory-policy").get("maxmemory-policy"))
    except ResponseError as error:
        # Hosted servers often hide their configuration.
        return f"Redis does not tell its maxmemory-policy ({error}): make sure that it is noeviction or volatile-ttl."
    if policy.startswith("allkeys-"):
        return (
            f"Redis is set to {policy}: when it is full it deletes queued tasks. "
            "Set maxmemory-policy to noeviction or volatile-ttl."
        )
    return None


def report_source(source: Source) -> None:
    """Prints whether a source answers, and whether its user has more or fewer privileges than the role read.

    A source that is away does not stop the release, because joins of other sources work without it.
    """
    try:
        privileges = find_privileges(source)
    except PyMongoError as error:
        # The driver's message may hold parts of the URI.
        verb = "refuses" if is_refusal(error) else "does not answer"
        print(
            f"The source {source.label} {verb} ({type(error).__name__}), so its collections cannot be joined: "
            f"see {_uri_variable(source)}.",
            file=sys.stderr,
        )
        return
    if warning := privileges_warning(source, privileges):
        print(warning, file=sys.stderr)
    elif source.name is not None:
        print(f"The user of {source.label} can only read {', '.join(sorted(source.databases))}.")


def privileges_warning(source: Source, privileges: Privileges) -> str | None:
    """A warning if the user of a source may do more or less than read the source's databases, or None."""
    if privileges.unreadable and not privileges.has_user:
        return f"{source.label} requires a login: name a user with the role read in {_uri_variable(source)}."
    if privileges.unreadable:
        names = ", ".join(privileges.unreadable)
        return f"The user of {source.label} may not read {names}: grant the role read on each of them."
    if privileges.writable:
        names = ", ".join(privileges.writable)
        return f"The user of {source.label} could write to {names}: the role read on each of them is enough."
    if not privileges.has_user and source.name is not None:
        # The default server also stores the tasks, and often runs without users in a private network.
        return f"{source.label} has no access control, so everybody could write to it: add a user with the role read."
    return None


def _uri_variable(source: Source) -> str:
    return "MONGODB_URI" if source.name is None else source_variable(source.name, "URI")


if __name__ == "__main__":
    message = release_error()
    close_connections()
    sys.exit(f"release: {message}" if message else 0)

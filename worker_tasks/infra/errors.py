"""The errors that people and API clients see, and the translation of driver errors into them.

Every error has a message for people.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import kombu.exceptions
import pymongo.errors
import redis.exceptions

REDIS_FULL = "Redis has no room for the result. Ask for less, or try again when other results have expired."


class DovetailError(Exception):
    """Base class of all named errors. ``message`` is a sentence for people.

    Stored errors identify their class by ``code``, so the class itself can be renamed. ``args`` holds the constructor's
    arguments, so that pickle, copy and Celery can rebuild an equal error.
    """

    code = "DovetailError"

    def __init__(self, message: str = "No reason was given."):
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        return self.message


class InvalidInput(DovetailError):
    """The request has invalid fields. ``errors`` maps the name of each one to a message."""

    code = "InvalidInput"

    def __init__(self, errors: Mapping[str, str]):
        self.errors = dict(errors)
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.errors.items()))
        self.args = (self.errors,)


class TaskNotFound(DovetailError):
    """No task document has this id."""

    code = "TaskNotFound"

    def __init__(self, message: str = "There is no task with this id."):
        super().__init__(message)


class SavedJoinNotFound(DovetailError):
    """No saved join has this id."""

    code = "SavedJoinNotFound"

    def __init__(self, message: str = "There is no saved join with this id; it may have been deleted."):
        super().__init__(message)


class ServiceUnavailable(DovetailError):
    """A server does not answer or refuses an operation. A later retry may succeed.

    ``service`` names the server, and ``title`` sums up the error in a few words.
    """

    code = "ServiceUnavailable"

    def __init__(self, message: str | None = None, *, service: str = "A server", title: str | None = None):
        self.service = service
        self.title = title or f"{service} is away"
        super().__init__(message or f"{service} does not answer. Nothing is lost; try again in a moment.")


class TookTooLong(DovetailError):
    """The work did not end within its time limit."""

    code = "TookTooLong"

    def __init__(self, message: str = "It took longer than the time that it was given."):
        super().__init__(message)


class SearchTooSlow(DovetailError):
    """A search needs more time than a request may take. The requester should narrow it down."""

    code = "SearchTooSlow"

    def __init__(self, message: str = "The text took too long to look for: name a state, metadata or a time as well."):
        super().__init__(message)


class NotPublished(DovetailError):
    """The queue did not accept a task that already has a document."""

    code = "NotPublished"


class TaskLost(DovetailError):
    """A task's message is lost, and its document does not say what to run."""

    code = "TaskLost"


class TaskTakesWorkerDown(DovetailError):
    """A task crashed its worker at every attempt."""

    code = "TaskTakesWorkerDown"


class LimitExceeded(DovetailError):
    """The result of a join exceeds a limit in the settings. The rows up to the limit are kept as a partial result."""

    code = "LimitExceeded"


class TooExpensive(DovetailError):
    """A join would take too long with every method. The message gives the estimate and suggests an index."""

    code = "TooExpensive"


class JoinFailed(DovetailError):
    """MongoDB cannot run a join, because of the join itself or of the data. The message says what to change."""

    code = "JoinFailed"


class SnapshotGone(JoinFailed):
    """The parts of a join waited so long that MongoDB no longer has the snapshot they read."""

    code = "SnapshotGone"


class ServiceRefuses(ServiceUnavailable):
    """A server answers but refuses the operation. Nothing was changed, and reads may still work."""

    code = "ServiceRefuses"


class StorageFull(ServiceRefuses):
    """Redis has no room for a result or a message."""

    code = "StorageFull"

    def __init__(self, message: str = REDIS_FULL):
        super().__init__(message, service="Redis", title="Redis is full")


#: All named errors, keyed by code.
ERRORS_BY_CODE: dict[str, type[DovetailError]] = {
    kind.code: kind
    for kind in (
        DovetailError,
        InvalidInput,
        TaskNotFound,
        SavedJoinNotFound,
        ServiceUnavailable,
        TookTooLong,
        SearchTooSlow,
        NotPublished,
        TaskLost,
        TaskTakesWorkerDown,
        LimitExceeded,
        TooExpensive,
        JoinFailed,
        SnapshotGone,
        ServiceRefuses,
        StorageFull,
    )
}


def rebuild_error(code: str, *details: Any) -> DovetailError:
    """Rebuilds a stored error from its code and the arguments of its constructor.

    If the code is unknown because another version stored the error, returns a :class:`DovetailError` with the same
    message.
    """
    try:
        return ERRORS_BY_CODE.get(code, DovetailError)(*details)
    except (TypeError, ValueError):
        return DovetailError(" ".join(map(str, details)))


#: The base classes of all errors that the drivers raise.
DRIVER_ERRORS: tuple[type[Exception], ...] = (
    pymongo.errors.PyMongoError,
    redis.exceptions.RedisError,
    kombu.exceptions.OperationalError,
)
#: Driver errors for a server that does not answer. The data never causes them, so a retry may succeed.
MONGODB_FAILURES: tuple[type[Exception], ...] = (
    pymongo.errors.ConnectionFailure,
    pymongo.errors.NetworkTimeout,
    pymongo.errors.WTimeoutError,
    pymongo.errors.ExecutionTimeout,
)
REDIS_FAILURES: tuple[type[Exception], ...] = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    kombu.exceptions.OperationalError,
)


#: The title and message for each refusal by Redis, keyed by the first word of Redis's error.
REDIS_REFUSALS = {
    "OOM": ("Redis is full", "Redis has no room left in its memory. Try again when other results have expired."),
    "MISCONF": ("Redis cannot save", "Redis cannot write to its disk, and takes nothing until it can."),
    "READONLY": ("Redis is read-only", "Redis is a replica just now and takes nothing, as after a failover."),
    "NOREPLICAS": ("Redis takes nothing", "Redis takes nothing as long as too few of its replicas are connected."),
    "LOADING": ("Redis is starting", "Redis is starting and still reads its data. Try again in a moment."),
    "MASTERDOWN": ("Redis has no primary", "Redis is a replica that has lost its primary, and answers nothing."),
    "BUSY": ("Redis is busy", "Redis is busy with one long command. Try again in a moment."),
    "NOPERM": ("Redis refuses", "The Redis user may not do what is needed here: its permissions have to be changed."),
    "NOAUTH": ("Redis refuses", "Redis does not accept the password, or was given none: see REDIS_URL."),
    "WRONGPASS": ("Redis refuses", "Redis does not accept the user name and password: see REDIS_URL."),
}
#: Finds the word anywhere: errors from scripts, from transactions and from kombu do not start with it.
_REFUSAL_WORD = re.compile(rf"\b({'|'.join(REDIS_REFUSALS)})\b")

_NO_PRIMARY = ("MongoDB has no primary", "MongoDB takes nothing until it has a primary again. Try again in a moment.")
_NO_DISK = ("MongoDB is full", "MongoDB has no room left on its disk, and takes nothing until it has.")
_UNAUTHORIZED = (
    "MongoDB refuses",
    "The MongoDB user needs the right to read the databases of JOIN_DATABASES and to read and write TASKS_DATABASE.",
)
_AUTHENTICATION_FAILED = ("MongoDB refuses", "MongoDB does not accept the user name and password: see MONGODB_URI.")
#: MongoDB's error code for a missing permission.
UNAUTHORIZED = 13
#: The title and message for each refusal by MongoDB, keyed by error code: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
MONGODB_REFUSALS = {
    UNAUTHORIZED: _UNAUTHORIZED,
    18: _AUTHENTICATION_FAILED,
    371: ("MongoDB takes nothing", "MongoDB's administrator has stopped all writing for now."),
    14031: _NO_DISK,
    **dict.fromkeys([91, 189, 10107, 11600, 11602, 13435, 13436], _NO_PRIMARY),
}
#: Atlas uses one error code for all of its own restrictions; only the message distinguishes a full disk.
ATLAS_ERROR, ATLAS_QUOTA = 8000, "space quota"


def is_unavailable(error: BaseException) -> bool:
    """Whether the error means that a server does not answer or refuses, so that a retry may succeed."""
    return isinstance(error, (*MONGODB_FAILURES, *REDIS_FAILURES)) or _refusal(error) is not None


def is_refusal(error: BaseException) -> bool:
    """Whether the error means that a server answered and refused, so that nothing was changed."""
    return _refusal(error) is not None


def is_full(error: BaseException) -> bool:
    """Whether the error means that Redis is full, in memory or on disk."""
    return isinstance(error, redis.exceptions.RedisError) and _refusal(error) in {
        REDIS_REFUSALS["OOM"],
        REDIS_REFUSALS["MISCONF"],
    }


def to_service_unavailable(error: BaseException) -> ServiceUnavailable:
    """Translates a driver's error into the error that people see."""
    service = "MongoDB" if isinstance(error, pymongo.errors.PyMongoError) else "Redis"
    refusal = _refusal(error)
    if refusal is None:
        return ServiceUnavailable(service=service)
    title, reason = refusal
    return ServiceRefuses(reason, service=service, title=title)


@contextmanager
def named_driver_errors() -> Iterator[None]:
    """Translates driver errors in the block if they mean that a server does not answer or refuses.

    Raises:
        ServiceRefuses, ServiceUnavailable: the error has the name of the server and the reason.
    """
    try:
        yield
    except DRIVER_ERRORS as error:
        if not is_unavailable(error):
            raise
        raise to_service_unavailable(error) from error


@contextmanager
def named_storage_full() -> Iterator[None]:
    """Translates Redis errors in the block if they mean that the memory or disk of Redis is full.

    Raises:
        StorageFull: its message says whether memory or disk is full.
    """
    try:
        yield
    except redis.exceptions.RedisError as error:
        if is_full(error):
            raise StorageFull(to_service_unavailable(error).message) from error
        raise


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """The title and message of a refusal; None for any other error."""
    if isinstance(error, pymongo.errors.OperationFailure):
        if error.code == ATLAS_ERROR:
            return _NO_DISK if ATLAS_QUOTA in str(error) else None
        return MONGODB_REFUSALS.get(error.code or 0)
    if isinstance(error, pymongo.errors.ServerSelectionTimeoutError):
        # From the second attempt on, the driver reports a rejected login as if it could not find the server.
        return _AUTHENTICATION_FAILED if "Authentication failed" in str(error) else None
    if isinstance(error, kombu.exceptions.OperationalError) and error.__cause__ is not None:
        return _refusal(error.__cause__)
    if isinstance(error, redis.exceptions.RedisError):
        # redis-py strips the words that it knows from the message and keeps them in status_code.
        match = _REFUSAL_WORD.search(f"{error.status_code} {error}")
        return REDIS_REFUSALS[match[1]] if match else None
    return None

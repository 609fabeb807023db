"""The named failures: whose fault, and a sentence for the person who meets it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import kombu.exceptions
import pymongo.errors
import redis.exceptions

REDIS_FULL = "Redis has no room for the result. Ask for less, or try again when other results have expired."


class DovetailError(Exception):
    """Base of all; ``message`` is a sentence that can be shown.

    ``code`` names the class wherever a failure is stored, and outlives a change of the class's own name. The arguments
    are the constructor's, so that everything that stores and rebuilds exceptions gets the same one back.
    """

    code = "DovetailError"

    def __init__(self, message: str = "No reason was given."):
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        return self.message


class InvalidInput(DovetailError):
    """The asker's fault. ``errors`` maps the name of each field to what is wrong with it."""

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
    """No join was saved under this id."""

    code = "SavedJoinNotFound"

    def __init__(self, message: str = "There is no saved join with this id; it may have been deleted."):
        super().__init__(message)


class ServiceUnavailable(DovetailError):
    """Nobody's fault here: a server that is needed does not answer, or refuses. Trying again later is right.

    ``title`` is that in a few words.
    """

    code = "ServiceUnavailable"

    def __init__(self, message: str | None = None, *, service: str = "A server", title: str | None = None):
        self.service = service
        self.title = title or f"{service} is away"
        super().__init__(message or f"{service} does not answer. Nothing is lost; try again in a moment.")


class TookTooLong(DovetailError):
    """Nobody's fault: it did not come to its end within the time that was given to it."""

    code = "TookTooLong"

    def __init__(self, message: str = "It took longer than the time that it was given."):
        super().__init__(message)


class SearchTooSlow(DovetailError):
    """The asker's fault: what was looked for can not be found in a bearable time."""

    code = "SearchTooSlow"

    def __init__(self, message: str = "The text took too long to look for: name a state, metadata or a time as well."):
        super().__init__(message)


class NotPublished(DovetailError):
    """The queue did not take a task whose document was already there."""

    code = "NotPublished"


class TaskLost(DovetailError):
    """The message of a task is gone, and nothing says what it was to do."""

    code = "TaskLost"


class TaskTakesWorkerDown(DovetailError):
    """The task's fault: it was begun again and again and never came to an end."""

    code = "TaskTakesWorkerDown"


class LimitExceeded(DovetailError):
    """The join's fault: it goes beyond what the settings allow. What was joined until then is kept as partial."""

    code = "LimitExceeded"


class TooExpensive(DovetailError):
    """The join's fault: no way to run it is bearable. The message has the estimate and the index that would mend it."""

    code = "TooExpensive"


class JoinFailed(DovetailError):
    """The join's or the data's fault: MongoDB can not do it. The message says what to change."""

    code = "JoinFailed"


class SnapshotGone(JoinFailed):
    """Nobody's fault: the parts of a join waited so long that the instant they read at is gone."""

    code = "SnapshotGone"


class ServiceRefuses(ServiceUnavailable):
    """The same of a server that is there and refuses: nothing was done, and what it has may still be read."""

    code = "ServiceRefuses"


class StorageFull(ServiceRefuses):
    """The operator's: Redis has no room for the result."""

    code = "StorageFull"

    def __init__(self, message: str = REDIS_FULL):
        super().__init__(message, service="Redis", title="Redis is full")


#: Every named failure by its code, as :func:`rebuilt` finds it.
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
    """The failure that was stored under this code with these arguments: its message, or the errors of its fields.

    What only another version knows becomes the base class, with the same words.
    """
    try:
        return ERRORS_BY_CODE.get(code, DovetailError)(*details)
    except (TypeError, ValueError):
        return DovetailError(" ".join(map(str, details)))


#: Whatever a driver raises.
DRIVER_ERRORS: tuple[type[Exception], ...] = (
    pymongo.errors.PyMongoError,
    redis.exceptions.RedisError,
    kombu.exceptions.OperationalError,
)
#: What a driver raises when its server does not answer: reasons to try again, never the data's fault.
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


#: By the first word of the error with which a Redis that is there refuses: in a few words, and as a sentence.
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
#: In a script, a transaction, and what kombu makes of an error, the word stands in the middle.
_REFUSING_WORD = re.compile(rf"\b({'|'.join(REDIS_REFUSALS)})\b")

_NO_PRIMARY = ("MongoDB has no primary", "MongoDB takes nothing until it has a primary again. Try again in a moment.")
_NO_DISK = ("MongoDB is full", "MongoDB has no room left on its disk, and takes nothing until it has.")
_NOT_ALLOWED = (
    "MongoDB refuses",
    "The MongoDB user needs the right to read the databases of JOIN_DATABASES and to read and write TASKS_DATABASE.",
)
_NOT_KNOWN = ("MongoDB refuses", "MongoDB does not accept the user name and password: see MONGODB_URI.")
#: MongoDB's code for what its user may not do.
UNAUTHORIZED = 13
#: The same for MongoDB, by its error codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
MONGODB_REFUSALS = {
    UNAUTHORIZED: _NOT_ALLOWED,
    18: _NOT_KNOWN,
    371: ("MongoDB takes nothing", "MongoDB's administrator has stopped all writing for now."),
    14031: _NO_DISK,
    **dict.fromkeys([91, 189, 10107, 11600, 11602, 13435, 13436], _NO_PRIMARY),
}
#: Atlas has one code for all that its own rules forbid.
ATLAS_ERROR, ATLAS_QUOTA = 8000, "space quota"


def is_unavailable(error: BaseException) -> bool:
    """Whether a driver says with this that its server is away, or refuses: a reason to try again."""
    return isinstance(error, (*MONGODB_FAILURES, *REDIS_FAILURES)) or _refusal(error) is not None


def is_refusal(error: BaseException) -> bool:
    """Whether a server that is there has said that it does not do what was asked: it was not done."""
    return _refusal(error) is not None


def is_full(error: BaseException) -> bool:
    """Whether Redis says with this that it has no room, in its memory or on its disk."""
    return isinstance(error, redis.exceptions.RedisError) and _refusal(error) in {
        REDIS_REFUSALS["OOM"],
        REDIS_REFUSALS["MISCONF"],
    }


def to_service_unavailable(error: BaseException) -> ServiceUnavailable:
    """The driver's error as the failure that people are told."""
    of_mongodb = isinstance(error, pymongo.errors.PyMongoError)
    service = "MongoDB" if of_mongodb else "Redis"
    refusal = _refusal(error)
    if refusal is None:
        return ServiceUnavailable(service=service)
    title, reason = refusal
    return ServiceRefuses(reason, service=service, title=title)


@contextmanager
def named_driver_errors() -> Iterator[None]:
    """For what is done inside: a server that is away, or refuses, becomes the failure that people are told.

    Raises:
        ServiceRefuses, ServiceUnavailable: names the server, and the reason.
    """
    try:
        yield
    except DRIVER_ERRORS as error:
        if not is_unavailable(error):
            raise
        raise to_service_unavailable(error) from error


@contextmanager
def named_storage_full() -> Iterator[None]:
    """For what is done inside: a Redis that has no room, in its memory or on its disk, becomes a named failure.

    Any other error of Redis passes.

    Raises:
        StorageFull: says which of them is full.
    """
    try:
        yield
    except redis.exceptions.RedisError as error:
        if is_full(error):
            raise StorageFull(to_service_unavailable(error).message) from error
        raise


def _refusal(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, pymongo.errors.OperationFailure):
        if error.code == ATLAS_ERROR:
            return _NO_DISK if ATLAS_QUOTA in str(error) else None
        return MONGODB_REFUSALS.get(error.code or 0)
    if isinstance(error, pymongo.errors.ServerSelectionTimeoutError):
        # After the first time the driver takes a server that does not know its user for one that is not there.
        return _NOT_KNOWN if "Authentication failed" in str(error) else None
    if isinstance(error, kombu.exceptions.OperationalError) and error.__cause__ is not None:
        return _refusal(error.__cause__)
    if isinstance(error, redis.exceptions.RedisError):
        # Of the words that redis-py knows it makes a class, and takes them out of the text.
        found = _REFUSING_WORD.search(f"{error.status_code} {error}")
        return REDIS_REFUSALS[found[1]] if found else None
    return None

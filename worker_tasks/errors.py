"""The named failures: whose fault, and a sentence for the person who meets it."""

from collections.abc import Mapping

import kombu.exceptions
import pymongo.errors
import redis.exceptions


class DovetailError(Exception):
    """Base of all; the message is a sentence that can be shown."""


class InvalidInput(DovetailError):
    """The asker's fault. ``errors`` maps the name of each field to what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]):
        self.errors = dict(errors)
        # The arguments are what Celery stores and makes the exception from again.
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "; ".join(f"{field}: {message}" for field, message in self.errors.items())


class TaskNotFound(DovetailError):
    """No task document has this id."""

    def __init__(self, task_id: str):
        self.task_id = task_id
        super().__init__("There is no task with this id.")


class SavedJoinNotFound(DovetailError):
    """No join was saved under this id."""

    def __init__(self) -> None:
        super().__init__("There is no saved join with this id; it may have been deleted.")


class ServiceUnavailable(DovetailError):
    """Nobody's fault here: a server that is needed does not answer. Trying again later is right."""

    def __init__(self, service: str):
        self.service = service
        super().__init__(f"{service} does not answer. Nothing is lost; try again in a moment.")


class TookTooLong(DovetailError):
    """Nobody's fault: it did not come to its end within the time that was given to it."""


class SearchTooSlow(DovetailError):
    """The asker's fault: what was looked for can not be found in a bearable time."""

    def __init__(self) -> None:
        super().__init__("The text took too long to look for: name a state, metadata or a time as well.")


class NotPublished(DovetailError):
    """The queue did not take a task whose document was already there."""


class TaskLost(DovetailError):
    """The message of a task is gone, and nothing says what it was to do."""


class TaskTakesWorkerDown(DovetailError):
    """The task's fault: it was begun again and again and never came to an end."""


class LimitExceeded(DovetailError):
    """The join's fault: it goes beyond what the settings allow. What was joined until then is kept as partial."""


class TooExpensive(DovetailError):
    """The join's fault: no way to run it is bearable. The message has the estimate and the index that would mend it."""


class JoinFailed(DovetailError):
    """The join's or the data's fault: MongoDB can not do it. The message says what to change."""


class SnapshotGone(JoinFailed):
    """Nobody's fault: the parts of a join waited so long that the instant they read at is gone."""


class StorageFull(DovetailError):
    """The operator's: Redis has no room for the result."""


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


def unavailable(error: Exception) -> ServiceUnavailable:
    """The driver's error as the failure that people are told."""
    return ServiceUnavailable("MongoDB" if isinstance(error, MONGODB_FAILURES) else "Redis")

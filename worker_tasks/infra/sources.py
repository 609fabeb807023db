"""MongoDB deployments whose collections can be joined: the one in ``MONGODB_URI``, and those that the settings name.

Joins read collections and kill operations only through a `Source`.

Every operation of a join runs in a session of its own, and its comment begins with the prefix of its task.
Killing the session ends its operations and closes its cursors, including those idle between two batches.
"""

import logging
import re
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pymongo
from pymongo import MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_preferences import Nearest
from pymongo.server_selectors import Selection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.settings import settings

#: Seconds for killed operations to disappear.
KILL_SECONDS = 1.0
#: Seconds between two checks.
CHECK_SECONDS = 0.02
#: Seconds for a new client to hear of all members of a replica set.
DISCOVERY_SECONDS = 0.5
#: Time limit in seconds of a search for operations on a source that may have nothing to do with them.
SEARCH_SECONDS = 1.0
#: Matches the comments of a task's operations: its planning, or one part, identified by number and writer.
_TASK_COMMENT = re.compile(r"dovetail:(?P<task_id>.+)\.(?:plan|\d+\.\d+\.[0-9a-f]+)", re.DOTALL)

Target = TypeVar("Target")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Member(Nearest):
    """The read preference for one member of a replica set, as host and port."""

    __slots__ = ("_address",)

    def __init__(self, address: tuple[str, int | None]):
        super().__init__()
        self._address = address

    def __call__(self, selection: Selection) -> Selection:
        chosen = [server for server in selection.server_descriptions if server.address == self._address]
        return selection.with_server_descriptions(chosen)


@dataclass(frozen=True)
class Source:
    """One MongoDB deployment. ``databases`` are those that joins may read; only the default source has no name."""

    name: str | None
    client: MongoClient[Document]
    databases: frozenset[str]

    @property
    def label(self) -> str:
        """The source in words for people."""
        return self.name or "the default server"

    def database(self, name: str) -> Database[Document]:
        return self.client[name]

    def session(self, *, snapshot: bool = False) -> ClientSession:
        """Starts a session. With ``snapshot`` all its reads see the data of one instant."""
        return self.client.start_session(snapshot=snapshot)

    def kill(self, prefix: str, within: float = KILL_SECONDS) -> int:
        """Kills every operation whose comment begins with ``prefix``.

        Returns:
            The number of operations still there after ``within`` seconds.

        Raises:
            pymongo.errors.PyMongoError: the deployment does not answer, or refuses.
        """
        deadline = time.monotonic() + within
        return sum(_for_all(lambda member: self._kill(prefix, deadline, member), self._members()))

    def _kill(self, prefix: str, deadline: float, member: Any) -> int:
        comment = {"$regex": f"^{re.escape(prefix)}"}
        of_task = {"$or": [{"command.comment": comment}, {"cursor.originatingCommand.comment": comment}]}
        stages: list[Document] = [{"$match": of_task}, {"$group": {"_id": "$lsid.id"}}]
        while sessions := [{"id": found} for found in self._operations(stages, member) if found is not None]:
            if time.monotonic() > deadline:
                return len(sessions)
            self.client.admin.command("killSessions", sessions, read_preference=member)
            time.sleep(CHECK_SECONDS)
        return 0

    def comments(self) -> set[str]:
        """The comments of all operations and idle cursors of tasks.

        Raises:
            pymongo.errors.PyMongoError: the deployment does not answer, or refuses.
        """
        comment = {"$ifNull": ["$command.comment", "$cursor.originatingCommand.comment"]}
        stages: list[Document] = [{"$group": {"_id": comment}}, {"$match": {"_id": {"$regex": "^dovetail:"}}}]
        return {found for each in _for_all(partial(self._operations, stages), self._members()) for found in each}

    def _operations(self, stages: list[Document], member: Any) -> list[Any]:
        """The values of ``_id`` after these stages on the operations and idle cursors of one member."""
        current: list[Document] = [{"$currentOp": {"allUsers": False, "idleCursors": True}}]
        admin = self.client.admin.with_options(read_preference=member)
        return [operation["_id"] for operation in admin.aggregate(current + stages)]

    def _members(self) -> Sequence[Any]:
        """Read preferences that together reach every server on which operations of this client can run.

        Each member of a replica set knows and kills only its own operations.
        """
        preferred: Any = self.client.read_preference
        if preferred == ReadPreference.PRIMARY:
            return [preferred]
        self.client.admin.command("ping", read_preference=preferred)
        deadline = time.monotonic() + DISCOVERY_SECONDS
        while self._is_discovering() and time.monotonic() < deadline:
            time.sleep(CHECK_SECONDS)
        primary = self.client.primary
        addresses = self.client.secondaries | ({primary} if primary else set())
        return [Member(address) for address in addresses] or [preferred]

    def _is_discovering(self) -> bool:
        servers = self.client.topology_description.server_descriptions().values()
        return any(not server.is_server_type_known and server.error is None for server in servers)


def default_source() -> Source:
    """The deployment that the setting ``MONGODB_URI`` names."""
    return Source(None, connections().joins, settings().open_databases)


def all_sources() -> list[Source]:
    """The default source, then those with a name, in alphabetical order."""
    return [find_source(name) for name in (None, *sorted(settings().sources))]


def find_source(name: str | None, field: str = "source") -> Source:
    """The source with this name; None stands for the default source.

    Raises:
        InvalidInput: the settings know no such source. The error is at ``field``.
    """
    if name is None:
        return default_source()
    if (named := settings().sources.get(name)) is None:
        raise InvalidInput({field: f"{name} is not a source."})
    return Source(name, connections().source(name), named.open_databases)


def find_collection(source: str | None, database: str, name: str) -> Collection[Document]:
    """A collection, by the names of its source and database.

    Raises:
        InvalidInput: the settings know no such source.
    """
    return find_source(source).database(database)[name]


def open_databases() -> dict[str | None, frozenset[str]]:
    """The names of the databases that are open for joins, by the name of their source."""
    return {source.name: source.databases for source in all_sources()}


def operation_prefix(task_id: str) -> str:
    """The prefix of the comments of a task's operations."""
    return f"dovetail:{task_id}."


def tasks_with_operations() -> set[str]:
    """The ids of all tasks that have an operation or an idle cursor in a source that answers.

    Raises:
        pymongo.errors.PyMongoError: the default source does not answer, or refuses.
    """
    search = partial(_unless_away, lambda source: source.comments(), set[str]())
    comments = (comment for found in _for_all(search, all_sources()) for comment in found)
    return {match["task_id"] for comment in comments if (match := _TASK_COMMENT.fullmatch(comment))}


def kill_operations(task_id: str, names: Container[str | None] | None = None) -> int:
    """Kills all operations of a task in the sources with these names, or else in every source that answers.

    Without names, a named source that is away is logged: the reconciler kills the rest when it is back.

    Returns:
        The number of operations that are still there.

    Raises:
        pymongo.errors.PyMongoError: after all others have been killed: one of the sources, or without names the default
            source, does not answer, or refuses.
    """
    prefix = operation_prefix(task_id)
    if names is not None:
        return sum(_for_all(lambda source: source.kill(prefix), [each for each in all_sources() if each.name in names]))
    return sum(_for_all(partial(_unless_away, lambda source: source.kill(prefix), 0), all_sources()))


def _unless_away(ask: Callable[[Source], Answer], otherwise: Answer, source: Source) -> Answer:
    """The answer of a source; ``otherwise`` if it has a name and fails."""
    if source.name is None:
        return ask(source)
    try:
        with pymongo.timeout(SEARCH_SECONDS):
            return ask(source)
    except PyMongoError as error:
        # The driver's message may hold parts of the URI.
        logger.warning("%s does not tell which operations it runs: %s", source.label, type(error).__name__)
        return otherwise


def _for_all(ask: Callable[[Target], Answer], targets: Sequence[Target]) -> list[Answer]:
    """The answers of all targets, asked at the same time. Raises the first error after all have answered."""
    if len(targets) == 1:
        return [ask(targets[0])]
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        # The driver keeps time limits of blocks in the context.
        answers = [pool.submit(copy_context().run, ask, target) for target in targets]
    return [answer.result() for answer in answers]

"""MongoDB deployments whose collections can be joined.

At present the deployment that stores the tasks is the only one. Joins read collections and kill operations only through
a `Source`, so a second deployment needs no change elsewhere.

Every operation of a join runs in a session of its own, and its comment begins with the prefix of its task.
Killing the session ends its operations and closes its cursors, including those idle between two batches.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database

from worker_tasks.infra.connections import Document, connections

#: Seconds for killed operations to disappear.
KILL_SECONDS = 1.0
#: Seconds between two checks.
CHECK_SECONDS = 0.02
#: Matches the comments of a task's operations: its planning, or one part, identified by number and writer.
_TASK_COMMENT = re.compile(r"dovetail:(?P<task_id>.+)\.(?:plan|\d+\.\d+\.[0-9a-f]+)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """One MongoDB deployment."""

    client: MongoClient[Document]

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
        while sessions := self._sessions(prefix):
            self.client.admin.command("killSessions", [{"id": session} for session in sessions])
            if time.monotonic() > deadline:
                return len(self._sessions(prefix))
            time.sleep(CHECK_SECONDS)
        return 0

    def _sessions(self, prefix: str) -> list[Any]:
        comment = {"$regex": f"^{re.escape(prefix)}"}
        operations = self.client.admin.aggregate(
            [
                {"$currentOp": {"allUsers": False, "idleCursors": True}},
                {"$match": {"$or": [{"command.comment": comment}, {"cursor.originatingCommand.comment": comment}]}},
                {"$group": {"_id": "$lsid.id"}},
            ]
        )
        return [operation["_id"] for operation in operations if operation["_id"] is not None]

    def comments(self) -> set[str]:
        """The comments of all operations and idle cursors of tasks.

        Raises:
            pymongo.errors.PyMongoError: the deployment does not answer, or refuses.
        """
        comment = {"$ifNull": ["$command.comment", "$cursor.originatingCommand.comment"]}
        operations = self.client.admin.aggregate(
            [
                {"$currentOp": {"allUsers": False, "idleCursors": True}},
                {"$group": {"_id": comment}},
                {"$match": {"_id": {"$regex": "^dovetail:"}}},
            ]
        )
        return {operation["_id"] for operation in operations}


def default_source() -> Source:
    """The deployment that the setting ``MONGODB_URI`` names."""
    return Source(connections().joins)


def operation_prefix(task_id: str) -> str:
    """The prefix of the comments of a task's operations."""
    return f"dovetail:{task_id}."


def tasks_with_operations() -> set[str]:
    """The ids of all tasks that have an operation or an idle cursor in some source.

    Raises:
        pymongo.errors.PyMongoError: a source does not answer, or refuses.
    """
    found = (_TASK_COMMENT.fullmatch(comment) for comment in default_source().comments())
    return {match["task_id"] for match in found if match}


def kill_operations(task_id: str) -> int:
    """Kills all operations of a task in every source.

    Returns:
        The number of operations that are still there.

    Raises:
        pymongo.errors.PyMongoError: a source does not answer, or refuses.
    """
    return default_source().kill(operation_prefix(task_id))

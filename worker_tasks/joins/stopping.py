"""Ends what a task is doing inside MongoDB, from any process, and asks MongoDB whether anything is left.

Every operation of a join carries a comment that begins with its task's mark, and runs in a session of its own: to
kill the session ends what runs in it and closes its cursors, those too that are idle between two batches.
"""

import re
import time
from typing import Any

from worker_tasks.connections import connections

#: Seconds within which what is killed has to be gone.
KILL_SECONDS = 1.0
#: Seconds between two looks.
LOOK_SECONDS = 0.02


def mark(task_id: str) -> str:
    """What the comment of every operation of this task begins with."""
    return f"dovetail:{task_id}."


def kill(beginning: str, within: float = KILL_SECONDS) -> int:
    """Kills every operation whose comment begins so.

    Returns:
        How many of them MongoDB still has when the time is over: 0 where all went well.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer, or refuses.
    """
    give_up = time.monotonic() + within
    while sessions := _sessions(beginning):
        connections().mongodb.admin.command("killSessions", [{"id": session} for session in sessions])
        if time.monotonic() > give_up:
            return len(_sessions(beginning))
        time.sleep(LOOK_SECONDS)
    return 0


def _sessions(beginning: str) -> list[Any]:
    comment = {"$regex": f"^{re.escape(beginning)}"}
    operations = connections().mongodb.admin.aggregate(
        [
            {"$currentOp": {"allUsers": False, "idleCursors": True}},
            {"$match": {"$or": [{"command.comment": comment}, {"cursor.originatingCommand.comment": comment}]}},
            {"$group": {"_id": "$lsid.id"}},
        ]
    )
    return [operation["_id"] for operation in operations if operation["_id"] is not None]

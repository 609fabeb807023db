"""Records which task leads the run of a join and which tasks follow it.

Both are stored in fields of the task documents, and each function changes them with one atomic write.
"""

from datetime import timedelta

from celery import states
from pymongo.errors import DuplicateKeyError

from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger

#: Seconds from a task's end until its leftovers may be deleted.
OVER_SECONDS = 60


def is_unwanted(task_id: str) -> bool:
    """Whether the run of a task can stop, because the task is being cancelled or has ended and leads no run.

    Returns False for a task without a document: it runs inside its caller's process, and the caller waits for it.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    task = connections().tasks.find_one({"_id": task_id}, {"cancel_requested": True, "status": True, "leads": True})
    if task is None:
        return False
    return task["cancel_requested"] or (task["status"] in ledger.FINAL_STATES and "leads" not in task)


def is_over(task_id: str) -> bool:
    """Whether a task and its run ended more than ``OVER_SECONDS`` ago.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    before = ledger.now() - timedelta(seconds=OVER_SECONDS)
    ended = {"_id": task_id, "status": {"$in": sorted(ledger.FINAL_STATES)}, "changed_at": {"$lt": before}}
    return connections().tasks.find_one(ended | {"leads": {"$exists": False}}, {"_id": True}) is not None


def leave_run(task_id: str) -> bool:
    """Cancels a task whose run continues for its followers. The task keeps the field ``leads`` until the run ends.

    Returns:
        False if the task had already ended.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    fields = {"status": states.REVOKED, "result": ledger.CANCELLED, "date_done": ledger.now()}
    event = ledger.timeline_event(states.REVOKED, "cancelled; its run goes on for those who share it")
    return ledger.write(ledger.transition_filter(task_id, states.REVOKED), {"$set": fields}, event, leads=True)


def end_run(leader_id: str) -> None:
    """Removes a task as the leader of its run, so that no more tasks can follow the run.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    connections().tasks.update_one({"_id": leader_id}, {"$unset": {"leads": ""}})


def promote(follower: Document) -> bool:
    """Makes a follower the leader of its join.

    Returns:
        False if the follower has ended, or another task already leads the join.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    waiting = {
        "_id": follower["_id"],
        "status": {"$in": sorted(ledger.UNFINISHED_STATES)},
        "shares": follower["shares"],
    }
    update = {"$set": {"shares": None, "leads": follower["fingerprint"]}}
    try:
        return ledger.write(waiting, update, ledger.timeline_event(follower["status"], "runs itself now"))
    except DuplicateKeyError:
        return False


def follow(task_id: str, leader_id: str) -> None:
    """Makes a task follow another task's run, so that it gets the same result.

    Raises:
        pymongo.errors.PyMongoError: the outcome of the write is unknown.
    """
    unfinished = {"_id": task_id, "status": {"$in": sorted(ledger.UNFINISHED_STATES)}}
    ledger.write(
        unfinished,
        {"$set": {"shares": leader_id}},
        ledger.timeline_event(states.PENDING, f"shares the run of {leader_id}"),
    )

"""Which task leads the run of a join, and which follow it: fields of the task documents, changed in one step each."""

from datetime import timedelta

from celery import states
from pymongo.errors import DuplicateKeyError

from worker_tasks.infra.connections import Document, connections
from worker_tasks.records import ledger

#: Seconds after its end until what a task has left is nobody's any more.
OVER_SECONDS = 60


def is_unwanted(task_id: str) -> bool:
    """Whether nobody wants the run of this task any more: it is to be cancelled, or has ended and left the run to none.

    A task without a document, which is applied in place, is wanted.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    task = connections().tasks.find_one({"_id": task_id}, {"cancel_requested": True, "status": True, "leads": True})
    if task is None:
        return False
    return task["cancel_requested"] or (task["status"] in ledger.FINAL_STATES and "leads" not in task)


def is_over(task_id: str) -> bool:
    """Whether a task ended a minute ago or longer, and its run with it.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    before = ledger.now() - timedelta(seconds=OVER_SECONDS)
    over = {"_id": task_id, "status": {"$in": sorted(ledger.FINAL_STATES)}, "changed_at": {"$lt": before}}
    return connections().tasks.find_one(over | {"leads": {"$exists": False}}, {"_id": True}) is not None


def leave_run(task_id: str) -> bool:
    """Cancels a task whose run goes on for those who share it: the field ``leads`` stays as long as the run.

    Returns:
        False where the task had come to its end already.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    fields = {"status": states.REVOKED, "result": ledger.CANCELLED, "date_done": ledger.now()}
    event = ledger.timeline_event(states.REVOKED, "cancelled; its run goes on for those who share it")
    return ledger.write(ledger.transition_filter(task_id, states.REVOKED), {"$set": fields}, event, leads=True)


def end_run(leader_id: str) -> None:
    """Lets nobody join the run of this task any more.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    connections().tasks.update_one({"_id": leader_id}, {"$unset": {"leads": ""}})


def promote(follower: Document) -> bool:
    """Makes a follower the leader of its join; False where it is finished, or another task leads meanwhile.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    waiting = {
        "_id": follower["_id"],
        "status": {"$in": sorted(ledger.UNFINISHED_STATES)},
        "shares": follower["shares"],
    }
    leads = {"$set": {"shares": None, "leads": follower["fingerprint"]}}
    try:
        return ledger.write(waiting, leads, ledger.timeline_event(follower["status"], "runs itself now"))
    except DuplicateKeyError:
        return False


def follow(task_id: str, leader_id: str) -> None:
    """Lets another task's run answer this one.

    Raises:
        pymongo.errors.PyMongoError: not known to be written.
    """
    unfinished = {"_id": task_id, "status": {"$in": sorted(ledger.UNFINISHED_STATES)}}
    ledger.write(
        unfinished,
        {"$set": {"shares": leader_id}},
        ledger.timeline_event(states.PENDING, f"shares the run of {leader_id}"),
    )

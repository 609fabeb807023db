"""One run for all who ask the same: the task that leads, those that follow it, and which leads next if it cannot.

A run has the id of the task that began it. That task may be cancelled: the run goes on for those that follow, and the
cancelled document keeps the field ``leads`` for as long, so that the next one who asks joins it too.
"""

import json
from typing import Any

from celery import states

from worker_tasks.infra.connections import Document
from worker_tasks.records import leads, ledger, task_search

#: What a task document says of a result, and so do those of all who share it.
RESULT_FIELDS = ("result_expires_at", "result_bytes", "unmatched", "explanation")


def answer(task_id: str, outcome: dict[str, Any], fields: Document, note: str) -> bool:
    """Ends a task with an outcome that another one's run brought.

    Raises:
        pymongo.errors.PyMongoError: not known to be recorded.
    """
    done = {"result": json.dumps(outcome), "date_done": ledger.now(), **fields}
    return ledger.transition(task_id, states.SUCCESS, fields=done, note=note)


def settle(leader_id: str, outcome: dict[str, Any], fields: Document) -> None:
    """Answers all who follow this task; it may itself have been cancelled meanwhile.

    Raises:
        pymongo.errors.PyMongoError: not all of them are known to be answered.
    """
    if followers := task_search.followers_of(leader_id):
        # First, so that nobody joins a run that has told everyone.
        leads.end_run(leader_id)
        followers = task_search.followers_of(leader_id)
    for follower in followers:
        answer(follower["_id"], outcome, fields, f"answered by the run of {leader_id}")


def fail(app: Any, leader_id: str, failure: Exception, fields: Document) -> None:
    """Ends all who follow this task with its failure.

    Raises:
        pymongo.errors.PyMongoError: not all of them are known to be ended.
    """
    if followers := task_search.followers_of(leader_id):
        leads.end_run(leader_id)
        followers = task_search.followers_of(leader_id)
    for follower in followers:
        app.record_failure(follower["_id"], failure, f"failed with the run of {leader_id}", fields)


def hand_over(app: Any, leader_id: str) -> None:
    """Lets the first of those who follow this task lead the others, and run.

    Raises:
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is away; the reconciler goes on.
    """
    if not task_search.followers_of(leader_id):
        return
    leads.end_run(leader_id)
    followers = task_search.followers_of(leader_id)
    for number, follower in enumerate(followers):
        if leads.promote(follower):
            for other in followers[number + 1 :]:
                leads.follow(other["_id"], follower["_id"])
            app.publish_again(follower)
            return


def join_run(app: Any, leader_id: str) -> None:
    """Sees to a task that has just followed this one, whose run may have come to its end by then.

    Raises:
        TaskNotFound: there is no such task.
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is away; the reconciler goes on.
    """
    # A cancelled leader leads for as long as its run goes on or is still planned.
    if "leads" not in ledger.find_task(leader_id):
        release(app, leader_id)


def release(app: Any, leader_id: str) -> None:
    """Sees to those who follow a task whose run is over, and which did not tell them.

    Raises:
        TaskNotFound: there is no such task.
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is away; the reconciler goes on.
    """
    leader = ledger.find_task(leader_id)
    if leader["status"] == states.SUCCESS:
        settle(leader_id, json.loads(leader["result"]), {field: leader.get(field) for field in RESULT_FIELDS})
    elif leader["status"] in ledger.FINAL_STATES:
        hand_over(app, leader_id)

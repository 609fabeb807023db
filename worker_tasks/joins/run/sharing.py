"""Shares one run among tasks with the same join.

One task leads the run. The others follow it and get its result, and a follower can take over the lead. The run has the
id of the task that started it. If that task is cancelled, the run continues for the followers. The cancelled task keeps
the field ``leads`` until the run ends, so that more tasks can join the run.
"""

import json
from typing import Any

from celery import states

from worker_tasks.infra.connections import Document
from worker_tasks.records import leads, ledger, task_search

#: The result fields of a task document, which are copied to the documents of the followers.
RESULT_FIELDS = ("result_expires_at", "result_bytes", "unmatched", "explanation")


def answer(task_id: str, outcome: dict[str, Any], fields: Document, note: str) -> bool:
    """Ends a task with the outcome of another task's run. Returns False if the task had already ended.

    Raises:
        pymongo.errors.PyMongoError: the outcome may not have been recorded.
    """
    done = {"result": json.dumps(outcome), "date_done": ledger.now(), **fields}
    return ledger.transition(task_id, states.SUCCESS, fields=done, note=note)


def settle(leader_id: str, outcome: dict[str, Any], fields: Document) -> None:
    """Ends all followers of a task with its outcome, even if the task itself was cancelled.

    Raises:
        pymongo.errors.PyMongoError: some followers may still be waiting.
    """
    if followers := task_search.followers_of(leader_id):
        # End the run first, so that no task can join it after its followers are answered.
        leads.end_run(leader_id)
        followers = task_search.followers_of(leader_id)
    for follower in followers:
        answer(follower["_id"], outcome, fields, f"answered by the run of {leader_id}")


def fail(app: Any, leader_id: str, failure: Exception, fields: Document) -> None:
    """Ends all followers of a task with its failure.

    Raises:
        pymongo.errors.PyMongoError: some followers may still be waiting.
    """
    if followers := task_search.followers_of(leader_id):
        leads.end_run(leader_id)
        followers = task_search.followers_of(leader_id)
    for follower in followers:
        app.record_failure(follower["_id"], failure, f"failed with the run of {leader_id}", fields)


def hand_over(app: Any, leader_id: str) -> None:
    """Makes the first follower of a task the new leader and sends it to the workers.

    Raises:
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is unavailable. The reconciler
            will finish the work.
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
    """Ends or restarts a new follower if the leader's run has ended in the meantime.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is unavailable. The reconciler
            will finish the work.
    """
    # A cancelled task remains the leader while its run continues or is being planned.
    if "leads" not in ledger.find_task(leader_id):
        release(app, leader_id)


def release(app: Any, leader_id: str) -> None:
    """Ends or restarts the followers of a task if its run ended without answering them.

    Raises:
        TaskNotFound: no task document has this id.
        pymongo.errors.PyMongoError, kombu.exceptions.OperationalError: a server is unavailable. The reconciler
            will finish the work.
    """
    leader = ledger.find_task(leader_id)
    if leader["status"] == states.SUCCESS:
        settle(leader_id, json.loads(leader["result"]), {field: leader.get(field) for field in RESULT_FIELDS})
    elif leader["status"] in ledger.FINAL_STATES:
        hand_over(app, leader_id)

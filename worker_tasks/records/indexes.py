"""The indexes of the task documents: for the queries here, and to end what has had its time."""

import pymongo
from celery import states

from worker_tasks.infra.connections import connections
from worker_tasks.records.ledger import NEWEST_FIRST

#: What Celery's own tasks return, which are nobody's and have no document.
CELERY_RESULTS = "celery_results"
#: Seconds that these stay: Celery's default for results.
CELERY_RESULT_SECONDS = 86_400
#: Seconds that a large collection may take.
SECONDS = 600


def ensure_indexes() -> None:
    """Makes the indexes that the queries here use, and the one that ends a document's retention.

    Raises:
        pymongo.errors.PyMongoError: not all of them are there.
    """
    tasks = connections().tasks
    with pymongo.timeout(SECONDS):
        tasks.create_indexes(
            [
                pymongo.IndexModel(NEWEST_FIRST),
                # Each begins with what is asked for and goes on in the order of the list, so that no page is sorted.
                pymongo.IndexModel([("labels", 1), *NEWEST_FIRST]),
                # The rare states alone: the others are found without it, and each index is written at every change.
                pymongo.IndexModel(
                    [("status", 1), *NEWEST_FIRST],
                    partialFilterExpression={"status": {"$in": [states.FAILURE, states.REVOKED]}},
                ),
                *(
                    pymongo.IndexModel(
                        [(field, 1), *NEWEST_FIRST], partialFilterExpression={field: {"$type": "string"}}
                    )
                    for field in ("fingerprint", "requested_by")
                ),
                pymongo.IndexModel([("status", 1), ("changed_at", 1)]),
                pymongo.IndexModel("shares", partialFilterExpression={"shares": {"$type": "string"}}),
                # Not on date_done: Celery's own backend makes a plain index there, and the two would collide.
                pymongo.IndexModel("expires_at", expireAfterSeconds=0),
            ]
        )
        tasks.database[CELERY_RESULTS].create_index("date_done", expireAfterSeconds=CELERY_RESULT_SECONDS)
        # Last, because documents that are there may forbid it.
        tasks.create_index("leads", unique=True, partialFilterExpression={"leads": {"$type": "string"}})

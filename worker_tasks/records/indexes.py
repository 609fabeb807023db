"""The indexes of the task documents, for queries and for deleting expired documents."""

import pymongo
from celery import states

from worker_tasks.infra.connections import connections
from worker_tasks.records.ledger import NEWEST_FIRST

#: The collection for the results of Celery's own tasks, such as chords, which have no task document.
CELERY_RESULTS = "celery_results"
#: The lifetime of these results in seconds, which is Celery's default.
CELERY_RESULT_SECONDS = 86_400
#: Time limit for building the indexes of a large collection, in seconds.
BUILD_SECONDS = 600


def ensure_indexes() -> None:
    """Creates all indexes that are missing.

    Raises:
        pymongo.errors.PyMongoError: some indexes may be missing.
    """
    tasks = connections().tasks
    with pymongo.timeout(BUILD_SECONDS):
        tasks.create_indexes(
            [
                pymongo.IndexModel(NEWEST_FIRST),
                # The fields of the sort order follow the filter field, so that MongoDB never has to sort.
                pymongo.IndexModel([("labels", 1), *NEWEST_FIRST]),
                # Covers only the rare states. MongoDB finds the others quickly anyway, and an index slows down writes.
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
                # Must not use date_done, because Celery's own backend creates a conflicting index for that field.
                pymongo.IndexModel("expires_at", expireAfterSeconds=0),
            ]
        )
        tasks.database[CELERY_RESULTS].create_index("date_done", expireAfterSeconds=CELERY_RESULT_SECONDS)
        # Created last, because this fails if existing documents violate the index.
        tasks.create_index("leads", unique=True, partialFilterExpression={"leads": {"$type": "string"}})

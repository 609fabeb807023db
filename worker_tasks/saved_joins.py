"""Joins that people saved, to be run again with other values: documents in MongoDB beside those of the tasks."""

from typing import Any
from uuid import uuid4

import pymongo
from pymongo.collection import Collection

from worker_tasks import ledger
from worker_tasks.connections import Document, connections
from worker_tasks.errors import SavedJoinNotFound

COLLECTION = "saved_joins"
#: Saved joins that are listed at most.
MAX_LISTED = 200


def _collection() -> Collection[Document]:
    return connections().tasks.database[COLLECTION]


def save(name: str, description: str, draft: str) -> str:
    """Keeps a join under a name; returns its id.

    Args:
        draft: the builder's form as the query of an address.

    Raises:
        pymongo.errors.PyMongoError: not known to be kept.
    """
    saved_id = uuid4().hex[:12]
    document = {"_id": saved_id, "name": name, "description": description, "draft": draft, "saved_at": ledger.now()}
    _collection().insert_one(document)
    return saved_id


def find(saved_id: str) -> dict[str, Any]:
    """The saved join of this id.

    Raises:
        SavedJoinNotFound: there is none.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    found = _collection().find_one({"_id": saved_id})
    if found is None:
        raise SavedJoinNotFound
    return found


def newest() -> list[dict[str, Any]]:
    """All saved joins, newest first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return list(_collection().find().sort([("saved_at", pymongo.DESCENDING), ("_id", 1)]).limit(MAX_LISTED))


def delete(saved_id: str) -> None:
    """Deletes a saved join, if it is there.

    Raises:
        pymongo.errors.PyMongoError: not known to be deleted.
    """
    _collection().delete_one({"_id": saved_id})

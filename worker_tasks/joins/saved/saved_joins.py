"""Joins that people saved, to be run again with other values: documents in MongoDB beside those of the tasks.

``{"_id", "name", "description", "join", "saved_at"}``, where ``join`` is a join with parameters. An older version wrote
``draft`` instead, the builder's form as the query of an address.
"""

from typing import Any
from uuid import uuid4

import pymongo
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput, SavedJoinNotFound
from worker_tasks.joins.preflight.sampling import field_types
from worker_tasks.joins.saved import old_saved_joins
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.value_types import TypeOf
from worker_tasks.records import ledger

COLLECTION = "saved_joins"
#: Saved joins that are listed at most.
MAX_LISTED = 200


def _collection() -> Collection[Document]:
    return connections().tasks.database[COLLECTION]


def save(name: str, description: str, join: Document) -> str:
    """Keeps a join under a name; returns its id.

    Args:
        join: a join with parameters.

    Raises:
        InvalidInput: it is none; names every path that is wrong.
        pymongo.errors.PyMongoError: not known to be kept.
    """
    parameters.validate(join)
    saved_id = uuid4().hex[:12]
    document = {"_id": saved_id, "name": name, "description": description, "join": join, "saved_at": ledger.now()}
    _collection().insert_one(document)
    return saved_id


def find_saved_join(saved_id: str) -> dict[str, Any]:
    """The saved join of this id.

    Raises:
        SavedJoinNotFound: there is none.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    found = _collection().find_one({"_id": saved_id})
    if found is None:
        raise SavedJoinNotFound
    return found


def read_join(saved: Document) -> Document:
    """The join of a saved one, with its parameters.

    Raises:
        InvalidInput: it is none any more; names every path that is wrong.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer, for one of an older version.
    """
    join = saved.get("join")
    if join is None:
        join = old_saved_joins.read_draft(str(saved.get("draft", "")), field_types)
    parameters.validate(join)
    return join


def convert_drafts() -> None:
    """Gives the saved joins of an older version their join.

    The draft stays, because a web process of that version may still read it. Where the type of a field decides how a
    value is read, and that type is not known now, the join is left as it is: it is converted whenever it is read.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: not known to be done.
    """
    for saved in _collection().find({"join": {"$exists": False}, "draft": {"$type": "string"}}):
        try:
            join = old_saved_joins.read_draft(saved["draft"], _known_types)
            parameters.validate(join)
        except (InvalidInput, _UnknownType):
            continue
        _collection().update_one({"_id": saved["_id"], "join": {"$exists": False}}, {"$set": {"join": join}})


class _UnknownType(Exception):
    """The sample does not tell the type of a field."""


def _known_types(database: str) -> TypeOf:
    types = field_types(database)

    def known(collection: str, path: str) -> str:
        if (found := types(collection, path)) is None:
            raise _UnknownType(path)
        return found

    return known


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

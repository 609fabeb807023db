"""Saved joins, which people can run again with other values. They are stored in the same database as the tasks.

A document is ``{"_id", "name", "description", "join", "saved_at"}``, where ``join`` is a join with parameters. Instead
of ``join``, an older version stored ``draft``, the builder's form as a URL query.
"""

from typing import Any
from uuid import uuid4

import pymongo
from pymongo.collection import Collection

from worker_tasks.infra.connections import Document, connections
from worker_tasks.infra.errors import InvalidInput, SavedJoinNotFound
from worker_tasks.joins.preflight.sampling import field_type
from worker_tasks.joins.saved import old_saved_joins
from worker_tasks.joins.spec import parameters
from worker_tasks.joins.spec.sides import Side
from worker_tasks.records import ledger

COLLECTION = "saved_joins"
#: The largest number of saved joins in a list.
MAX_LISTED = 200


def _collection() -> Collection[Document]:
    return connections().tasks.database[COLLECTION]


def save(name: str, description: str, join: Document) -> str:
    """Saves a join under a name and returns its id.

    Args:
        join: a join with parameters.

    Raises:
        InvalidInput: the join is invalid; the error names every invalid path.
        pymongo.errors.PyMongoError: the join may not have been saved.
    """
    parameters.validate(join)
    saved_id = uuid4().hex[:12]
    document = {"_id": saved_id, "name": name, "description": description, "join": join, "saved_at": ledger.now()}
    _collection().insert_one(document)
    return saved_id


def find_saved_join(saved_id: str) -> dict[str, Any]:
    """The document of the saved join with this id.

    Raises:
        SavedJoinNotFound: no saved join has this id.
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    saved = _collection().find_one({"_id": saved_id})
    if saved is None:
        raise SavedJoinNotFound
    return saved


def read_join(saved: Document) -> Document:
    """The join, with its parameters, from the document of a saved join.

    Raises:
        InvalidInput: the join is invalid, for example because rules have changed; the error names every invalid path.
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: the join is an old draft, and a server does not
            answer.
    """
    join = saved.get("join")
    if join is None:
        join = old_saved_joins.read_draft(str(saved.get("draft", "")), field_type)
    parameters.validate(join)
    return join


def convert_drafts() -> None:
    """Adds the field ``join`` to every saved join that has only a draft.

    Keeps the draft, because a web process of the older version may still read it. If a value depends on a field of
    unknown type, leaves the saved join unchanged. In that case, ``read_join`` converts the draft at each read.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer. Some drafts may have been
            converted.
    """
    for saved in _collection().find({"join": {"$exists": False}, "draft": {"$type": "string"}}):
        try:
            join = old_saved_joins.read_draft(saved["draft"], _known_type)
            parameters.validate(join)
        except (InvalidInput, _UnknownType):
            continue
        _collection().update_one({"_id": saved["_id"], "join": {"$exists": False}}, {"$set": {"join": join}})


class _UnknownType(Exception):
    """The type of a field is unknown, because the sample has no values for it."""


def _known_type(side: Side, path: str) -> str:
    """Like ``field_type``, but raises _UnknownType instead of returning None."""
    if (bson_type := field_type(side, path)) is None:
        raise _UnknownType(path)
    return bson_type


def newest() -> list[dict[str, Any]]:
    """The ``MAX_LISTED`` most recently saved joins, newest first.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
    """
    return list(_collection().find().sort([("saved_at", pymongo.DESCENDING), ("_id", 1)]).limit(MAX_LISTED))


def delete(saved_id: str) -> None:
    """Deletes a saved join if it exists.

    Raises:
        pymongo.errors.PyMongoError: the saved join may still exist.
    """
    _collection().delete_one({"_id": saved_id})

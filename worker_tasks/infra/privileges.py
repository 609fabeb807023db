"""The privileges of a source's MongoDB user on the databases that are open for joins. Joins need the role ``read``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from worker_tasks.infra.errors import UNAUTHORIZED
from worker_tasks.infra.sources import Source

READ_ACTIONS = frozenset({"find"})
WRITE_ACTIONS = frozenset({"insert", "update", "remove"})


@dataclass(frozen=True)
class Privileges:
    """The databases of a source that its user may write to and those that it may not read, sorted by name.

    ``has_user`` is False on a server without access control, where everybody may do everything.
    """

    has_user: bool
    writable: tuple[str, ...]
    unreadable: tuple[str, ...]


def find_privileges(source: Source) -> Privileges:
    """Asks the server for the privileges of the source's user.

    Raises:
        pymongo.errors.PyMongoError: the server does not answer, or refuses.
    """
    status = source.client.admin.command(
        "connectionStatus", showPrivileges=True, read_preference=source.client.read_preference
    )
    databases = sorted(source.databases)
    if not status["authInfo"]["authenticatedUsers"]:
        unreadable = databases if _requires_login(source) else []
        return Privileges(has_user=False, writable=(), unreadable=tuple(unreadable))
    privileges = status["authInfo"]["authenticatedUserPrivileges"]
    return Privileges(
        has_user=True,
        writable=tuple(name for name in databases if _allows(privileges, name, WRITE_ACTIONS)),
        unreadable=tuple(name for name in databases if not _allows(privileges, name, READ_ACTIONS)),
    )


def _allows(privileges: Iterable[Mapping[str, Any]], database: str, actions: frozenset[str]) -> bool:
    """Whether the user may take any of these actions on some collection of the database."""
    return any(
        _covers(privilege["resource"], database) and not actions.isdisjoint(privilege["actions"])
        for privilege in privileges
    )


def _covers(resource: Mapping[str, Any], database: str) -> bool:
    if resource.get("anyResource"):
        return True
    # An empty name stands for every database, or for every collection.
    is_system = str(resource.get("collection", "")).startswith("system.")
    return resource.get("db") in {"", database} and not is_system


def _requires_login(source: Source) -> bool:
    try:
        for name in sorted(source.databases):
            source.database(name).list_collection_names(authorizedCollections=True)
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return True
    return False

"""How long results live: from when they are joined, kept longer, replaced by newer ones, discarded, gone."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger, task_fields
from worker_tasks.results import result_store
from worker_tasks.results.result_store import Summary

#: What keeping a result once adds to its life.
KEPT_LONGER = timedelta(hours=1)
#: A result that is closer to its end answers no other join.
ALMOST_EXPIRED = timedelta(seconds=5)
#: A worker's clock says when a result expires, the web process's whether it has: so close to the end it has.
CLOCKS_DIFFER = timedelta(seconds=5)


class Fate(Enum):
    """Why a result is not in Redis any more."""

    DISCARDED = auto()
    EXPIRED = auto()
    REPLACED = auto()
    LOST = auto()
    #: Of a task whose document does not say how long its result was to stay.
    GONE = auto()


def time_to_live() -> timedelta:
    """How long a result stays that nobody keeps longer or discards."""
    return timedelta(seconds=settings().result_ttl_seconds)


def can_answer(summary: Summary) -> bool:
    """Whether a result will be there for long enough to answer another join."""
    return summary.expires_at - ledger.now() > ALMOST_EXPIRED


def kept_until(summary: Summary) -> datetime | None:
    """Until when keeping a result once more lets it live; None if it can not be kept longer."""
    last = summary.published_at + timedelta(seconds=settings().result_keep_seconds)
    until = min(last, max(ledger.now(), summary.expires_at) + KEPT_LONGER)
    return until if until > summary.expires_at else None


def keep(summary: Summary, until: datetime) -> bool:
    """Lets a result live until then, for all who share it; False if it is gone or replaced already.

    Raises:
        redis.exceptions.RedisError, pymongo.errors.PyMongoError: not known to be done.
    """
    if result_store.keep(summary, until) is None:
        return False
    task_fields.set_expiry(summary.task_id, until)
    return True


def discard(summary: Summary) -> bool:
    """Deletes a result at once, for all who share it; False if it is gone or replaced already.

    Raises:
        redis.exceptions.RedisError, pymongo.errors.PyMongoError: not known to be done.
    """
    if not result_store.discard(summary):
        return False
    task_fields.set_expiry(summary.task_id, ledger.now(), discarded=True)
    return True


def fate_of(task: Mapping[str, Any], newer: Summary | None) -> Fate:
    """Why the result of a task is not there; ``newer`` is what is under its key now."""
    expires_at = task.get("result_expires_at")
    if task.get("result_discarded"):
        return Fate.DISCARDED
    if expires_at is not None and expires_at - ledger.now() < CLOCKS_DIFFER:
        return Fate.EXPIRED
    if newer is not None:
        return Fate.REPLACED
    return Fate.GONE if expires_at is None else Fate.LOST

"""Keeps results longer, discards them, and says why a result is gone."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from worker_tasks.infra.settings import settings
from worker_tasks.records import ledger, task_fields
from worker_tasks.results import result_store
from worker_tasks.results.summaries import Summary

#: Each time somebody keeps a result, it lives this much longer.
EXTENSION = timedelta(hours=1)
#: A result that expires sooner than this is not reused for another join.
MIN_TIME_LEFT = timedelta(seconds=5)
#: A result counts as expired this long before its expiry, because the clocks of worker and web process may differ.
CLOCK_TOLERANCE = timedelta(seconds=5)


class Fate(Enum):
    """The reason why a result is no longer in Redis."""

    DISCARDED = auto()
    EXPIRED = auto()
    REPLACED = auto()
    LOST = auto()
    #: The reason is unknown, because the task document has no time of expiry.
    GONE = auto()


def time_to_live() -> timedelta:
    """The default lifetime of a result. People can keep a result longer or discard it."""
    return timedelta(seconds=settings().result_ttl_seconds)


def can_answer(summary: Summary) -> bool:
    """Whether a result lives long enough to answer another join."""
    return summary.expires_at - ledger.now() > MIN_TIME_LEFT


def kept_until(summary: Summary) -> datetime | None:
    """The time when a result would expire if somebody kept it longer now; None if it cannot be kept longer."""
    latest = summary.published_at + timedelta(seconds=settings().result_keep_seconds)
    until = min(latest, max(ledger.now(), summary.expires_at) + EXTENSION)
    return until if until > summary.expires_at else None


def keep(summary: Summary, until: datetime) -> bool:
    """Keeps a result until this time, for its task and all followers.

    Returns:
        False if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError, pymongo.errors.PyMongoError: the outcome is unknown.
    """
    if result_store.keep(summary, until) is None:
        return False
    task_fields.set_expiry(summary.task_id, until)
    return True


def discard(summary: Summary) -> bool:
    """Deletes a result at once, for its task and all followers.

    Returns:
        False if the result is gone or replaced.

    Raises:
        redis.exceptions.RedisError, pymongo.errors.PyMongoError: the outcome is unknown.
    """
    if not result_store.discard(summary):
        return False
    task_fields.set_expiry(summary.task_id, ledger.now(), discarded=True)
    return True


def fate_of(task: Mapping[str, Any], newer: Summary | None) -> Fate:
    """The reason why a task's result is gone; ``newer`` is the result now under its key, if any."""
    expires_at = task.get("result_expires_at")
    if task.get("result_discarded"):
        return Fate.DISCARDED
    if expires_at is not None and expires_at - ledger.now() < CLOCK_TOLERANCE:
        return Fate.EXPIRED
    if newer is not None:
        return Fate.REPLACED
    return Fate.GONE if expires_at is None else Fate.LOST

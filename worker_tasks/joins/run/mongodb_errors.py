"""What MongoDB says of a join that it could not do, in our words. Its own may hold parts of documents."""

from dataclasses import replace

from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import MONGODB_FAILURES, JoinFailed, SnapshotGone
from worker_tasks.infra.settings import settings
from worker_tasks.joins.run.execution import ReadFailed
from worker_tasks.joins.run.run_state import Breakage

TOO_BIG = (
    "A joined document would be bigger than the 16 MB that MongoDB allows. Ask for shape rows, first or count, "
    "for fewer fields, or set a limit on the join."
)

#: By MongoDB's error codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
REASONS = {
    13: "The worker's MongoDB user may not read one of the collections: it is not open for joins.",
    146: "The matches of one key need more memory than MongoDB allows. Ask for shape count, or for fewer fields.",
    241: "A value could not be converted as the join asks.",
    292: "Sorting or grouping needs more memory than MongoDB allows without its disk. Ask for fewer fields.",
    4568: TOO_BIG,
    10334: TOO_BIG,
    14031: "MongoDB's disk is full. Try again when there is room.",
    17419: TOO_BIG,
    17420: TOO_BIG,
}
#: SnapshotTooOld, SnapshotUnavailable.
SNAPSHOT_GONE = frozenset({239, 246})
#: What ends an operation without saying anything of the join, so that trying again is right: a server that stops,
#: steps down or starts; an operation, cursor or session that is gone or was killed by somebody else; a time limit of
#: MongoDB's own. HostUnreachable, HostNotFound, CursorNotFound, MaxTimeMSExpired, LockTimeout, NetworkTimeout,
#: ShutdownInProgress, FailedToSatisfyReadPreference, StaleShardVersion, QueryPlanKilled, PrimarySteppedDown,
#: NoSuchSession, TransactionTooOld, CursorKilled, NetworkInterfaceExceededTimeLimit, SocketException,
#: NotWritablePrimary, InterruptedAtShutdown, Interrupted, InterruptedDueToReplStateChange, StaleConfig,
#: NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary.
PASSING = frozenset(
    {6, 7, 24, 43, 50, 63, 89, 91, 133, 175, 189, 202, 206, 225, 237, 262}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)


def is_transient(error: BaseException | None) -> bool:
    """Whether this says nothing of the join, so that it is to be tried again."""
    return isinstance(error, MONGODB_FAILURES) or (isinstance(error, OperationFailure) and error.code in PASSING)


def failure_of_refusal(error: PyMongoError) -> JoinFailed:
    """What it means that MongoDB refused."""
    code = error.code if isinstance(error, OperationFailure) else None
    if code in SNAPSHOT_GONE:
        return SnapshotGone("MongoDB no longer has the instant that its parts read at.")
    return JoinFailed(REASONS.get(code or 0, f"MongoDB could not do it (error {code})."))


def breakage_of(failed: ReadFailed, rows: int, before: Breakage | None) -> Breakage | None:
    """What is remembered of a part that MongoDB broke off after so many rows; None where MongoDB itself was away."""
    error = failed.__cause__
    if not _is_there():
        return None
    name = str(error.code) if isinstance(error, OperationFailure) else type(error).__name__
    now = Breakage(name, rows, failed.asked)
    return replace(now, times=before.times + 1) if before else now


def failure_of_breakage(failed: ReadFailed, now: Breakage, before: Breakage | None) -> JoinFailed | None:
    """The failure that a part ends with because it was broken off again; None where to try again is right.

    MongoDB closes the connection without a word when a document that it is about to send is too big. That is told from
    a connection that broke for another reason by asking for the documents one by one: only a document that is too big
    breaks it off again at the very same place.
    """
    same = before is not None and (before.error, before.rows, before.requested) == (now.error, now.rows, now.requested)
    if isinstance(failed.__cause__, AutoReconnect) and not failed.__cause__.timeout and same and now.requested == 1:
        return JoinFailed(f"MongoDB closed the connection. {TOO_BIG}")
    if now.times >= settings().max_attempts:
        return JoinFailed(
            f"MongoDB broke it off {now.times} times, the last time after {now.rows:,} rows (error {now.error}). "
            "Try again; if it happens again, MongoDB's log says why."
        )
    return None


def suspect_range(broke: Breakage | None) -> range:
    """The documents among which the one was that broke a part off."""
    return range(broke.rows, broke.rows + broke.requested) if broke and not broke.error.isdecimal() else range(0)


def _is_there() -> bool:
    try:
        connections().mongodb.admin.command("ping")
    except MONGODB_FAILURES:
        return False
    return True

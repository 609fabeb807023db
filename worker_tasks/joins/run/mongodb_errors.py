"""Translates MongoDB errors into join failures.

The failures do not quote MongoDB's own messages, which may contain parts of documents.
"""

from dataclasses import replace

from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import MONGODB_FAILURES, JoinFailed, SnapshotGone
from worker_tasks.infra.settings import settings
from worker_tasks.joins.reading.batches import ReadFailed
from worker_tasks.joins.run.run_state import Breakage

TOO_BIG = (
    "A joined document would be bigger than the 16 MB that MongoDB allows. Ask for shape rows, first or count, "
    "for fewer fields, or set a limit on the join."
)

#: Messages for people, keyed by MongoDB's error code: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
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
#: Errors that are unrelated to the join, so the join is retried. They have three causes: a server stopped, started or
#: stepped down; an operation, cursor or session was lost or killed; or MongoDB reached one of its own time limits.
#: MongoDB calls them HostUnreachable, HostNotFound, CursorNotFound, MaxTimeMSExpired, LockTimeout, NetworkTimeout,
#: ShutdownInProgress, FailedToSatisfyReadPreference, StaleShardVersion, QueryPlanKilled, PrimarySteppedDown,
#: NoSuchSession, TransactionTooOld, CursorKilled, NetworkInterfaceExceededTimeLimit, SocketException,
#: NotWritablePrimary, InterruptedAtShutdown, Interrupted, InterruptedDueToReplStateChange, StaleConfig,
#: NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary.
TRANSIENT_CODES = frozenset(
    {6, 7, 24, 43, 50, 63, 89, 91, 133, 175, 189, 202, 206, 225, 237, 262}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)


def is_transient(error: BaseException | None) -> bool:
    """Whether the error is unrelated to the join, so that the join should be retried."""
    return isinstance(error, MONGODB_FAILURES) or (
        isinstance(error, OperationFailure) and error.code in TRANSIENT_CODES
    )


def failure_of_refusal(error: PyMongoError) -> JoinFailed:
    """The failure to report for a join that MongoDB refused to run."""
    code = error.code if isinstance(error, OperationFailure) else None
    if code in SNAPSHOT_GONE:
        return SnapshotGone("MongoDB no longer has the instant that its parts read at.")
    return JoinFailed(REASONS.get(code or 0, f"MongoDB could not do it (error {code})."))


def breakage_of(failed: ReadFailed, rows: int, previous: Breakage | None) -> Breakage | None:
    """Describes an error that interrupted a part after ``rows`` rows. Returns None if MongoDB is not reachable."""
    error = failed.__cause__
    if not _is_mongodb_available():
        return None
    name = str(error.code) if isinstance(error, OperationFailure) else type(error).__name__
    breakage = Breakage(name, rows, failed.requested)
    return replace(breakage, times=previous.times + 1) if previous else breakage


def failure_of_breakage(failed: ReadFailed, now: Breakage, previous: Breakage | None) -> JoinFailed | None:
    """The failure that ends a part after another interruption; None if the part should be retried.

    If a document is too big to send, MongoDB closes the connection without an error. To tell this case from any other
    lost connection, the next try reads the documents one by one. If the connection is lost at the same document again,
    the document is too big.
    """
    same = previous is not None and replace(previous, times=now.times) == now
    if isinstance(failed.__cause__, AutoReconnect) and not failed.__cause__.timeout and same and now.requested == 1:
        return JoinFailed(f"MongoDB closed the connection. {TOO_BIG}")
    if now.times >= settings().max_attempts:
        return JoinFailed(
            f"MongoDB broke it off {now.times} times, the last time after {now.rows:,} rows (error {now.error}). "
            "Try again; if it happens again, MongoDB's log says why."
        )
    return None


def suspect_range(breakage: Breakage | None) -> range:
    """The positions of the documents in the batch that failed, from 0. Empty if MongoDB returned an error code."""
    if breakage is None or breakage.error.isdecimal():
        return range(0)
    return range(breakage.rows, breakage.rows + breakage.requested)


def _is_mongodb_available() -> bool:
    try:
        connections().mongodb.admin.command("ping")
    except MONGODB_FAILURES:
        return False
    return True

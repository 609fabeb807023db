"""What MongoDB says of a join that it could not do, in our words. Its own may hold parts of documents."""

from pymongo.errors import AutoReconnect, ExecutionTimeout, OperationFailure, PyMongoError

from worker_tasks.connections import connections
from worker_tasks.errors import MONGODB_FAILURES, DovetailError, JoinFailed, LimitExceeded, SnapshotGone
from worker_tasks.settings import settings
from worker_tasks.staging import NARROW

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
    11601: "It was killed in MongoDB, by somebody else than Dovetail.",
    17419: TOO_BIG,
    17420: TOO_BIG,
}
#: SnapshotTooOld, SnapshotUnavailable.
SNAPSHOT_GONE = frozenset({239, 246})


def of(error: PyMongoError | DovetailError, *, met_before: bool) -> DovetailError | None:
    """The failure that a join ends with because of this error; None where to try again is right.

    Args:
        met_before: whether this is not the first try.
    """
    if isinstance(error, DovetailError):
        return error
    if isinstance(error, ExecutionTimeout) or error.timeout:
        seconds = settings().join_seconds
        return LimitExceeded(f"It took longer than {seconds:,g} s, which is the limit. {NARROW}")
    if isinstance(error, AutoReconnect) and met_before and _is_there():
        # What MongoDB does, without a word, to a connection on which a joined document becomes too big.
        return JoinFailed(f"MongoDB closed the connection. {TOO_BIG}")
    if isinstance(error, MONGODB_FAILURES):
        return None
    return of_refusal(error)


def of_refusal(error: PyMongoError) -> JoinFailed:
    """What it means that MongoDB refused."""
    code = error.code if isinstance(error, OperationFailure) else None
    if code in SNAPSHOT_GONE:
        return SnapshotGone("MongoDB no longer has the instant that its parts read at.")
    return JoinFailed(REASONS.get(code or 0, f"MongoDB could not do it (error {code})."))


def _is_there() -> bool:
    try:
        connections().mongodb.admin.command("ping")
    except MONGODB_FAILURES:
        return False
    return True
